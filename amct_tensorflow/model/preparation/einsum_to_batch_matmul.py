"""Writes an Einsum of two computed operands, as attention has them, as a product of matrices per member of the batch.

    Einsum("aecd,abcd->acbe", k, q)   becomes   BatchMatMulV2(Transpose(q) [a, c, b, d], Transpose(k) [a, c, d, e])
    Einsum("acbe,aecd->abcd", p, v)             BatchMatMulV2(p [a, c, b, e], Transpose(v) [a, c, e, d]) --> Transpose

Axes of both operands and of the output make up the batch; those that only one operand shares with the output become its
rows or columns, and those that are summed up the inner axis. The operand whose axes the output has last is the second
one, so that no Transpose has to follow where none needs to. Equations that have no rows, columns or inner axis are left
alone, as are those that sum up an axis of one operand alone, and axes that would have to become one while only a run
tells the lengths of several.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import Shape, attribute, data_inputs
from amct_tensorflow.model.layers import is_computed
from amct_tensorflow.model.preparation.einsum_writer import EinsumWriter, Labels, rewrite_einsums
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.ops.einsum import parse_equation


class _Operand(NamedTuple):
    """An operand: the tensor, as GraphDef writes the input, and labels and lengths of its axes."""

    tensor: str
    labels: Labels
    shape: Shape


class _Product(NamedTuple):
    """An Einsum as a product ``[*batch, rows, inner] @ [*batch, inner, columns]``, given by labels of axes.

    Attributes:
        first: its first operand.
        second: its second one.
        batch: labels of both operands and of the output.
        rows: those that only the first operand shares with the output.
        inner: those that are summed up.
        columns: those that only the second operand shares with the output.
        output: labels of the output.
    """

    first: _Operand
    second: _Operand
    batch: Labels
    rows: Labels
    inner: Labels
    columns: Labels
    output: Labels

    @property
    def lengths(self) -> Mapping[str, int | None]:
        """The length of the axis of each label."""
        found: dict[str, int | None] = {}
        for operand in (self.first, self.second):
            for label, length in zip(operand.labels, operand.shape, strict=True):
                found[label] = length if found.get(label) in (None, 1) else found[label]
        return found


def einsum_to_batch_matmul(graph: PreparedGraph) -> PreparedGraph:
    """Rewrites every float32 Einsum that is a product of two computed operands."""
    return rewrite_einsums(graph, _as_product, _write)


def _as_product(graph: PreparedGraph, node: NodeDef) -> _Product | None:
    inputs = data_inputs(node.input)
    if len(inputs) != 2 or node.name in graph.view.branch_nodes:
        return None
    if not all(is_computed(graph.view, text) for text in inputs):
        return None
    shapes = [graph.shaped.shape(text) for text in inputs]
    known = [shape for shape in shapes if shape is not None]
    equation = parse_equation(attribute(node, "equation").s.decode(), [len(shape) for shape in known])
    if len(known) != len(shapes) or equation is None:
        return None
    one, other = (_Operand(*each) for each in zip(inputs, equation.operands, known, strict=True))
    product = _arranged(one, other, equation.output)
    if product is None or not product.columns or not product.rows or not product.inner:
        return None
    return (
        product if all(_can_be_one(product, each) for each in (product.rows, product.columns, product.inner)) else None
    )


def _arranged(one: _Operand, other: _Operand, output: Labels) -> _Product | None:
    """Returns the product; None if there is none."""
    labels = [set(each) for each in (one.labels, other.labels, output)]
    if any(len(found) != len(each) for found, each in zip(labels, (one.labels, other.labels, output), strict=True)):
        return None  # a diagonal
    if labels[0] | labels[1] != labels[2] | (labels[0] & labels[1]):
        return None  # an axis of one operand alone is summed up
    first, second = (one, other) if output[-1] in labels[1] else (other, one)
    batch, rows, columns = (
        tuple(label for label in output if (label in first.labels, label in second.labels) == where)
        for where in ((True, True), (True, False), (False, True))
    )
    inner = tuple(label for label in first.labels if label not in output)
    return _Product(first, second, batch, rows, inner, columns, output)


def _can_be_one(product: _Product, labels: Labels) -> bool:
    """Tells whether axes are one, or can become one: there, at most one length of all may be unknown."""
    return len(labels) == 1 or list(product.lengths.values()).count(None) <= 1


def _write(product: _Product, writer: EinsumWriter, keeps_name: bool) -> str:
    """Writes a product of matrices in the Einsum's place; returns the node that has its value."""
    lengths = product.lengths
    first, second = (
        _merged(writer, operand, product.batch, sides, lengths)
        for operand, sides in (
            (product.first, (product.rows, product.inner)),
            (product.second, (product.inner, product.columns)),
        )
    )
    op = "BatchMatMulV2" if product.batch else "MatMul"
    writer.multiply(op, first, second)
    made = (*product.batch, *product.rows, *product.columns)
    split = writer.name
    if len(product.rows) > 1 or len(product.columns) > 1:
        split = writer.reshape(split, [lengths[label] for label in made])
    value = writer.transpose(split, made, product.output)
    if value == writer.name or not keeps_name:
        return value
    return writer.give_name_to(value, value if split == writer.name else split, op)


def _merged(
    writer: EinsumWriter, operand: _Operand, batch: Labels, sides: Sequence[Labels], lengths: Mapping[str, int | None]
) -> str:
    """Returns an operand with the batch first, and each of two sides as one axis."""
    wanted = (*batch, *sides[0], *sides[1])
    data = writer.transpose(operand.tensor, operand.labels, wanted)
    if all(len(side) == 1 for side in sides):
        return data
    own = dict(zip(operand.labels, operand.shape, strict=True))
    ones = [_together([lengths[label] for label in side]) for side in sides]
    return writer.reshape(data, [*(own[label] for label in batch), *ones])


def _together(lengths: Sequence[int | None]) -> int | None:
    """Returns the length of several axes as one; None if one of them is not known."""
    known = [length for length in lengths if length is not None]
    return math.prod(known) if len(known) == len(lengths) else None
