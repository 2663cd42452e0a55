"""Writes an Einsum of data and constant weights as a product of matrices.

    Einsum("bchd,hde->bce")      becomes      Reshape [b, c, h * d] --> BatchMatMulV2 [h * d, e]
    Einsum("bcd,dhe->bche")                   BatchMatMulV2 [d, h * e] --> Reshape [b, c, h, e]
    Einsum("bcs,ck->bks")                     Transpose [b, s, c] --> BatchMatMulV2 [c, k] --> Transpose [b, k, s]

All axes that are summed up become one, and all that only the weights have. What has to be done to the weights is done
once. The product keeps the Einsum's name, or what follows it does if others may ask for that name. Equations in which
an axis of the weights is one of the output and of the data are left alone: there is not one matrix, but several.

Data of four axes whose second has the length 1 loses it for the product: there, BatchMatMulV2 of TensorFlow with oneDNN
reads and writes memory that is not its own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import OriginalName, PreparedName
from amct_tensorflow.graph.nodes import AttrLike, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import Shape, attribute, data_inputs
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops.einsum import parse_equation

_Labels = tuple[str, ...]


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
    data: _Labels
    weights: np.ndarray
    kept: _Labels
    summed: _Labels
    made: dict[str, int]
    output: _Labels


def einsum_to_matmul(graph: PreparedGraph) -> PreparedGraph:
    """Rewrites every float32 Einsum that is a product of data and one constant matrix."""
    editor = graph.editor()
    origins: Origins = {}
    values: dict[str, str] = {}
    renamed: dict[str, OriginalName] = {}
    for node in graph.view.graph_def.node:
        product = _as_product(graph, node) if node.op == "Einsum" else None
        if product is not None:
            writer = _Writer(editor, node)
            value = writer.write(product, keeps_name=node.name in graph.kept)
            origins |= dict.fromkeys(writer.added, graph.original_names(node.name))
            if writer.product != node.name:
                renamed[writer.product] = OriginalName(node.name)
            if value != node.name:
                values[node.name] = value
    if not origins:
        return graph
    editor.redirect(values, exempt=origins)
    # The product has not the shape of the Einsum whose name it keeps.
    origins |= {name: graph.original_names(PreparedName(name)) for name in values}
    return graph.edited(editor, origins, renamed)


def _as_product(graph: PreparedGraph, node: NodeDef) -> _Product | None:
    inputs = data_inputs(node.input)
    constants = [graph.view.constant(text) for text in inputs]
    is_float32 = attribute(node, "T").type == tf.float32.as_datatype_enum
    if not is_float32 or node.name in graph.view.loop_nodes or [each is None for each in constants].count(True) != 1:
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


class _Writer:
    """Writes the nodes that replace one Einsum.

    Attributes:
        added: the nodes that it added.
        product: the product of matrices.
    """

    def __init__(self, editor: GraphEditor, einsum: NodeDef) -> None:
        self.added: list[str] = []
        self.product = str(einsum.name)
        self._editor = editor
        self._einsum = einsum

    def write(self, product: _Product, *, keeps_name: bool) -> str:
        """Writes a product of matrices in the Einsum's place; returns the node that has its value."""
        editor, name = self._editor, str(self._einsum.name)
        rows = [product.shape[product.data.index(label)] for label in product.kept]
        data = self._transpose(product.tensor, product.data, (*product.kept, *product.summed))
        if len(product.summed) > 1:
            data = self._reshape(data, data, rows, product.weights.shape[:1])
        op = "MatMul" if len(rows) == 1 else "BatchMatMulV2"
        loses_axis = len(rows) == 3 and rows[1] == 1
        factor = self._add("Squeeze", [data], T=tf.float32, squeeze_dims=[1]) if loses_axis else data
        inputs = [factor, self._const(f"{name}/weights", product.weights), *_waits(self._einsum)]
        editor.replace_node(make_node(name, op, inputs, T=tf.float32))
        made = (*product.kept, *product.made)
        split = name
        if loses_axis or len(product.made) != 1:
            split = self._reshape(name, data, rows, tuple(product.made.values()))
        value = self._transpose(split, made, product.output)
        if value == name or not keeps_name:
            return value
        inner = editor.unique_name(f"{name}/{op}")
        editor.rename(name, inner)
        editor.replace_input(value if split == name else split, 0, inner)
        editor.rename(value, name)
        self.added[self.added.index(value)] = self.product = inner
        return name

    def _transpose(self, tensor: str, labels: _Labels, wanted: _Labels) -> str:
        if labels == wanted:
            return tensor
        order = np.array([labels.index(label) for label in wanted], np.int32)
        return self._add("Transpose", [tensor, self._const(f"{self._einsum.name}/perm", order)], T=tf.float32)

    def _reshape(self, tensor: str, data: str, rows: Sequence[int | None], last: Sequence[int]) -> str:
        """Reshapes a tensor so that axes of certain lengths follow those that the data has first."""
        if rows.count(None) <= 1:
            lengths = [-1 if length is None else length for length in rows] + list(last)
            shape = self._const(f"{self._einsum.name}/shape", np.array(lengths, np.int32))
        else:
            shape = self._shape_behind(data, len(rows), last)
        return self._add("Reshape", [tensor, shape], T=tf.float32, Tshape=tf.int32)

    def _shape_behind(self, tensor: str, first: int, last: Sequence[int]) -> str:
        """Returns the lengths of the first axes of a tensor, which only a run tells, and others behind them."""
        scope = self._einsum.name
        whole = self._add("Shape", [tensor], T=tf.float32, out_type=tf.int32)
        bounds = [
            self._const(f"{scope}/{end}", np.array([at], np.int32)) for end, at in (("begin", 0), ("size", first))
        ]
        rows = self._add("Slice", [whole, *bounds], T=tf.int32, Index=tf.int32)
        behind = self._const(f"{scope}/lengths", np.array(last, np.int32))
        axis = self._const(f"{scope}/axis", np.array(0, np.int32))
        return self._add("ConcatV2", [rows, behind, axis], N=2, T=tf.int32, Tidx=tf.int32)

    def _const(self, name: str, value: np.ndarray) -> str:
        return self._put(make_const(self._editor.unique_name(name), value))

    def _add(self, op: str, inputs: Sequence[str], **attributes: AttrLike) -> str:
        return self._put(make_node(self._editor.unique_name(f"{self._einsum.name}/{op}"), op, inputs, **attributes))

    def _put(self, node: NodeDef) -> str:
        self.added.append(self._editor.add(node, like=self._einsum.name))
        return self.added[-1]


def _waits(node: NodeDef) -> list[str]:
    return [text for text in node.input if text.startswith("^")]
