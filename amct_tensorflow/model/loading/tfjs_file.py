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

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.log import log_for
from amct_tensorflow.model.loading.forms import TFJS_FILE
from amct_tensorflow.model.loading.freezing import (
    Inference,
    check_complete,
    check_stateless,
    writer_in,
    writes,
)
from amct_tensorflow.model.loading.frozen_graph import FrozenModel
from amct_tensorflow.model.loading.known_ops import why_not_importable, without_fused_ops
from amct_tensorflow.model.loading.tfjs_constants import fill_in
from amct_tensorflow.model.loading.tfjs_layers import load_layers_model
from amct_tensorflow.model.loading.tfjs_signature import Signature, find_inputs, find_outputs, set_shapes
from amct_tensorflow.model.loading.tfjs_weights import Group, read_weights

_CONVERT_AGAIN = "Convert the model again, or give the one from which it was converted."


class _Metadata(msgspec.Struct, frozen=True):
    signature: Signature | None = None


class _Document(msgspec.Struct, frozen=True):
    """The JSON file; other keys are ignored."""

    modelTopology: dict[str, Any]  # noqa: N815
    weightsManifest: tuple[Group, ...] = ()  # noqa: N815
    signature: Signature | None = None
    userDefinedMetadata: _Metadata | None = None  # noqa: N815
    modelInitializer: dict[str, Any] | None = None  # noqa: N815

    @property
    def endpoints(self) -> Signature:
        """Its signature, an empty one if it has none; that of the metadata goes first, as in TensorFlow.js."""
        metadata = self.userDefinedMetadata
        return (metadata and metadata.signature) or self.signature or Signature()


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
    initializer = _initializer_ops(document)
    fill_in(file, graph_def, weights, shared=bool(initializer))
    set_shapes(file, graph_def, document.endpoints)
    graph_def = without_fused_ops(graph_def)
    graph = _import(file, graph_def)
    if initializer:  # for tables, and a graph that reads one is refused by now
        log_for("loading").warning(
            "Model %s has a modelInitializer, which fills tables before the first run (%s). Its graph reads none; the "
            "modelInitializer is left out.",
            file,
            ", ".join(initializer),
        )
    inputs = find_inputs(file, graph, document.endpoints)
    return FrozenModel(graph_def, path, True, inputs, find_outputs(file, graph_def, graph, document.endpoints))


def _initializer_ops(document: _Document) -> list[str]:
    """Returns the op types of what fills tables before the first run."""
    nodes = (document.modelInitializer or {}).get("node")
    described = [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    return list(dict.fromkeys(str(node.get("op")) for node in described))


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
