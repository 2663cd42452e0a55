"""What a TensorFlow.js model calls its inputs and outputs, held against its graph.

    {"inputs": {"images": {"name": "x:0", "dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "-1"}, ...]}}},
     "outputs": {"scores": {"name": "halves:1"}}}

TensorFlow.js passes over an entry that its graph does not have. What reads the wrong node, or yields the wrong one, is
refused here instead.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import parse_tensor_name
from amct_tensorflow.log import log_for
from amct_tensorflow.model.loading.freezing import describe
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import Fed

_CORRECT_IT = "Correct its signature, or convert it again."


class Endpoint(msgspec.Struct, frozen=True):
    """An input or output in a signature; type and shape stand there as in a GraphDef."""

    name: str
    dtype: str | int | None = None
    tensorShape: dict[str, Any] | None = None  # noqa: N815


class Signature(msgspec.Struct, frozen=True):
    """Inputs and outputs by the names that a user knows."""

    inputs: dict[str, Endpoint] = {}
    outputs: dict[str, Endpoint] = {}


def set_shapes(file: Path, graph_def: GraphDef, signature: Signature) -> None:
    """Gives placeholders without a shape the one that the signature tells.

    Raises:
        ModelError: that is none.
    """
    told = {parse_tensor_name(each.name).node: (label, each) for label, each in signature.inputs.items()}
    for node in graph_def.node:
        label, endpoint = told.get(node.name, ("", None))
        if endpoint is not None and endpoint.tensorShape is not None and has(node.op, Fed) and "shape" not in node.attr:
            node.attr["shape"].shape.CopyFrom(_info(file, label, endpoint).tensor_shape)


def find_inputs(file: Path, graph: tf.Graph, signature: Signature) -> dict[str, str]:
    """Returns types and shapes of the inputs of a graph, by operator.

    Raises:
        ModelError: the signature has others.
    """
    fed = {op.name: op for op in graph.get_operations() if has(op.type, Fed)}
    lost = []
    for label, endpoint in signature.inputs.items():
        name = parse_tensor_name(endpoint.name)
        if name.node in fed and name.port <= 0:
            _check_kind(file, f"input {label!r}", label, endpoint, fed[name.node].outputs[0])
        elif name.node in {op.name for op in graph.get_operations()}:
            raise ModelError(
                f"Model {file} names the input {endpoint.name!r} ({label}), which its graph computes itself. "
                f"{_CORRECT_IT}"
            )
        else:
            lost.append(f"{endpoint.name!r} ({label})")
    named = {parse_tensor_name(endpoint.name).node for endpoint in signature.inputs.values()}
    others = [name for name, op in fed.items() if name not in named and not _need_not_be_fed(op)]
    if lost and others:
        raise ModelError(
            f"Model {file} names the input {lost[0]}, which its graph does not have; that has {others[0]!r} instead. "
            f"{_CORRECT_IT}"
        )
    if lost:
        log_for("loading").warning(
            "The signature of %s names inputs that its graph does not have: %s. Its outputs do not depend on them; "
            "they are left out.",
            file,
            ", ".join(lost),
        )
    return {name: describe(op.outputs[0]) for name, op in fed.items()}


def _need_not_be_fed(op: tf.Operation) -> bool:
    fed = trait(op.type, Fed)
    return fed is not None and fed.has_default


def find_outputs(file: Path, graph_def: GraphDef, graph: tf.Graph, signature: Signature) -> dict[str, str]:
    """Returns what the signature calls the outputs, by operator; those that nothing reads if it names none.

    An output that is not the first of its operator gets an operator of its own, which is added to the graph.

    Raises:
        ModelError: the graph does not have one, or it has another type or shape.
    """
    found: dict[str, str] = {}
    for label, endpoint in signature.outputs.items():
        name = parse_tensor_name(endpoint.name)
        try:
            tensor = graph.get_operation_by_name(name.node).outputs[max(0, name.port)]
        except (KeyError, ValueError, IndexError, TypeError) as error:  # the last of what is no text
            raise ModelError(
                f"Model {file} names the output {endpoint.name!r} ({label}), which its graph does not have. "
                f"{_CORRECT_IT}"
            ) from error
        _check_kind(file, f"output {label!r}", label, endpoint, tensor)
        found[name.node if name.port <= 0 else _add_operator(graph_def, graph, tensor)] = label.removesuffix(":0")
    return found or {name: name for name in _unread(graph_def)}


def _unread(graph_def: GraphDef) -> Iterator[str]:
    read = {parse_tensor_name(text).node for node in graph_def.node for text in node.input}
    yield from (node.name for node in graph_def.node if node.name not in read)


def _add_operator(graph_def: GraphDef, graph: tf.Graph, tensor: tf.Tensor) -> str:
    """Adds an operator whose only output is a tensor that is not the first one of its own; returns its name."""
    name = graph.unique_name(tensor.name.replace(":", "_"))
    graph_def.node.append(make_node(name, "Identity", [tensor.name], T=tensor.dtype))
    return str(name)


def _check_kind(file: Path, called: str, label: str, endpoint: Endpoint, tensor: tf.Tensor) -> None:
    """Checks that type and shape in a signature, as far as it tells them, may be those of a tensor.

    Raises:
        ModelError: they are others.
    """
    info = _info(file, label, endpoint)
    shape = tf.TensorShape(info.tensor_shape if endpoint.tensorShape is not None else None)
    dtype = tf.as_dtype(info.dtype) if info.dtype else tensor.dtype
    if dtype != tensor.dtype or not shape.is_compatible_with(tensor.shape):
        said = f"{dtype.name} {'of any shape' if shape.rank is None else shape.as_list()}"
        raise ModelError(
            f"Model {file} says in its signature that its {called}, {endpoint.name!r}, is {said}; in its graph it is "
            f"{describe(tensor)}. {_CORRECT_IT}"
        )


def _info(file: Path, label: str, endpoint: Endpoint) -> TensorInfo:
    """Returns what an entry tells, as a SavedModel has it.

    Raises:
        ModelError: it is of no type, or of no shape.
    """
    given = {"dtype": endpoint.dtype, "tensorShape": endpoint.tensorShape}
    info = TensorInfo()
    try:
        told = {key: value for key, value in given.items() if value is not None}
        json_format.ParseDict(told, info)
        tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype or tf.float32)
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Model {file} has a signature with no type or no shape for {endpoint.name!r} ({label}: "
            f"{first_line(error)}). {_CORRECT_IT}"
        ) from error
    return info
