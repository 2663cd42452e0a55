"""Reads a graph that is frozen already."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.model.loading.forms import ACCEPTED
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.traits import Reference, Variable


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """A frozen graph, and where it came from.

    Attributes:
        graph_def: the graph.
        source: the path that was given.
        frozen_now: whether it was frozen, or written with ops that TensorFlow knows, just now, so that no file has it
            yet.
        inputs: types and shapes of its inputs, by their operators; empty if the file is that of a frozen graph, which
            does not tell them.
        outputs: the model's names of its outputs, by operator; likewise.
        given_bytes: the size of the files from which it was frozen; None if it stands in one as it is.
    """

    graph_def: GraphDef
    source: Path
    frozen_now: bool
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    given_bytes: int | None = None

    @property
    def data(self) -> bytes:
        """The graph as it stands in its file."""
        return bytes(self.graph_def.SerializeToString(deterministic=True))


def pass_values(graph_def: GraphDef) -> None:
    """Turns ops on references into the same ops on values; the graph must not write to references."""
    for node in graph_def.node:
        reference = trait(node.op, Reference)
        if reference is not None:
            node.op = reference.of_values


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
    if not any(_is_reference(node) for node in graph_def.node):
        pass_values(graph_def)
    return graph_def


def _is_reference(node: NodeDef) -> bool:
    variable = trait(node.op, Variable)
    return variable is not None and variable.by_reference


def _refusal(path: Path) -> ModelError:
    if path.name == "saved_model.pb":
        return ModelError(f"Model {path} is a part of a SavedModel, or damaged. Give the directory that it is in.")
    return ModelError(
        f"Model {path} is not a frozen TensorFlow model (binary GraphDef), or it is truncated. Give {ACCEPTED}."
    )
