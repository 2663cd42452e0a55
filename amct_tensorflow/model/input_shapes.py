"""Sets the shapes of inputs in a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ArgumentValueError
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.ops import has
from amct_tensorflow.ops.traits import Fed


def with_input_shapes(model: FloatModel, shapes: Mapping[str, Sequence[int | None]]) -> FloatModel:
    """Returns a model whose inputs have known shapes; see ``fix_input_shapes``.

    Raises:
        ArgumentValueError: the model has no such input, or one of another shape.
    """
    graph_def = fix_input_shapes(model.graph_def, model.source, shapes)
    return FloatModel(GraphView(graph_def), model.outputs, model.source, graph=None)


def fix_input_shapes(graph_def: GraphDef, source: str | Path, shapes: Mapping[str, Sequence[int | None]]) -> GraphDef:
    """Returns a copy of a graph whose inputs have known shapes.

    Args:
        graph_def: the graph.
        source: what messages call it.
        shapes: per input, its shape; None for a length that stays as it is.

    Raises:
        ArgumentValueError: the graph has no such input, or one of another shape.
    """
    fixed = GraphDef()
    fixed.CopyFrom(graph_def)
    inputs = {node.name: node for node in fixed.node if has(node.op, Fed)}
    for name, lengths in shapes.items():
        if name not in inputs:
            raise ArgumentValueError(
                f"A shape is given for {name!r}, which is no input of {source}. Its inputs are "
                f"{', '.join(map(repr, inputs)) or 'none'}."
            )
        known = tf.TensorShape(attribute(inputs[name], "shape").shape if "shape" in inputs[name].attr else None)
        given = tf.TensorShape(lengths)
        if not known.is_compatible_with(given):
            raise ArgumentValueError(f"Input {name!r} of {source} has the shape {known}; {given} does not fit.")
        inputs[name].attr["shape"].shape.CopyFrom(known.merge_with(given).as_proto())
    for node in fixed.node:
        if "_output_shapes" in node.attr:  # what a tool wrote down of the shapes before
            del node.attr["_output_shapes"]
    return fixed
