"""Writes an Einsum of data and constant weights as a product of matrices.

    Einsum("bchd,hde->bce")      becomes      Reshape [b, c, h * d] --> BatchMatMulV2 [h * d, e]
    Einsum("bcd,dhe->bche")                   BatchMatMulV2 [d, h * e] --> Reshape [b, c, h, e]
    Einsum("bcs,ck->bks")                     Transpose [b, s, c] --> BatchMatMulV2 [c, k] --> Transpose [b, k, s]

All axes that are summed up become one, and all that only the weights have. What has to be done to the weights is done
once. Equations in which an axis of the weights is one of the output and of the data are left alone: there is not one
matrix, but several.

Data of four axes whose second has the length 1 loses it for the product: there, BatchMatMulV2 of TensorFlow with oneDNN
reads and writes memory that is not its own.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import Shape, attribute, data_inputs
from amct_tensorflow.model.preparation.einsum_writer import EinsumWriter, Labels, rewrite_einsums
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.ops.einsum import parse_equation


class _Product(NamedTuple):
    """An Einsum as a product of matrices.

    Attributes:
        tensor: the data, as GraphDef writes the input.
        shape: its shape.
        data: labels of its axes.
        weights: the matrix, [summed, made].
        kept: labels of the data that the output has, too, in the data's order.
        summed: those that are summed up, in the same order.
        made: labels that only weights and output have, in the output's order, and their lengths.
        output: labels of the output.
    """

    tensor: str
    shape: Shape
    data: Labels
    weights: np.ndarray
    kept: Labels
    summed: Labels
    made: dict[str, int]
    output: Labels


def einsum_to_matmul(graph: PreparedGraph) -> PreparedGraph:
    """Rewrites every float32 Einsum that is a product of data and one constant matrix."""
    return rewrite_einsums(graph, _as_product, _write)


def _as_product(graph: PreparedGraph, node: NodeDef) -> _Product | None:
    inputs = data_inputs(node.input)
    constants = [graph.view.constant(text) for text in inputs]
    if [each is None for each in constants].count(True) != 1:
        return None
    at = 1 if constants[0] is None else 0
    matrix, tensor = constants[at] if len(inputs) == 2 else None, inputs[1 - at]
    shape = graph.shaped.shape(tensor)
    if matrix is None or shape is None:
        return None
    ranks = (len(shape), matrix.ndim) if at == 1 else (matrix.ndim, len(shape))
    equation = parse_equation(attribute(node, "equation").s.decode(), ranks)
    if equation is None:
        return None
    data, weights, output = equation.operands[1 - at], equation.operands[at], equation.output
    kept = tuple(label for label in data if label in output)
    summed = tuple(label for label in data if label not in output)
    made = tuple(label for label in output if label not in kept)
    once = all(len(set(labels)) == len(labels) for labels in (data, weights, output))
    if not (once and kept and summed and set(weights) == {*summed, *made}):
        return None
    arranged = matrix.transpose([weights.index(label) for label in (*summed, *made)])
    lengths = dict(zip(made, arranged.shape[len(summed) :], strict=True))
    flat = np.ascontiguousarray(arranged.reshape(-1, math.prod(lengths.values())))
    return _Product(tensor, shape, data, flat, kept, summed, lengths, output)


def _write(product: _Product, writer: EinsumWriter, keeps_name: bool) -> str:
    """Writes a product of matrices in the Einsum's place; returns the node that has its value."""
    rows = tuple(product.shape[product.data.index(label)] for label in product.kept)
    data = writer.transpose(product.tensor, product.data, (*product.kept, *product.summed))
    if len(product.summed) > 1:
        data = writer.reshape_behind(data, data, rows, product.weights.shape[:1])
    op = "MatMul" if len(rows) == 1 else "BatchMatMulV2"
    loses_axis = len(rows) == 3 and rows[1] == 1
    factor = writer.add("Squeeze", [data], T=tf.float32, squeeze_dims=[1]) if loses_axis else data
    writer.multiply(op, factor, writer.const("weights", product.weights))
    made = (*product.kept, *product.made)
    split = writer.name
    if loses_axis or len(product.made) != 1:
        split = writer.reshape_behind(split, data, rows, tuple(product.made.values()))
    value = writer.transpose(split, made, product.output)
    if value == writer.name or not keeps_name:
        return value
    return writer.give_name_to(value, value if split == writer.name else split, op)
