"""Converts a float graph to TensorFlow Lite, and explains refusals of TensorFlow's converter."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.libraries import refusals
from amct_tensorflow.export.tflite.tflite_erf import with_erf_in_small_ops
from amct_tensorflow.export.tflite.tflite_products import keep_activations_of_products
from amct_tensorflow.graph.view import attribute
from amct_tensorflow.model.layers import HALF_PRECISION, IN_FLOAT32

# What the converter says of an op, behind where it believes that a program has made it.
_SAYS = re.compile(r"error: (?:'tf\.(?P<op>\w+)' op )?(?P<what>[^\n]+)")
_UNKNOWN = "neither a custom op nor a flex op"
# So many nodes of an op type are named.
_MOST = 3


def convert_to_tflite(
    graph_def: GraphDef,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: list[str],
    outputs: list[str],
    adjust: Callable[[Any], None] = lambda converter: None,
) -> bytes:
    """Converts a graph with TensorFlow's converter.

    The converter makes one op of a Gelu whose ops it recognizes, and refuses the Erf or Erfc of another one. Then the
    graph is converted again, with those in small ops.

    Args:
        graph_def: the graph.
        shapes: per input, its shape.
        inputs: its placeholders.
        outputs: its output operators.
        adjust: sets options of the converter.

    Raises:
        ExportError: the converter does not know an op.
    """
    try:
        return _convert(graph_def, shapes, inputs, outputs, adjust)
    except ExportError:
        in_small_ops = with_erf_in_small_ops(graph_def)
        if in_small_ops is None:
            raise
    return _convert(in_small_ops, shapes, inputs, outputs, adjust)


def _convert(
    graph_def: GraphDef,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: list[str],
    outputs: list[str],
    adjust: Callable[[Any], None],
) -> bytes:
    """Converts a graph as it is."""
    shaped = GraphDef()
    shaped.CopyFrom(graph_def)
    for node in shaped.node:
        if node.op == "Placeholder" and node.name in shapes:
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[node.name]).as_proto())
            if "_output_shapes" in node.attr:
                del node.attr["_output_shapes"]
    keep_activations_of_products(shaped)
    with refusals("TensorFlow's converter", "convert"), _explained(graph_def):
        imported = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(shaped, name=""), [])
        pruned = imported.prune([f"{name}:0" for name in inputs], [f"{name}:0" for name in outputs])
        converter = tf.lite.TFLiteConverter.from_concrete_functions([pruned])
        adjust(converter)
        return bytes(converter.convert())


@contextmanager
def _explained(graph_def: GraphDef) -> Iterator[None]:
    """Makes of what the converter raises an error that names nodes of the model, not lines of programs.

    Raises:
        ExportError: it has raised something about an op of the graph.
    """
    try:
        yield
    except Exception as error:  # the converter has several of its own, none of them public
        said = _SAYS.search(str(error))
        op = said["op"] if said else None
        names = [str(node.name) for node in graph_def.node if node.op == op]
        if said is None or not names:
            raise
        where = f"{op}, as {', '.join(map(repr, names[:_MOST]))}" + (" and others" if len(names) > _MOST else "")
        if any(attribute(node, "T").type in HALF_PRECISION for node in graph_def.node if node.op == op):
            raise ExportError(
                f"TensorFlow Lite has no kernel in half precision of the op {where}. Of the original, "
                f"{IN_FLOAT32}; then quantize it again."
            ) from error
        if _UNKNOWN in said["what"]:
            raise ExportError(
                f"TensorFlow Lite has no kernel of the op {where}. Export to another format, or give with --outputs "
                "operators in front of it, and compute what follows elsewhere."
            ) from error
        raise ExportError(
            f"TensorFlow's converter cannot convert the op {where}: it says that the op {said['what'].rstrip('.')}. "
            "The log file has the details; another format may know what it does not."
        ) from error
