"""Writes products with a computed matrix so that TensorFlow Lite's converter keeps the activation behind them.

Of ``relu(a @ b)`` with a computed ``b`` it makes a product without the Relu, whether the op is a MatMul, an Einsum or a
BatchMatMulV2 (``findings/tflite_converter_drops_relu_behind_a_product.sh``). Behind a BatchMatMulV3, which computes the
same, it keeps it.
"""

from typing import NamedTuple

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops.einsum import parse_equation

# Per op type, its attributes that transpose the operands.
_TRANSPOSING = {
    "MatMul": ("transpose_a", "transpose_b"),
    "BatchMatMul": ("adj_x", "adj_y"),
    "BatchMatMulV2": ("adj_x", "adj_y"),
}


class _Product(NamedTuple):
    """A product of matrices: its operands, and whether each is transposed."""

    operands: tuple[str, str]
    transposed: tuple[bool, bool]


def keep_activations_of_products(graph_def: GraphDef) -> None:
    """Makes a BatchMatMulV3 of each product in a graph whose second matrix is computed."""
    view = GraphView(graph_def)
    products = [(node, _product(node)) for node in graph_def.node]
    for node, product in products:
        if product is not None and view.constant(product.operands[1]) is None:
            _write(node, product)


def _product(node: NodeDef) -> _Product | None:
    """Returns what a node multiplies; None if it multiplies no matrices."""
    if node.op == "Einsum":
        return _product_of(node.attr["equation"].s.decode(), list(node.input))
    if node.op not in _TRANSPOSING:
        return None
    first, second = (node.attr[name].b for name in _TRANSPOSING[node.op])
    return _Product((node.input[0], node.input[1]), (first, second))


def _product_of(text: str, inputs: list[str]) -> _Product | None:
    equation = parse_equation(text, [2] * len(inputs)) if len(inputs) == 2 else None
    if equation is None:
        return None
    pairs = list(zip(equation.operands, inputs, strict=True))
    for (first, one), (second, other) in (pairs, pairs[::-1]):
        for inner in set(first) & set(second):
            rows, columns = (tuple(label for label in labels if label != inner) for labels in (first, second))
            if equation.output == (*rows, *columns) and len({inner, *rows, *columns}) == 3:
                return _Product((one, other), (first[0] == inner, second[1] == inner))
    return None


def _write(node: NodeDef, product: _Product) -> None:
    dtype = node.attr["T"].type
    node.op = "BatchMatMulV3"
    node.input[:2] = product.operands
    node.attr.clear()
    for name in ("Ta", "Tb", "Tout"):
        node.attr[name].type = dtype
    for name, transposed in zip(("adj_x", "adj_y"), product.transposed, strict=True):
        node.attr[name].b = transposed
