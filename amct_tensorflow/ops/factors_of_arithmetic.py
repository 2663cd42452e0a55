"""How factors per channel go through sums and products: constants take them in, and operands share them."""

from collections.abc import Sequence

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.ops.channel_factors import (
    OUTPUT,
    Factors,
    Layout,
    Way,
    along_axis,
    fits,
    of_output,
    operand,
    shape_at,
    tied,
)
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.einsum import Equation, parse_equation


def _of_terms(view: GraphView, node: NodeDef, _place: int, layout: Layout) -> list[Way]:
    """Sums, differences, and the larger or smaller of two."""
    return tied(view, node, layout, range(len(data_inputs(node.input))))


def _of_bias(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    along = along_axis(layout, 1 if data_format(node) == "NCHW" else -1)
    if along is None or place == 1 or view.constant(node.input[1]) is None:
        return []
    return [Way({0: layout, OUTPUT: layout}, {1: (along, -1)})]


def _of_product(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    constants = [view.constant(text) is not None for text in node.input[:2]]
    if True in constants:
        return [Way({place: layout}, {constants.index(True): (layout, -1 if place == OUTPUT else 1)})]
    return _of_one_factor(view, node, place, layout, (0, 1))


def _of_quotient(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    above, below = (view.constant(text) is not None for text in node.input[:2])
    if below:
        return [Way({place: layout}, {1: (layout, 1 if place == OUTPUT else -1)})]
    if above:
        return [Way({place: layout}, {0: (layout, -1)})]
    return _of_one_factor(view, node, place, layout, (0,))


def _of_one_factor(view: GraphView, node: NodeDef, place: int, layout: Layout, operands: Sequence[int]) -> list[Way]:
    """One of the operands is divided, and the output with it."""
    if place != OUTPUT:
        shared = of_output(view, node, layout) if place in operands else None
        return [] if shared is None else [Way({place: layout, OUTPUT: shared})]
    owns = {index: operand(view, node.input[index], layout) for index in operands}
    return [Way({OUTPUT: layout, index: own}) for index, own in owns.items() if own is not None]


def _of_batch_norm(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    """Gamma and beta take in factors of the output, gamma and the mean those of the input."""
    along = along_axis(layout, 1 if data_format(node) == "NCHW" else -1)
    is_inference = "is_training" in node.attr and not node.attr["is_training"].b
    edges = [edge for edge in view.consumers(node.name) if not view.is_control(edge)]
    is_plain = all(parse_tensor_name(edge.node.input[edge.input_index]).port == 0 for edge in edges)
    if along is None or place not in (0, OUTPUT) or not (is_inference and is_plain):
        return []
    if any(view.constant(text) is None for text in node.input[1:5]):
        return []
    exponents = {1: -1, 2: -1} if place == OUTPUT else {1: 1, 3: -1}
    return [Way({place: layout}, {index: (along, exponent) for index, exponent in exponents.items()})]


def _of_matrices(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    """Products of matrices, one or a batch."""
    ranks = [len(shape) for text in node.input[:2] if (shape := view.shape(text)) is not None]
    if len(ranks) < 2:
        return []
    flags = [any(attribute(node, name).b for name in names) for names in _TRANSPOSED]
    batch = [f"...{index}" for index in reversed(range(max(ranks) - 2))]
    pairs = [("row", "in"), ("in", "column")]
    ordered = [reversed(pair) if flag else pair for pair, flag in zip(pairs, flags, strict=True)]
    operands = [[*batch[len(batch) + 2 - rank :], *pair] for rank, pair in zip(ranks, ordered, strict=True)]
    equation = Equation(tuple(map(tuple, operands)), (*batch, "row", "column"))
    return _of_sums_of_products(view, node, place, layout, equation)


_TRANSPOSED = (("transpose_a", "adj_x", "adjoint_a"), ("transpose_b", "adj_y", "adjoint_b"))


def _of_einsum(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    shapes = [view.shape(text) for text in data_inputs(node.input)]
    if any(shape is None for shape in shapes):
        return []
    text = attribute(node, "equation").s.decode()
    equation = parse_equation(text, [len(shape) for shape in shapes if shape is not None])
    return [] if equation is None else _of_sums_of_products(view, node, place, layout, equation)


def _of_sums_of_products(view: GraphView, node: NodeDef, place: int, layout: Layout, equation: Equation) -> list[Way]:
    """Factors go to what has all of their labels: from the output to an operand, and back.

    Labels that are summed over are those of all operands; if one of them is a constant, it takes their factors in.
    """
    labels = equation.output if place == OUTPUT else equation.operands[place]
    found = []
    for other, theirs in ((OUTPUT, equation.output), *enumerate(equation.operands)):
        moved = None if other == place else _relabelled(layout, labels, theirs)
        if moved is None or not fits(shape_at(view, node, other), moved):
            continue
        if OUTPUT not in (place, other) and not _is_summed(layout, labels, equation):
            continue
        if other != OUTPUT and view.constant(node.input[other]) is not None:
            found.append(Way({place: layout}, {other: (moved, -1 if place == OUTPUT else 1)}))
        elif OUTPUT in (place, other):
            found.append(Way({place: layout, other: moved}))
    return found


def _is_summed(layout: Layout, labels: Sequence[str], equation: Equation) -> bool:
    """Tells whether the output lacks a label of channels, so that factors do not come out."""
    return any(length > 1 and label not in equation.output for label, length in zip(labels, layout.shape, strict=True))


def _relabelled(layout: Layout, labels: Sequence[str], others: Sequence[str]) -> Layout | None:
    """Returns a layout of axes with other labels; None if one of channels is not among them, or stands twice."""
    lengths = dict(zip(labels, layout.shape, strict=True))
    if len(lengths) < len(labels) or len(set(others)) < len(others):
        return None
    if any(length > 1 and label not in others for label, length in lengths.items()):
        return None
    kept = [label for label in labels if lengths[label] > 1]
    order = [kept.index(label) for label in others if label in kept]
    return (
        layout.reshape([lengths[label] for label in kept])
        .transpose(order)
        .reshape([lengths.get(label, 1) for label in others])
    )


TERMS = Factors(_of_terms)
BIAS = Factors(_of_bias)
PRODUCT = Factors(_of_product)
QUOTIENT = Factors(_of_quotient)
BATCH_NORM = Factors(_of_batch_norm)
MATRICES = Factors(_of_matrices)
EINSUM = Factors(_of_einsum)
