"""A graph under examination: indexed, with the static shapes that it has for one image.

The file of a quantized model calls AscendQuant and the like as functions, behind which TensorFlow infers no shapes.
For inference they become what they are for shapes:

    AscendQuant, AscendDequant, AscendAntiQuant      Identity
    AscendWeightQuant                                Cast
    an op type that TensorFlow does not know         Placeholder of any shape
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.devices.chains import Chain, find_chains
from amct_tensorflow.graph.nodes import Attr, make_node
from amct_tensorflow.graph.op_definitions import op_definition
from amct_tensorflow.graph.view import GraphView, Shape, attribute, upstream
from amct_tensorflow.model.outline import one_image_shapes
from amct_tensorflow.ops import has
from amct_tensorflow.ops.multiply_accumulates import CARRIERS, multiply_accumulates
from amct_tensorflow.ops.traits import Fed
from amct_tensorflow.quantize.quantized.ascend_ops import ANTI_QUANT, DEQUANT, QUANT, WEIGHT_QUANT

_PASSING_SHAPES_ON = (QUANT, DEQUANT, ANTI_QUANT)
OWN_OPS = frozenset({*_PASSING_SHAPES_ON, WEIGHT_QUANT})


@dataclass(frozen=True, eq=False)
class ExaminedGraph:
    """A graph under examination.

    Attributes:
        view: the nodes that outputs need, with the shapes that they have for one image.
        knows_shapes: whether static shapes could be inferred.
        doubled: names that several nodes have; the first of them is examined.
        ranges: per quantized layer, the least and the greatest value of its input in calibration; empty if unknown.
    """

    view: GraphView
    knows_shapes: bool
    doubled: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """Its quantized layers."""
        return tuple(find_chains(self.view))

    @property
    def is_quantized(self) -> bool:
        """Whether anything in it is quantized."""
        return any(node.op in OWN_OPS for node in self.view.nodes.values())

    @property
    def inputs(self) -> list[NodeDef]:
        """Its inputs that have to be fed, or may be."""
        return [node for node in self.view.nodes.values() if has(node.op, Fed)]

    def input_shape(self, node: NodeDef) -> Shape | None:
        """Returns the shape of an input for one image, as it states it itself; None if it may have any rank."""
        shape = tf.TensorShape(attribute(node, "shape").shape if "shape" in node.attr else None)
        if shape.rank is None:
            return None
        return tuple(1 if axis == 0 and length is None else length for axis, length in enumerate(shape.as_list()))

    @cached_property
    def multiply_accumulates(self) -> dict[str, int | None]:
        """Per node that multiplies and accumulates, how often for one image; None if that is not known."""
        nodes = [node for node in self.view.nodes.values() if node.op in CARRIERS]
        return {str(node.name): multiply_accumulates(self.view, node) for node in nodes}

    def share(self, names: Collection[str]) -> float | None:
        """Returns the share of some nodes in the multiply-accumulates of the graph; None if it is not known."""
        counts = self.multiply_accumulates
        known = {name: count for name, count in counts.items() if count is not None}
        if len(known) < len(counts) or not sum(known.values()):
            return None
        return sum(known.get(name, 0) for name in names) / sum(known.values())


def examine(
    graph_def: GraphDef,
    outputs: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> ExaminedGraph:
    """Prepares a graph for examination, also one with faults; it is not changed.

    Args:
        graph_def: the graph.
        outputs: the nodes whose values are wanted; without any, all nodes are examined.
        ranges: see ``ExaminedGraph``.

    Raises:
        ModelError: a node reads one that is not there.
    """
    counts = Counter(str(node.name) for node in graph_def.node)
    doubled = tuple(name for name, count in counts.items() if count > 1)
    view = GraphView(_first_of_each(graph_def) if doubled else graph_def)
    if outputs:
        needed = upstream(view.nodes, outputs)
        view = GraphView(_part(graph_def, [node for node in view.nodes.values() if node.name in needed]))
    skeleton = GraphView(_for_shapes(view))
    shapes = one_image_shapes(skeleton, skeleton.nodes.keys())
    return ExaminedGraph(view.with_shapes(shapes or {}), shapes is not None, doubled, ranges or {})


def _first_of_each(graph_def: GraphDef) -> GraphDef:
    first: dict[str, NodeDef] = {}
    for node in graph_def.node:
        first.setdefault(node.name, node)
    return _part(graph_def, first.values())


def _part(graph_def: GraphDef, nodes: Collection[NodeDef]) -> GraphDef:
    part = GraphDef(versions=graph_def.versions, library=graph_def.library)
    part.node.extend(nodes)
    return part


def _for_shapes(view: GraphView) -> GraphDef:
    """Returns the graph as shapes are inferred of it."""
    graph_def = _part(view.graph_def, [_for_shape(view, node) for node in view.nodes.values()])
    kept = [each for each in graph_def.library.function if each.signature.name not in OWN_OPS]
    del graph_def.library.function[:]
    graph_def.library.function.extend(kept)
    return graph_def


def _for_shape(view: GraphView, node: NodeDef) -> NodeDef:
    name, dtype = str(node.name), attribute(node, "T").type or tf.float32.as_datatype_enum
    if node.op in _PASSING_SHAPES_ON:
        return make_node(name, "Identity", node.input[:1], T=tf.as_dtype(dtype))
    if node.op == WEIGHT_QUANT:
        weights = attribute(view.producer(node.input[0]), "dtype").type or tf.int8.as_datatype_enum
        return make_node(name, "Cast", node.input[:1], SrcT=tf.as_dtype(weights), DstT=tf.as_dtype(dtype))
    if op_definition(node.op, view.graph_def.library) is None:
        return make_node(name, "Placeholder", (), dtype=tf.as_dtype(dtype), shape=Attr(shape={"unknown_rank": True}))
    return node
