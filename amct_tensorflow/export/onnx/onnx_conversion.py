"""Converts a float graph to ONNX with tf2onnx, and checks that it knows all ops."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.libraries import library, refusals
from amct_tensorflow.export.onnx.onnx_editor import inner_graphs
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView

# The first that has scales per channel is 13; of the later ones this is the last that all runtimes of 2022 know.
_OPSET = 17
# The first that quantizes to 16 bits.
_WIDE_OPSET = 21
# What tf2onnx calls its optimizer of two nodes in a row.
_BACK_TO_BACK = "remove_back_to_back"
_STANDARD = ("", "ai.onnx")


def convert_to_onnx(graph_def: GraphDef, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Converts a float graph with tf2onnx; returns the ModelProto.

    Args:
        graph_def: the graph.
        inputs: its placeholders.
        outputs: its output operators.

    Raises:
        ExportError: the library is missing, or does not know an op.
    """
    library("onnx", "onnx")
    with refusals("tf2onnx", "convert"), _lengths_kept():
        model, _ = library("tf2onnx", "onnx").convert.from_graph_def(
            _in_known_ops(graph_def),
            input_names=[f"{name}:0" for name in inputs],
            output_names=[f"{name}:0" for name in outputs],
            opset=_OPSET,
        )
    _check_ops(model)
    return model


def with_16_bits(model: Any) -> Any:
    """Returns a model in the first version of ONNX whose QuantizeLinear knows 16 bits.

    Raises:
        ExportError: the onnx package cannot convert an op of it.
    """
    onnx = library("onnx", "onnx")
    with refusals("The onnx package", "bring to opset 21"):
        return onnx.version_converter.convert_version(model, _WIDE_OPSET)


def _in_known_ops(graph_def: GraphDef) -> GraphDef:
    """Returns a graph without ops that tf2onnx does not know although ONNX has what they compute.

    ``Erfc``, which TensorFlow 2.21 makes of gelu, is ``1 - Erf``.
    """
    editor = GraphEditor(GraphView(graph_def))
    for name in editor.names_of("Erfc"):
        node = editor.node(name)
        dtype = tf.as_dtype(node.attr["T"].type)
        one = editor.add(make_const(editor.unique_name(f"{name}/one"), np.array(1, dtype.as_numpy_dtype)), like=name)
        erf = editor.add(make_node(editor.unique_name(f"{name}/erf"), "Erf", list(node.input), T=dtype), like=name)
        editor.replace_node(make_node(name, "Sub", [one, erf], T=dtype))
    return editor.graph_def()


@contextmanager
def _lengths_kept() -> Iterator[None]:
    """Makes tf2onnx leave every Reshape the data whose lengths it means; its functions have no argument for that.

    tf2onnx writes a length that is that of the data as 0, for "as the data has it", also where it makes a Reshape of a
    Transpose of axes of 1. Of two Reshapes in a row another optimizer leaves out the first, and the 0 of the second
    would mean a length of other data. It leaves outputs of the model alone, so these are some while it runs.
    """
    optimizers = library("tf2onnx.optimizer", "onnx")._get_optimizers()
    usual = optimizers[_BACK_TO_BACK]

    class _KeepingLengths(usual):  # type: ignore[misc, valid-type]
        def _optimize_at_current_graph_level(self, g: Any) -> Any:
            outputs = g.outputs
            g.outputs = [*outputs, *(node.input[0] for node in g.get_nodes() if _has_lengths_of_data(node))]
            try:
                return super()._optimize_at_current_graph_level(g)
            finally:
                g.outputs = outputs

    optimizers[_BACK_TO_BACK] = _KeepingLengths
    try:
        yield
    finally:
        optimizers[_BACK_TO_BACK] = usual


def _has_lengths_of_data(node: Any) -> bool:
    """Tells whether a node of tf2onnx is a Reshape to a shape with a 0."""
    return node.type == "Reshape" and node.inputs[1].is_const() and 0 in node.inputs[1].get_tensor_value()


def _check_ops(model: Any) -> None:
    """Refuses a model with ops of TensorFlow's, which tf2onnx leaves in, with a line in its log, if it knows no other.

    Raises:
        ExportError: there is one.
    """
    defs = library("onnx", "onnx").defs
    for node in _nodes(model.graph):
        if node.domain in _STANDARD and not defs.has(node.op_type):
            raise ExportError(
                f"tf2onnx does not know the op {node.op_type} of {node.name!r}: ONNX has none of that name. Give with "
                "--outputs operators in front of it, and compute what follows elsewhere; TensorFlow Lite may know it."
            )


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields the nodes of a graph, and of the graphs inside them."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from _nodes(inner)
