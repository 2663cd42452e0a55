"""Counts the multiply-accumulates of a node from static shapes."""

import math
from collections.abc import Iterable
from fractions import Fraction

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute, data_inputs
from amct_tensorflow.ops import OP_TYPES, UNQUANTIZED
from amct_tensorflow.ops.einsum import parse_equation

# The op types that carry any.
CARRIERS = frozenset({name for name, op_type in OP_TYPES.items() if op_type.has_weights} | set(UNQUANTIZED))


def multiply_accumulates(view: GraphView, node: NodeDef) -> int | None:
    """Counts the products that a node sums up.

    Args:
        view: a graph with its shapes, best those for one image (``one_image_shapes``). If the first axis of the node's
            output has no static length all the same, it counts as one.
        node: one of its nodes.

    Returns:
        Their number, 0 for a node that is none of ``CARRIERS``; None if the shapes do not tell. A node in a loop is
        counted once.
    """
    if node.op not in CARRIERS:
        return 0
    output = view.shape(node.name)
    products = _einsum_products(view, node) if node.op == "Einsum" else _products(view, node)
    if output is None or products is None:
        return None
    values = _size([1 if length is None else length for length in output[:1]] + list(output[1:]))
    return None if values is None else int(values * products)


def _products(view: GraphView, node: NodeDef) -> Fraction | None:
    """Returns how many products each value of the output sums up."""
    op_type = OP_TYPES.get(node.op) or UNQUANTIZED[node.op]
    assert op_type.weight_input is not None
    inputs = data_inputs(node.input)
    weights = view.shape(inputs[op_type.weight_input]) if op_type.weight_input < len(inputs) else None
    lengths = [length for length in (weights or ())[-op_type.weight_rank :] if length is not None]
    return op_type.products(node, lengths) if len(lengths) == op_type.weight_rank else None


def _einsum_products(view: GraphView, node: NodeDef) -> int | None:
    """The same for an Einsum: the product of the lengths of all axes that are summed up; 0 for one operand alone."""
    shapes = [view.shape(text) or () for text in data_inputs(node.input)]
    if len(shapes) < 2:
        return 0  # it moves or sums up the axes of one operand
    equation = parse_equation(attribute(node, "equation").s.decode(), [len(shape) for shape in shapes])
    if equation is None:
        return None
    lengths = {
        label: length
        for labels, shape in zip(equation.operands, shapes, strict=True)
        for label, length in zip(labels, shape, strict=True)
        if label not in equation.output
    }
    return _size(lengths.values())


def _size(lengths: Iterable[int | None]) -> int | None:
    """Returns the product of lengths; None if one of them is unknown."""
    given = list(lengths)
    known = [length for length in given if length is not None]
    return math.prod(known) if len(known) == len(given) else None
