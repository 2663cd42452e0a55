"""Finds the products of two computed operands that OpenVINO computes wrongly in int8, and which stay in float there."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.graph.view import GraphView, data_inputs, parse_tensor_name
from amct_tensorflow.model.layers import is_product
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.ops.op_table import trait
from amct_tensorflow.ops.traits import Moves

_SHARED = "its output is read more than once, where OpenVINO scales the sums of two computed operands twice"
_LONE = "the other product of its attention is in float, which OpenVINO in bfloat16 does not compute beside one in int8"


def products_to_leave(plan: ExportPlan) -> dict[str, str]:
    """Returns the products of a plan to leave in float, and why."""
    view = GraphView(plan.float_reference)
    shared = dict.fromkeys(_shared_products(plan, view), _SHARED)
    return {**dict.fromkeys(_lone_products(plan, view, shared), _LONE), **shared}


def _shared_products(plan: ExportPlan, view: GraphView) -> Iterator[str]:
    """Yields the products whose values are read more than once, or are an output and read.

    OpenVINO 2026.4 moves what scales the operands behind the sums, and there scales them once per reader.
    """
    for name, layer in plan.quantized_layers.items():
        if layer.is_product and _count_reads(view, plan.outputs, layer.dequantizer) > 1:
            yield name


def _count_reads(view: GraphView, outputs: Collection[str], name: str) -> int:
    """Counts how often the values of a node are read, also in another shape; an output is one more."""
    reads = int(name in outputs)
    for reader in view.readers(name):
        count = sum(parse_tensor_name(text).node == name for text in data_inputs(reader.input))
        moved = trait(reader.op, Moves) is not None and count == 1
        reads += _count_reads(view, outputs, reader.name) if moved and view.readers(reader.name) else count
    return reads


def _lone_products(plan: ExportPlan, view: GraphView, left: Collection[str]) -> Iterator[str]:
    """Yields the products in int8 around a Softmax beside which others are in float.

    OpenVINO 2026.4 makes one kernel of both. Where it computes floats in bfloat16, as it does by default on processors
    that have it, and one of the products is in int8, that kernel yields other values.
    """
    in_int8 = {name for name, layer in plan.quantized_layers.items() if layer.is_product} - set(left)
    for node in view.nodes.values():
        if node.op == "Softmax":
            products = {*_nearest(view, node, _sources), *_nearest(view, node, _readers)}
            if products & in_int8 and products - in_int8:
                yield from sorted(products & in_int8)


def _sources(view: GraphView, node: NodeDef) -> list[NodeDef]:
    return [view.producer(text) for text in data_inputs(node.input)]


def _readers(view: GraphView, node: NodeDef) -> list[NodeDef]:
    return view.readers(node.name)


def _nearest(
    view: GraphView, start: NodeDef, following: Callable[[GraphView, NodeDef], Sequence[NodeDef]]
) -> Iterator[str]:
    """Yields the first products of two computed operands on all ways from a node; other layers end a way."""
    waiting, seen = deque([start]), {start.name}
    while waiting:
        for node in following(view, waiting.popleft()):
            if node.name in seen:
                continue
            seen.add(node.name)
            if node.op not in OP_TYPES:
                waiting.append(node)
            elif is_product(view, node):
                yield node.name
