"""Finds the chains of nodes that stand for quantized layers, as GE's passes look for them.

    AscendQuant -> [Pad] -> layer -> [BiasAdd] -> AscendDequant

Nothing else may stand between, but for groups of convolutions:

    AscendQuant -> Split -> Conv2Ds -> Concat -> AscendDequant

Where a chain is broken, the layer in it is looked for all the same, so that a finding can name it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import BARRIER
from amct_tensorflow.graph.view import GraphView, data_inputs
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.quantized.ascend_ops import DEQUANT, QUANT, WEIGHT_QUANT

PRODUCTS = ("BatchMatMul", "BatchMatMulV2")
_PADDED = ("Conv2D", "DepthwiseConv2dNative")
_JOINS = {"Concat": slice(1, None), "ConcatV2": slice(None, -1)}
_SPLITS = {"Split": 1, "SplitV": 0}
# Behind a product of matrices GE's passes know this form of a bias.
_SUMS = ("Add", "AddV2")
# How far a layer is looked for in a broken chain.
_REACH = 8


class Break(Enum):
    """Where a chain is broken."""

    BEHIND_LAYER = auto()
    BEFORE_LAYER = auto()
    WEIGHTS = auto()


@dataclass(frozen=True, eq=False)
class Chain:
    """A quantized layer, as its AscendDequant ends it.

    Attributes:
        dequantizer: the AscendDequant.
        layers: its op, several for a group of convolutions; empty if none was found.
        quantizers: the AscendQuants of the data, and of the second operand of a product of two computed ones.
        bias: the node that adds the bias; None without.
        barriers: nodes that pass the sums on, and that GE takes out by a pass of its own.
        broken: where it is broken; None if it is whole.
        culprit: the node at which it is broken.
    """

    dequantizer: NodeDef
    layers: tuple[NodeDef, ...]
    quantizers: tuple[NodeDef, ...] = ()
    bias: NodeDef | None = None
    barriers: tuple[NodeDef, ...] = ()
    broken: Break | None = None
    culprit: NodeDef | None = None

    @property
    def has_weights(self) -> bool:
        """Whether its layer multiplies."""
        return any(OP_TYPES[layer.op].has_weights for layer in self.layers)


def find_chains(view: GraphView) -> Iterator[Chain]:
    """Yields the chain of each AscendDequant of a graph, in the order of the graph."""
    for node in view.nodes.values():
        if node.op == DEQUANT and node.input:
            yield _chain(view, node)


def source(view: GraphView, node: NodeDef, index: int) -> NodeDef | None:
    """Returns the node that yields a data input of a node; None if it has no such input."""
    inputs = data_inputs(node.input)
    return view.producer(inputs[index]) if -len(inputs) <= index < len(inputs) else None


def weights_of(view: GraphView, layer: NodeDef) -> NodeDef | None:
    """Returns the node that yields the second operand of a layer; None if it has none."""
    index = OP_TYPES[layer.op].weight_input
    return None if index is None else source(view, layer, index)


def _chain(view: GraphView, dequantizer: NodeDef) -> Chain:
    node = source(view, dequantizer, 0)
    bias, barriers = None, []
    while node is not None and node.op in ("BiasAdd", BARRIER, *_SUMS):
        before = source(view, node, 0)
        if node.op == BARRIER:
            barriers.append(node)
        elif bias is None and before is not None and (node.op == "BiasAdd" or before.op in PRODUCTS):
            bias = node
        else:
            break
        node = before
    found = Chain(dequantizer, (), (), bias, tuple(barriers))
    if node is not None and node.op in OP_TYPES:
        return _through(view, found, [node])
    convolutions = [] if node is None else _grouped(view, node)
    if convolutions:
        return _through(view, found, convolutions)
    layer = _look_back(view, node, lambda each: each.op in OP_TYPES)
    behind = node or dequantizer
    return Chain(dequantizer, () if layer is None else (layer,), (), bias, (), Break.BEHIND_LAYER, behind)


def _grouped(view: GraphView, join: NodeDef) -> list[NodeDef]:
    """Returns the convolutions whose values a node joins, if they read the parts of one split; else none."""
    if join.op not in _JOINS:
        return []
    convolutions = [view.producer(text) for text in data_inputs(join.input)[_JOINS[join.op]]]
    if any(each.op != "Conv2D" for each in convolutions):
        return []
    splits = {each.name: each for each in (source(view, node, 0) for node in convolutions) if each is not None}
    (split,) = splits.values() if len(splits) == 1 else (None,)
    return convolutions if split is not None and split.op in _SPLITS else []


def _through(view: GraphView, chain: Chain, layers: list[NodeDef]) -> Chain:
    """Returns a chain with what stands before its layers."""
    layer = layers[0]
    data = source(view, layer, OP_TYPES[layer.op].data_input)
    if data is not None and len(layers) > 1:
        data = source(view, data, _SPLITS[data.op])
    if data is not None and data.op == "Pad" and layer.op in _PADDED:
        data = source(view, data, 0)
    broken: Break | None = None
    culprit: NodeDef | None = None
    quantizers = [] if data is None or data.op != QUANT else [data]
    if not quantizers:
        broken, culprit = Break.BEFORE_LAYER, data or layer
        found = _look_back(view, data, lambda node: node.op == QUANT)
        quantizers = [] if found is None else [found]
    for each in layers:
        weights = weights_of(view, each)
        if weights is not None and weights.op == QUANT and OP_TYPES[each.op].of_computed is not None:
            quantizers.append(weights)
        elif OP_TYPES[each.op].has_weights and (weights is None or weights.op != WEIGHT_QUANT) and broken is None:
            broken, culprit = Break.WEIGHTS, each
    return Chain(chain.dequantizer, tuple(layers), tuple(quantizers), chain.bias, chain.barriers, broken, culprit)


def _look_back(view: GraphView, node: NodeDef | None, is_wanted: Callable[[NodeDef], bool]) -> NodeDef | None:
    """Returns the nearest node of a kind before a node, along first inputs."""
    for _ in range(_REACH):
        if node is None or is_wanted(node):
            return node
        node = source(view, node, 0)
    return None
