"""Converts a float graph to ONNX with tf2onnx, and checks that it knows all ops."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.libraries import library, refusals
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView

# The first that has scales per channel is 13; of the later ones this is the last that all runtimes of 2022 know.
_OPSET = 17
# The first that quantizes to 16 bits.
_WIDE_OPSET = 21
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
    with refusals("tf2onnx", "convert"):
        model, _ = library("tf2onnx", "onnx").convert.from_graph_def(
            _with_single_reshapes(_in_known_ops(graph_def)),
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


def _with_single_reshapes(graph_def: GraphDef) -> GraphDef:
    """Returns a graph in which no Reshape reads another one that tf2onnx would leave out.

    tf2onnx writes a length that is that of the data as 0, for "as the data has it". Then it leaves out the first of two
    Reshapes, and the 0 means a length of other data. So the first is left out here, before it does. What else reads
    the shape of the first goes on doing so.
    """
    editor = GraphEditor(GraphView(graph_def))
    view = GraphView(graph_def)
    for name in editor.names_of("Reshape"):
        data, shape = view.nodes[name].input[:2]
        source = _behind_identities(view, data)
        is_left_out = view.constant(shape) is None or len(view.readers(view.producer(source).name)) == 1
        if is_left_out and view.producer(source).op == "Reshape":
            while view.producer(source).op == "Reshape":
                source = _behind_identities(view, view.producer(source).input[0])
            editor.replace_input(name, 0, source)
    return editor.graph_def()


def _behind_identities(view: GraphView, tensor: str) -> str:
    while view.producer(tensor).op == "Identity":
        tensor = view.producer(tensor).input[0]
    return tensor


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
    """Yields the nodes of a graph, and of the graphs in their attributes, such as the body of a loop."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nodes(inner)
