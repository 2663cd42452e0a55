"""Saying of what shape the inputs of a model are."""

from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ArgumentValueError
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.models.float_model import FloatModel


def with_input_shapes(model: FloatModel, shapes: Mapping[str, Sequence[int | None]]) -> FloatModel:
    """Returns a model whose inputs have known shapes.

    Args:
        model: the model.
        shapes: per input, its shape; None for a length that stays as it is.

    Raises:
        ArgumentValueError: the model has no such input, or one of another shape.
    """
    graph_def = GraphDef()
    graph_def.CopyFrom(model.graph_def)
    inputs = {node.name: node for node in graph_def.node if node.op in ("Placeholder", "PlaceholderWithDefault")}
    for name, lengths in shapes.items():
        if name not in inputs:
            raise ArgumentValueError(
                f"A shape is given for {name!r}, which is no input of {model.source}. Its inputs are "
                f"{', '.join(map(repr, inputs)) or 'none'}."
            )
        known = tf.TensorShape(attribute(inputs[name], "shape").shape if "shape" in inputs[name].attr else None)
        given = tf.TensorShape(lengths)
        if not known.is_compatible_with(given):
            raise ArgumentValueError(f"Input {name!r} of {model.source} has the shape {known}; {given} does not fit.")
        inputs[name].attr["shape"].shape.CopyFrom(known.merge_with(given).as_proto())
    for node in graph_def.node:
        if "_output_shapes" in node.attr:  # what a tool wrote down of the shapes before
            del node.attr["_output_shapes"]
    return FloatModel(GraphView(graph_def), model.outputs, model.source, graph=None)
