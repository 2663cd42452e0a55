"""Loads a TensorFlow.js model: a JSON file with the graph or the layers, beside shards with the weights.

    {"format": "graph-model", "modelTopology": {"node": [...]}, "weightsManifest": [...], "signature": {...}}
    {"format": "layers-model", "modelTopology": {"model_config": {...}}, "weightsManifest": [...]}

A graph model keeps the names of its nodes. Its topology is a GraphDef as JSON, whose constants have their values among
the weights.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import attribute, parse_tensor_name
from amct_tensorflow.model.loading.freezing import (
    Inference,
    check_complete,
    check_stateless,
    describe,
    writer_in,
    writes,
)
from amct_tensorflow.model.loading.frozen_graph import TFJS_FILE, FrozenModel
from amct_tensorflow.model.loading.known_ops import why_not_importable, without_fused_ops
from amct_tensorflow.model.loading.tfjs_layers import load_layers_model
from amct_tensorflow.model.loading.tfjs_weights import Group, read_weights
from amct_tensorflow.ops import has
from amct_tensorflow.ops.traits import Fed

_CONVERT_AGAIN = "Convert the model again, or give the one from which it was converted."


class _Endpoint(msgspec.Struct, frozen=True):
    """An input or output in a signature."""

    name: str
    tensorShape: dict[str, Any] | None = None  # noqa: N815


class _Signature(msgspec.Struct, frozen=True):
    inputs: dict[str, _Endpoint] = {}
    outputs: dict[str, _Endpoint] = {}


class _Metadata(msgspec.Struct, frozen=True):
    signature: _Signature | None = None


class _Document(msgspec.Struct, frozen=True):
    """The JSON file; other keys are ignored."""

    modelTopology: dict[str, Any]  # noqa: N815
    weightsManifest: tuple[Group, ...] = ()  # noqa: N815
    signature: _Signature | None = None
    userDefinedMetadata: _Metadata | None = None  # noqa: N815

    @property
    def endpoints(self) -> _Signature:
        """Its signature, which older converters wrote elsewhere; an empty one if it has none."""
        metadata = self.userDefinedMetadata
        return self.signature or (metadata and metadata.signature) or _Signature()


def load_tfjs(path: Path) -> FrozenModel | Inference:
    """Loads a model of TensorFlow.js.

    Args:
        path: its JSON file, or the folder with its ``model.json``.

    Raises:
        ModelError: it is damaged or incomplete, or needs what TensorFlow or Keras does not have.
    """
    file = path / TFJS_FILE if path.is_dir() else path
    document = _read(file)
    topology = document.modelTopology
    is_graph = isinstance(topology.get("node"), list)
    if not is_graph and not isinstance(topology.get("model_config", topology.get("config")), (dict, list, str)):
        raise ModelError(f"Model {file} has neither nodes nor layers in its modelTopology. {_CONVERT_AGAIN}")
    weights = read_weights(file, document.weightsManifest)
    return _graph_model(path, file, document, weights) if is_graph else load_layers_model(file, topology, weights)


def tfjs_files(path: Path) -> Iterator[Path]:
    """Yields the JSON file of a model, and the shards of its weights.

    Args:
        path: as for ``load_tfjs``, which has read them.
    """
    file = path / TFJS_FILE if path.is_dir() else path
    yield file
    yield from {file.parent / shard for group in _read(file).weightsManifest for shard in group.paths}


def _read(file: Path) -> _Document:
    try:
        return msgspec.convert(json.loads(file.read_bytes()), _Document)
    except OSError as error:
        raise ModelError(f"Model {file} cannot be read: {error.strerror}. Give a readable file.") from error
    except (ValueError, RecursionError) as error:  # also what msgspec says, and that it is no text
        raise ModelError(
            f"Model {file} is no model of TensorFlow.js, or damaged ({first_line(error)}). {_CONVERT_AGAIN}"
        ) from error


def _graph_model(path: Path, file: Path, document: _Document, weights: Mapping[str, np.ndarray]) -> FrozenModel:
    graph_def = _parse(file, document.modelTopology)
    _fill_in(file, graph_def, weights)
    _set_shapes(file, graph_def, document.endpoints)
    graph_def = without_fused_ops(graph_def)
    graph = _import(file, graph_def)
    fed = [op for op in graph.get_operations() if has(op.type, Fed)]
    inputs = {op.name: describe(op.outputs[0]) for op in fed}
    return FrozenModel(graph_def, path, True, inputs, _outputs(file, graph_def, graph, document.endpoints))


def _parse(file: Path, topology: dict[str, Any]) -> GraphDef:
    graph_def = tf.compat.v1.GraphDef()
    try:
        json_format.ParseDict(topology, graph_def, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"Model {file} has a graph that cannot be read ({first_line(error)}). {_CONVERT_AGAIN}"
        ) from error
    if not graph_def.node or any(not node.name or not node.op for node in graph_def.node):
        raise ModelError(
            f"Model {file} has a graph without nodes, or with one that has no name or op. {_CONVERT_AGAIN}"
        )
    if not graph_def.versions.producer:  # which old converters left out
        graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    return graph_def


def _nodes(graph_def: GraphDef) -> Iterator[NodeDef]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _fill_in(file: Path, graph_def: GraphDef, weights: Mapping[str, np.ndarray]) -> None:
    """Gives constants their values; TensorFlow.js has int32 for int64 as well, and float32 for all floats.

    Raises:
        ModelError: one has none.
    """
    for node in _nodes(graph_def):
        if node.op != "Const":
            continue
        tensor = attribute(node, "value").tensor
        if node.name in weights:
            dtype = _type(file, node)
            try:
                value = tf.make_tensor_proto(weights[node.name], dtype, weights[node.name].shape)
            except (TypeError, ValueError, OverflowError) as error:
                raise ModelError(
                    f"Model {file} has a value for its constant {node.name!r} that is not of its type {dtype.name}. "
                    f"{_CONVERT_AGAIN}"
                ) from error
            node.attr["value"].tensor.CopyFrom(value)
            node.attr["dtype"].type = dtype.as_datatype_enum
        elif not tensor.tensor_content and not any(name.name.endswith("_val") for name, _ in tensor.ListFields()):
            raise ModelError(
                f"Model {file} has no value for its constant {node.name!r}: weightsManifest does not list it. "
                f"{_CONVERT_AGAIN}"
            )


def _type(file: Path, node: NodeDef) -> tf.DType:
    try:
        return tf.as_dtype(attribute(node, "dtype").type or attribute(node, "value").tensor.dtype or tf.float32)
    except TypeError as error:
        raise ModelError(f"Model {file} has a constant {node.name!r} of no type. {_CONVERT_AGAIN}") from error


def _set_shapes(file: Path, graph_def: GraphDef, signature: _Signature) -> None:
    """Gives placeholders without a shape the one that the signature tells.

    Raises:
        ModelError: that is none.
    """
    shapes = {parse_tensor_name(each.name).node: each.tensorShape for each in signature.inputs.values()}
    for node in graph_def.node:
        shape = shapes.get(node.name)
        if shape is not None and has(node.op, Fed) and "shape" not in node.attr:
            try:
                json_format.ParseDict(shape, node.attr["shape"].shape, ignore_unknown_fields=True)
            except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
                raise ModelError(
                    f"Model {file} has a signature with no shape for the input {node.name!r} ({first_line(error)}). "
                    f"{_CONVERT_AGAIN}"
                ) from error


def _import(file: Path, graph_def: GraphDef) -> tf.Graph:
    """Imports a graph.

    Raises:
        ModelError: TensorFlow does not know an op of it, or it works on state.
    """
    writer = writer_in(graph_def)
    if writer is not None:
        raise writes(file, writer)
    graph = tf.Graph()
    with graph.as_default():
        try:
            tf.import_graph_def(graph_def, name="")
        except Exception as error:  # whatever TensorFlow did not expect of the graph
            reason = why_not_importable(graph_def) or f"{first_line(error)}. {_CONVERT_AGAIN}"
            raise ModelError(f"Model {file} cannot be imported: {reason}") from error
    check_stateless(graph, {node.name for node in graph_def.node}, file)
    check_complete(graph_def, file)
    return graph


def _outputs(file: Path, graph_def: GraphDef, graph: tf.Graph, signature: _Signature) -> dict[str, str]:
    """Returns what the signature calls the outputs, by operator; those that nothing reads if it names none.

    Raises:
        ModelError: the graph does not have one.
    """
    found: dict[str, str] = {}
    for label, endpoint in signature.outputs.items():
        name = parse_tensor_name(endpoint.name)
        try:
            tensor = graph.get_operation_by_name(name.node).outputs[max(0, name.port)]
        except (KeyError, ValueError, IndexError, TypeError) as error:  # the last of what is no text
            raise ModelError(
                f"Model {file} names the output {endpoint.name!r} ({label}), which its graph does not have. Correct "
                "its signature, or convert it again."
            ) from error
        found[name.node if name.port <= 0 else _add_operator(graph_def, graph, tensor)] = label.removesuffix(":0")
    if found:
        return found
    read = {parse_tensor_name(text).node for node in graph_def.node for text in node.input}
    return {node.name: node.name for node in graph_def.node if node.name not in read}


def _add_operator(graph_def: GraphDef, graph: tf.Graph, tensor: tf.Tensor) -> str:
    """Adds an operator whose only output is a tensor that is not the first one of its own; returns its name."""
    name = graph.unique_name(tensor.name.replace(":", "_"))
    graph_def.node.append(make_node(name, "Identity", [tensor.name], T=tensor.dtype))
    return str(name)
