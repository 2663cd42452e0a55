"""Reading a graph that is frozen already."""

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.loading.forms import ACCEPTED
from amct_tensorflow.loading.references import pass_values

_VARIABLES = ("Variable", "VariableV2")


def read_frozen_graph(path: Path) -> GraphDef:
    """Reads a binary GraphDef, which has at least one node.

    Raises:
        ModelError: the file is empty, truncated, or something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Model {path} cannot be read: {error.strerror}. Give a readable frozen model.") from error
    if not data:
        raise ModelError(f"Model {path} is empty. Give {ACCEPTED}.")
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(data)
    except DecodeError as error:
        raise _refusal(path) from error
    if not graph_def.node or any(not node.name or not node.op for node in graph_def.node):
        raise _refusal(path)
    if not any(node.op in _VARIABLES for node in graph_def.node):
        pass_values(graph_def)
    return graph_def


def _refusal(path: Path) -> ModelError:
    if path.name == "saved_model.pb":
        return ModelError(f"Model {path} is a part of a SavedModel, or damaged. Give the directory that it is in.")
    return ModelError(
        f"Model {path} is not a frozen TensorFlow model (binary GraphDef), or it is truncated. Give {ACCEPTED}."
    )
