"""Finds BatchNorms, and other scalings of channels by constants, that stay in float, and says why.

``fusion.py`` and ``fusion_before.py`` fold what they can; this module looks at the rest, in the fused graph with its
shapes. Written in small ops, a BatchNorm is a product with a constant per channel, and a sum with another. If it
normalizes by the statistics of the batch, ``Rsqrt(Mean(.) + epsilon)`` over the images gives it away.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import Consumer, GraphView, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.model.layers import control_flow_reason
from amct_tensorflow.model.opened_functions import OpenGraph
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.affine import PerChannelAffine
from amct_tensorflow.ops.channels import ChannelMove
from amct_tensorflow.ops.multiply_accumulates import CARRIERS
from amct_tensorflow.ops.traits import BatchNorm, ControlFlow, Identity, Root, Sum

_TRAINING = "it takes mean and variance from the batch (training mode); freeze the model for inference"
_MAYBE_TRAINING = "a value in the graph says whether it takes mean and variance from the batch (training mode)"
_ASKED = "the configuration asks to keep it"
_OUTPUT = "its value, or that of the layer before it, is an output"


@dataclass(frozen=True)
class FloatScaling:
    """A BatchNorm, or another scaling of channels by constants, that stays in float.

    Attributes:
        name: its last node.
        op_types: those of its nodes, in their order.
        reason: why it stays, as the rest of a sentence about it.
    """

    name: str
    op_types: tuple[str, ...]
    reason: str


def find_float_scalings(
    graph: OpenGraph, fused: FusedGraph, outputs: Collection[str], unfused: Collection[str]
) -> list[FloatScaling]:
    """Finds the scalings of channels that stay in float.

    Args:
        graph: the fused graph with its functions open, and with shapes.
        fused: the fused graph.
        outputs: nodes that are asked for.
        unfused: layers next to which a BatchNorm was to be kept.
    """
    view = graph.view
    neighbours = _Neighbours(view, fused, outputs, unfused)
    found = []
    seen: set[str] = set()
    for node in view.topological():
        if node.name not in graph.names or node.name in seen or node.name in neighbours.tails:
            continue
        chain = list(_chain(view, node, outputs, neighbours.tails))
        seen.update(str(each.name) for each in chain)
        where = graph.inside.get(str(node.name)) or control_flow_reason(view, node)
        types = tuple(str(each.op) for each in chain)
        if any(_scales(view, each) for each in chain):
            found.append(FloatScaling(str(chain[-1].name), types, where or neighbours.why(chain)))
        elif (reason := _why_of_itself(view, node)) is not None:
            found.append(FloatScaling(str(node.name), (str(node.op),), where or reason))
    return found


def _chain(view: GraphView, node: NodeDef, outputs: Collection[str], ends: Collection[str]) -> Iterator[NodeDef]:
    """Yields a chain of affine nodes, each the only reader of the one before; nothing if the first is not affine."""
    while node.name not in ends and _affine_data(view, node) is not None:
        yield node
        edges = view.consumers(node.name)
        if len(edges) != 1 or view.is_control(edges[0]) or node.name in outputs:
            return
        node = edges[0].node


def _affine_data(view: GraphView, node: NodeDef) -> str | None:
    """Returns the data that a node scales or shifts per channel, as GraphDef writes inputs; None if it does not."""
    inputs = data_inputs(node.input)
    if has(node.op, BatchNorm):
        is_inference = "is_training" in node.attr and not node.attr["is_training"].b
        return inputs[0] if is_inference and _why_of_itself(view, node) is None else None
    if not has(node.op, PerChannelAffine) or not tf.as_dtype(attribute(node, "T").type or tf.float32).is_floating:
        return None
    constants = [view.constant(text) for text in inputs]
    if sum(constant is None for constant in constants) != 1:
        return None
    at = 0 if constants[0] is None else 1
    constant = np.asarray(constants[1 - at])
    is_per_channel = sum(length > 1 for length in constant.shape) <= 1
    keeps_shape = view.shape(node.name) == view.shape(inputs[at])  # else it makes channels, rather than scale them
    is_statistic = has(view.producer(inputs[at]).op, Root) or (node.op == "RealDiv" and at == 1)
    return inputs[at] if is_per_channel and keeps_shape and not is_statistic else None


def _scales(view: GraphView, node: NodeDef) -> bool:
    """Tells whether an affine node scales channels by different factors."""
    sizes = [constant.size for text in data_inputs(node.input) if (constant := view.constant(text)) is not None]
    affine = trait(node.op, PerChannelAffine)
    return has(node.op, BatchNorm) or (affine is not None and affine.scales and max(sizes) > 1)


def _why_of_itself(view: GraphView, node: NodeDef) -> str | None:
    """Returns why no layer can take a BatchNorm in, whatever stands around it; None if there is no such reason."""
    if has(node.op, Root):
        return _why_of_statistics(view, node)
    if not has(node.op, BatchNorm):
        return None
    parameters = [view.constant(text) for text in data_inputs(node.input)[1:5]]
    if attribute(node, "is_training").b or "is_training" not in node.attr:
        # Keras 2 computes a LayerNorm so, with a gamma and beta that it makes up.
        return None if parameters[0] is None and parameters[1] is None else _TRAINING
    if any(parameter is None for parameter in parameters):
        return "its parameters are no constants, but computed"
    edges = [edge for edge in view.consumers(node.name) if not view.is_control(edge)]
    if any(parse_tensor_name(edge.node.input[edge.input_index]).port > 0 for edge in edges):
        return "its mean or variance is read, too"
    return None


def _why_of_statistics(view: GraphView, root: NodeDef) -> str | None:
    """Tells whether a root is computed from a mean over the images, always or under a condition."""
    waiting, decided = data_inputs(root.input), True
    visited: set[str] = set()
    while waiting:
        node = view.producer(waiting.pop())
        if node.name in visited:
            continue
        visited.add(node.name)
        inputs = data_inputs(node.input)
        if node.op == "Mean":
            axes = view.constant(inputs[1])
            if axes is not None and axes.size > 0 and axes.min() == 0:
                return _TRAINING if decided else _MAYBE_TRAINING
        elif any(has(node.op, kind) for kind in (Sum, ControlFlow, ChannelMove, Identity)):
            is_merge = trait(node.op, ControlFlow) is ControlFlow.MERGE
            decided = decided and not is_merge
            waiting.extend(inputs if is_merge or has(node.op, Sum) else inputs[:1])
    return None


class _Neighbours:
    """The layers next to a chain, and why they did not take it in."""

    def __init__(self, view: GraphView, fused: FusedGraph, outputs: Collection[str], unfused: Collection[str]) -> None:
        self.tails = {fused.tail_of(name): layer for name, layer in fused.layers.items() if layer.weights is not None}
        self._view = view
        self._fused = fused
        self._layers = fused.layers
        self._outputs = frozenset(outputs)
        self._unfused = frozenset(unfused)

    def why(self, chain: list[NodeDef]) -> str:
        """Returns why a chain stays in float."""
        reasons = [self._why_not_behind(chain), self._why_not_before(chain)]
        found = list(dict.fromkeys(reason for reason in reasons if reason is not None))
        if found:
            return ", and ".join(found)
        before = self._view.producer(str(_affine_data(self._view, chain[0]))).op
        readers = sorted({str(edge.node.op) for edge in self._view.consumers(chain[-1].name)})
        return f"no layer stands next to it, but {before} before it and {', '.join(readers) or 'nothing'} behind it"

    def _why_not_behind(self, chain: list[NodeDef]) -> str | None:
        """Returns why the layer that a chain stands behind did not take it in; None if it stands behind none."""
        path = [self._view.producer(str(_affine_data(self._view, chain[0])))]
        while path[-1].name not in self.tails and path[-1].op not in CARRIERS:
            data = data_inputs(path[-1].input)
            if not (has(path[-1].op, ChannelMove) or has(path[-1].op, Identity)):
                data = [text] if (text := _affine_data(self._view, path[-1])) is not None else []
            if not data:
                return None
            path.append(self._view.producer(data[0]))
        layer = self.tails.get(path[-1].name)
        if layer is None:
            return "the layer before it is not quantized"
        return _first(
            (_ASKED, layer.batch_norm_kept),
            (_OUTPUT, self._outputs.intersection(str(node.name) for node in path)),
            ("what the layer before it yields is read by others, too", any(self._is_shared(node) for node in path)),
            ("it does not fit the channels of the layer before it, or its weights would not be finite", True),
        )  # fmt: skip

    def _why_not_before(self, chain: list[NodeDef]) -> str | None:
        """Returns why the layers that a chain stands before did not take it in; None if it stands before none."""
        last = str(chain[-1].name)
        edges = self._view.consumers(last)
        readers = [layer for edge in edges if (layer := self._whose_data(edge)) is not None]
        if not readers:
            return None
        has_shift = any(affine.shifts for node in chain if (affine := trait(node.op, PerChannelAffine)) is not None)
        return _first(
            (_ASKED, self._unfused.intersection(reader.name for reader in readers)),
            (_OUTPUT, last in self._outputs),
            ("not all of what reads it are layers", len(readers) < len(edges)),
            ("the layer behind it pads with zeros, which do not go through it",
             has_shift and any(self._pads(reader) for reader in readers)),
            ("the layer behind it is an output, to which no bias can be added",
             any(self._fused.tail_of(reader.name) in self._outputs and reader.bias is None for reader in readers)),
            ("it does not fit the channels of the layer behind it, or its weights would not be finite", True),
        )  # fmt: skip

    def _is_shared(self, node: NodeDef) -> bool:
        return len(self._view.consumers(node.name)) > 1

    def _whose_data(self, edge: Consumer) -> FusedLayer | None:
        """Returns the layer with weights that reads an edge as its data."""
        layer = self._layers.get(edge.node.name)
        return layer if layer and layer.weights is not None and layer.op.data_input == edge.input_index else None

    def _pads(self, layer: FusedLayer) -> bool:
        assert layer.weights is not None
        return layer.op.pads(self._view.nodes[layer.name], layer.weights.shape)


def _first(*reasons: tuple[str, object]) -> str:
    """Returns the first reason that applies; the last one always must."""
    return next(reason for reason, applies in reasons if applies)
