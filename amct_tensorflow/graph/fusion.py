"""Folds what follows a layer into its weights and bias (spec section 9).

BatchNorm in inference form, BiasAdd, Add of a constant and Mul by a scalar compute ``a * x + c`` per output channel.
A chain of them behind a layer is therefore one affine map; it is composed in float64 and becomes the layer's weights
(times ``a``) and one BiasAdd (``c``). That BiasAdd takes the name of the chain's last node, so that every consumer, and
whoever asks for that node as an output, finds the same value under the same name.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.barrier import behind_barrier
from amct_tensorflow.graph.layers import layer_weights, obstacle
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.op_types import OP_TYPES
from amct_tensorflow.graph.op_types.op_type import OpType, data_format
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute, parse_tensor_name
from amct_tensorflow.log import log_for

_BATCH_NORM = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_ADD = frozenset({"Add", "AddV2"})
_DEFAULT_EPSILON = 1e-4


class Affine(NamedTuple):
    """``scale * x + shift`` per output channel; both float64 of shape [Cout]."""

    scale: np.ndarray
    shift: np.ndarray

    def then(self, following: "Affine") -> "Affine":
        """Returns the map that applies ``self`` first and ``following`` next."""
        return Affine(following.scale * self.scale, following.scale * self.shift + following.shift)

    def is_finite(self) -> bool:
        """Tells whether float32 can hold every coefficient."""
        with np.errstate(over="ignore"):
            values = np.concatenate([self.scale, self.shift]).astype(np.float32)
        return bool(np.isfinite(values).all())


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """A quantizable layer of a fused graph.

    Attributes:
        name: node name; also its key in config.json and in the record.
        op_type: TensorFlow op type.
        input: the activations it reads, as GraphDef writes the input.
        weights: folded weights, float32 in the op's own layout; None for AvgPool.
        bias: folded bias, float32 [Cout]; None when no BiasAdd follows.
        accumulator: the node whose output 0 is the layer's sum of products: the layer itself, or the barrier behind it.
        tail: the node whose output 0 is the layer's value: the BiasAdd, or the accumulator.
        data_format: ``NHWC`` or ``NCHW``.
        absorbed: original nodes folded into the layer, in the order in which they stood.
        batch_norm_kept: whether a BatchNorm that could be folded was kept because the user asked so.
        positions_per_weight: how many positions of the output share one use of a weight.
    """

    name: str
    op_type: str
    input: str
    weights: np.ndarray | None
    bias: np.ndarray | None
    accumulator: str
    tail: str
    data_format: str
    absorbed: tuple[str, ...]
    batch_norm_kept: bool
    positions_per_weight: int = 1

    @property
    def op(self) -> OpType:
        """What is known of its op type."""
        return OP_TYPES[self.op_type]

    @property
    def channels(self) -> int:
        """Number of output channels; 1 for AvgPool, which has one factor."""
        return 1 if self.weights is None else self.op.channels(self.weights)

    @property
    def digest(self) -> str:
        """Tells folded weights and bias from any others; a layer calibrated and one to be saved must agree in it."""
        hashed = hashlib.sha256()
        for values in (self.weights, self.bias):
            hashed.update(b"none" if values is None else f"{values.shape}".encode() + values.tobytes())
        return hashed.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FusedGraph:
    """A float graph after fusion, indexed, and its quantizable layers by name, in topological order."""

    view: GraphView
    layers: dict[str, FusedLayer]

    @property
    def graph_def(self) -> GraphDef:
        """The fused graph; nodes that nothing reads any more are still in it."""
        return self.view.graph_def


class _Chain(NamedTuple):
    """The affine nodes found behind a layer."""

    affine: Affine
    nodes: tuple[NodeDef, ...]
    batch_norm_kept: bool


def fuse(view: GraphView, *, keep: Collection[str] = (), unfused: Collection[str] = ()) -> FusedGraph:
    """Folds every affine chain behind a quantizable layer.

    Args:
        view: a float graph in inference form; it is not changed.
        keep: nodes whose own value is requested, so that they cannot vanish inside a chain.
        unfused: layers behind which a BatchNorm is kept.
    """
    editor = GraphEditor(view)
    found: dict[str, FusedLayer] = {}
    for node in view.topological():
        if obstacle(view, node) is not None:
            continue
        layer = _fuse_layer(view, editor, node, keep, node.name not in unfused)
        if layer.weights is not None:
            layer = replace(layer, positions_per_weight=layer.op.positions_per_weight(node, layer.weights))
        found[node.name] = layer
    folded = sum(bool(layer.absorbed) for layer in found.values())
    log_for("fusion").debug("Folded the nodes behind %d of %d layers.", folded, len(found))
    return FusedGraph(GraphView(editor.graph_def()), found)


def _fuse_layer(
    view: GraphView, editor: GraphEditor, node: NodeDef, keep: Collection[str], fold_batch_norm: bool
) -> FusedLayer:
    op_type = OP_TYPES[node.op]
    weights = layer_weights(view, node)
    layout = data_format(node)
    accumulator = node if node.name in keep else behind_barrier(view, node)
    plain = FusedLayer(
        name=node.name,
        op_type=node.op,
        input=node.input[op_type.data_input],
        weights=weights,
        bias=None,
        accumulator=accumulator.name,
        tail=accumulator.name,
        data_format=layout,
        absorbed=(),
        batch_norm_kept=False,
    )
    if weights is None or op_type.weight_input is None:
        return plain
    chain = _find_chain(view, node, accumulator, weights, keep, fold_batch_norm)
    if not chain.nodes:
        return replace(plain, batch_norm_kept=chain.batch_norm_kept)
    if not np.array_equal(chain.affine.scale, np.ones_like(chain.affine.scale)):
        scale = op_type.along_channels(weights, chain.affine.scale)
        weights = (weights * scale).astype(np.float32)
        const = editor.add(make_const(editor.unique_name(f"{node.name}/folded_weights"), weights), like=node.name)
        editor.replace_input(node.name, op_type.weight_input, const)
    bias = chain.affine.shift.astype(np.float32)
    tail = chain.nodes[-1].name
    const = editor.add(make_const(editor.unique_name(f"{node.name}/folded_bias"), bias), like=node.name)
    for absorbed in chain.nodes:
        editor.remove(absorbed.name)
    editor.add(make_node(tail, "BiasAdd", [accumulator.name, const], T=tf.float32, data_format=layout), like=node.name)
    return replace(
        plain,
        weights=weights,
        bias=bias,
        tail=tail,
        absorbed=tuple(absorbed.name for absorbed in chain.nodes),
        batch_norm_kept=chain.batch_norm_kept,
    )


def _find_chain(
    view: GraphView,
    layer: NodeDef,
    accumulator: NodeDef,
    weights: np.ndarray,
    keep: Collection[str],
    fold_batch_norm: bool,
) -> _Chain:
    """Follows the only consumer of each node as long as it is affine, and its result representable."""
    channels = OP_TYPES[layer.op].channels(weights)
    composed = Affine(np.ones(channels), np.zeros(channels))
    nodes: list[NodeDef] = []
    current = accumulator
    while current.name not in keep:
        following = _only_consumer(view, current, vanishes=bool(nodes))
        affine = None if following is None else _as_affine(view, current, following, layer, channels)
        if following is None or affine is None:
            break
        if following.op in _BATCH_NORM and not fold_batch_norm:
            return _Chain(composed, tuple(nodes), True)
        extended = composed.then(affine)
        if not (extended.is_finite() and _weights_stay_finite(layer.op, weights, extended)):
            log_for("fusion").warning(
                "Node %s is not folded into %s: the folded weights would not be finite.", following.name, layer.name
            )
            break
        composed = extended
        nodes.append(following)
        current = following
    return _Chain(composed, tuple(nodes), False)


def _weights_stay_finite(op_type: str, weights: np.ndarray, affine: Affine) -> bool:
    """Weights that are not finite from the start are reported elsewhere; a fold must not make them so."""
    with np.errstate(over="ignore", invalid="ignore"):
        folded = (weights * OP_TYPES[op_type].along_channels(weights, affine.scale)).astype(np.float32)
    return bool(np.isfinite(folded).all() or not np.isfinite(weights).all())


def _only_consumer(view: GraphView, node: NodeDef, vanishes: bool) -> NodeDef | None:
    """Returns the node that alone reads ``node``'s output 0; None if there are several, or another output is read.

    A node that ``vanishes`` in the fold must have no control edges either: they would point nowhere.
    """
    edges = [edge for edge in view.consumers(node.name) if vanishes or not view.is_control(edge)]
    if len(edges) != 1 or view.is_control(edges[0]):
        return None
    edge = edges[0]
    return edge.node if parse_tensor_name(edge.node.input[edge.input_index]).port == 0 else None


def _as_affine(view: GraphView, previous: NodeDef, node: NodeDef, layer: NodeDef, channels: int) -> Affine | None:
    """Returns what ``node`` does to the output of ``previous``, if that is an affine map per output channel."""
    if node.op in _BATCH_NORM:
        return _batch_norm(view, previous, node, layer)
    if node.op == "BiasAdd":
        return _bias_add(view, previous, node, layer, channels)
    if node.op in _ADD:
        return _add(view, previous, node, layer, channels)
    if node.op == "Mul":
        return _scalar_mul(view, previous, node, channels)
    return None


def _batch_norm(view: GraphView, previous: NodeDef, node: NodeDef, layer: NodeDef) -> Affine | None:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``."""
    training = attribute(node, "is_training").b or "is_training" not in node.attr
    if not OP_TYPES[layer.op].folds_batch_norm or training or parse_tensor_name(node.input[0]).node != previous.name:
        return None
    if data_format(node) != data_format(layer) or _reads_statistics(view, node):
        return None
    constants = [view.constant(text) for text in node.input[1:5]]
    if any(value is None for value in constants):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in constants)
    epsilon = attribute(node, "epsilon").f if "epsilon" in node.attr else _DEFAULT_EPSILON
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
        return Affine(scale, beta - mean * scale)


