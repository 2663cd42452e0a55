"""Writes products of two computed matrices so that TensorFlow Lite's converter keeps the activation behind them.

Of ``relu(a @ b)`` with a computed ``b`` that is not transposed it makes a product without the Relu, whether the op is a
MatMul, a BatchMatMulV2 or an Einsum (``findings/tflite_converter_drops_relu_behind_a_product.sh``). Behind a
BatchMatMulV3, which computes the same, it keeps it.
"""

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView

# Per op type, its attributes that transpose the operands.
_TRANSPOSING = {
    "MatMul": ("transpose_a", "transpose_b"),
    "BatchMatMul": ("adj_x", "adj_y"),
    "BatchMatMulV2": ("adj_x", "adj_y"),
}


def keep_activations_of_products(graph_def: GraphDef) -> None:
    """Makes a BatchMatMulV3 of each product of two computed matrices in a graph, but for those of a transposed one."""
    view = GraphView(graph_def)
    found = [(node, transposed) for node in graph_def.node if (transposed := _transposed(node)) is not None]
    computed = [(node, transposed) for node, transposed in found if view.constant(node.input[1]) is None]
    for node, (first, second) in computed:
        if not second:
            _write(node, first)


def _transposed(node: NodeDef) -> tuple[bool, bool] | None:
    """Returns of a product of two matrices which of them are transposed; None for another node."""
    if node.op == "Einsum":
        return _transposed_in(node.attr["equation"].s.decode())
    if node.op not in _TRANSPOSING:
        return None
    first, second = (node.attr[name].b for name in _TRANSPOSING[node.op])
    return first, second


def _transposed_in(equation: str) -> tuple[bool, bool] | None:
    operands, _, output = equation.replace(" ", "").partition("->")
    first, _, second = operands.partition(",")
    inner = set(first) & set(second)
    if any(len(set(each)) != 2 or len(each) != 2 for each in (first, second, output)) or len(inner) != 1:
        return None
    (letter,) = inner
    is_product = output == first.replace(letter, "") + second.replace(letter, "")
    return (first[0] == letter, second[1] == letter) if is_product else None


def _write(node: NodeDef, transposed: bool) -> None:
    dtype = node.attr["T"].type
    node.op = "BatchMatMulV3"
    node.attr.clear()
    for name in ("Ta", "Tb", "Tout"):
        node.attr[name].type = dtype
    node.attr["adj_x"].b = transposed
