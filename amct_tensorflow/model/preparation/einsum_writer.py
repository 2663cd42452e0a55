"""Writes the nodes that replace an Einsum by a product of matrices.

The product keeps the Einsum's name, or what follows it does if others may ask for that name.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import OriginalName, PreparedName
from amct_tensorflow.graph.nodes import AttrLike, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import Shape, attribute
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph

Labels = tuple[str, ...]
_Product = TypeVar("_Product")


class EinsumWriter:
    """Writes the nodes that replace one Einsum.

    Attributes:
        name: of the Einsum.
        added: the nodes that it added.
        product: the product of matrices.
    """

    def __init__(self, editor: GraphEditor, einsum: NodeDef) -> None:
        self.name = str(einsum.name)
        self.added: list[str] = []
        self.product = self.name
        self._editor = editor
        self._einsum = einsum

    def transpose(self, tensor: str, labels: Labels, wanted: Labels) -> str:
        """Brings the axes of a tensor into an order."""
        if labels == wanted:
            return tensor
        order = np.array([labels.index(label) for label in wanted], np.int32)
        return self.add("Transpose", [tensor, self.const("perm", order)], T=tf.float32)

    def reshape(self, tensor: str, lengths: Sequence[int | None]) -> str:
        """Gives a tensor other axes, of which one may have a length that only a run tells."""
        shape = np.array([-1 if length is None else length for length in lengths], np.int32)
        return self.add("Reshape", [tensor, self.const("shape", shape)], T=tf.float32, Tshape=tf.int32)

    def reshape_behind(self, tensor: str, data: str, rows: Shape, last: Sequence[int]) -> str:
        """Reshapes a tensor so that axes of certain lengths follow those that another one has first."""
        if rows.count(None) <= 1:
            return self.reshape(tensor, [*rows, *last])
        whole = self.add("Shape", [data], T=tf.float32, out_type=tf.int32)
        bounds = [self.const(end, np.array([at], np.int32)) for end, at in (("begin", 0), ("size", len(rows)))]
        first = self.add("Slice", [whole, *bounds], T=tf.int32, Index=tf.int32)
        behind = self.const("lengths", np.array(last, np.int32))
        axis = self.const("axis", np.array(0, np.int32))
        shape = self.add("ConcatV2", [first, behind, axis], N=2, T=tf.int32, Tidx=tf.int32)
        return self.add("Reshape", [tensor, shape], T=tf.float32, Tshape=tf.int32)

    def multiply(self, op: str, first: str, second: str) -> None:
        """Puts a product of matrices into the place of the Einsum."""
        inputs = [first, second, *(text for text in self._einsum.input if text.startswith("^"))]
        self._editor.replace_node(make_node(self.name, op, inputs, T=tf.float32))

    def give_name_to(self, value: str, reader: str, op: str) -> str:
        """Gives the name of the Einsum to the node with its value.

        Args:
            value: that node, which is behind the product.
            reader: the node that reads the product.
            op: the op type of the product.

        Returns:
            The name.
        """
        inner = self._editor.unique_name(f"{self.name}/{op}")
        self._editor.rename(self.name, inner)
        self._editor.replace_input(reader, 0, inner)
        self._editor.rename(value, self.name)
        self.added[self.added.index(value)] = self.product = inner
        return self.name

    def const(self, name: str, value: np.ndarray) -> str:
        """Adds a constant in the scope of the Einsum."""
        return self._put(make_const(self._editor.unique_name(f"{self.name}/{name}"), value))

    def add(self, op: str, inputs: Sequence[str], **attributes: AttrLike) -> str:
        """Adds a node in the scope of the Einsum."""
        return self._put(make_node(self._editor.unique_name(f"{self.name}/{op}"), op, inputs, **attributes))

    def _put(self, node: NodeDef) -> str:
        self.added.append(self._editor.add(node, like=self.name))
        return self.added[-1]


def rewrite_einsums(
    graph: PreparedGraph,
    as_product: Callable[[PreparedGraph, NodeDef], _Product | None],
    write: Callable[[_Product, EinsumWriter, bool], str],
) -> PreparedGraph:
    """Replaces float32 Einsums outside of loops.

    Args:
        graph: the graph.
        as_product: returns the product that an Einsum is; None if it stays.
        write: writes what replaces one, and returns the node with its value; told whether that must keep its name.
    """
    editor = graph.editor()
    origins: Origins = {}
    values: dict[str, str] = {}
    renamed: dict[str, OriginalName] = {}
    for node in graph.view.graph_def.node:
        is_float32 = node.op == "Einsum" and attribute(node, "T").type == tf.float32.as_datatype_enum
        if not is_float32 or node.name in graph.view.loop_nodes:
            continue
        product = as_product(graph, node)
        if product is None:
            continue
        writer = EinsumWriter(editor, node)
        value = write(product, writer, node.name in graph.kept)
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