def _reads_statistics(view: GraphView, batch_norm: NodeDef) -> bool:
    """Tells whether something reads the mean or variance that a BatchNorm passes on; they vanish with it."""
    edges = [edge for edge in view.consumers(batch_norm.name) if not view.is_control(edge)]
    return any(parse_tensor_name(edge.node.input[edge.input_index]).port > 0 for edge in edges)


def _bias_add(view: GraphView, previous: NodeDef, node: NodeDef, layer: NodeDef, channels: int) -> Affine | None:
    bias = view.constant(node.input[1])
    if bias is None or parse_tensor_name(node.input[0]).node != previous.name:
        return None
    if data_format(node) != data_format(layer) or bias.shape != (channels,):
        return None
    return Affine(np.ones(channels), bias.astype(np.float64))


def _other_constant(view: GraphView, previous: NodeDef, node: NodeDef) -> np.ndarray | None:
    """Returns the constant that a binary op combines with the output of ``previous``."""
    sides = [text for text in node.input[:2] if parse_tensor_name(text).node != previous.name]
    return view.constant(sides[0]) if len(sides) == 1 else None


def _add(view: GraphView, previous: NodeDef, node: NodeDef, layer: NodeDef, channels: int) -> Affine | None:
    """A constant counts as a bias if it is a scalar, or varies along the channel axis only."""
    constant = _other_constant(view, previous, node)
    if constant is None:
        return None
    rank = OP_TYPES[layer.op].output_rank or 2
    if constant.ndim > rank:
        return None
    axis = OP_TYPES[layer.op].channel_axis(data_format(layer))
    lengths = [*(1,) * (rank - constant.ndim), *constant.shape]
    if lengths.pop(axis) not in (1, channels) or any(length != 1 for length in lengths):
        return None
    return Affine(np.ones(channels), np.broadcast_to(constant.reshape(-1), channels).astype(np.float64))


def _scalar_mul(view: GraphView, previous: NodeDef, node: NodeDef, channels: int) -> Affine | None:
    constant = _other_constant(view, previous, node)
    if constant is None or constant.ndim != 0:
        return None
    return Affine(np.full(channels, float(constant)), np.zeros(channels))
