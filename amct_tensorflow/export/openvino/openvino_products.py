"""Finds the products of two computed operands that OpenVINO computes wrongly in int8, and which stay in float there.

`findings/openvino_garbles_attention_with_one_product_in_int8.sh` shows it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.graph.view import GraphView, data_inputs
from amct_tensorflow.model.layers import is_product
from amct_tensorflow.ops import OP_TYPES

_LONE = "the other product of its attention is in float, which OpenVINO in bfloat16 does not compute beside one in int8"


def products_to_leave(plan: ExportPlan) -> dict[str, str]:
    """Returns the products of a plan to leave in float, and why."""
    return dict.fromkeys(_lone_products(plan, GraphView(plan.float_reference)), _LONE)


def _lone_products(plan: ExportPlan, view: GraphView) -> Iterator[str]:
    """Yields the products in int8 around a Softmax beside which others are in float.

    OpenVINO 2026.4 makes one kernel of both. Where it computes floats in bfloat16, as it does by default on processors
    that have it, and one of the products is in int8, that kernel yields other values.
    """
    in_int8 = {name for name, layer in plan.quantized_layers.items() if layer.is_product}
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
