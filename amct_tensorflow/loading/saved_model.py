"""What a SavedModel computes: its signature for serving, or its only one."""

from collections.abc import Collection
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.loading.freezing import FREEZE_IT_YOURSELF, Inference

_SERVING = "serving_default"
_DEFAULTS = (_SERVING, "default")  # the latter in modules of TensorFlow Hub
_SERVING_TAG = "serve"
_RESERVED = "__saved_model_"


def load_saved_model(path: Path) -> Inference:
    """Loads a SavedModel of TensorFlow 1 or 2.

    Raises:
        ModelError: it is damaged, or it cannot be told which of its signatures is meant.
    """
    graph, name = find_signature(path)
    try:
        loaded = tf.saved_model.load(str(path), tags=list(graph.meta_info_def.tags))
        function = loaded.signatures[name]
    except Exception as error:  # whatever TensorFlow did not expect of the files
        raise not_loaded(path, error) from error
    return Inference(function, tuple(sorted(function.structured_outputs)), loaded)


def find_signature(path: Path) -> tuple[MetaGraphDef, str]:
    """Returns the graph of a SavedModel to freeze, and the name of the signature in it.

    Raises:
        ModelError: the file is damaged, or it cannot be told which one is meant.
    """
    try:
        graphs = tf.__internal__.saved_model.parse_saved_model(str(path)).meta_graphs
    except Exception as error:  # likewise
        raise not_loaded(path, error) from error
    graph = _choose_graph(graphs, path)
    return graph, _choose_signature([key for key in graph.signature_def if not key.startswith(_RESERVED)], path)


def not_loaded(path: Path, error: Exception) -> ModelError:
    """Returns the error that says that TensorFlow cannot load a SavedModel."""
    return ModelError(f"Model {path} cannot be loaded as a SavedModel ({first_line(error)}). {FREEZE_IT_YOURSELF}")


def _choose_graph(graphs: Collection[MetaGraphDef], path: Path) -> MetaGraphDef:
    """Returns the only graph of a SavedModel, or the one to serve with.

    That for any device comes first, then one for some device, then the one without a tag, as TensorFlow Hub has it.

    Raises:
        ModelError: there are several, and it cannot be told which of them is for serving.
    """
    tags = [set(graph.meta_info_def.tags) for graph in graphs]
    choices = (
        [True for _ in tags],
        [each == {_SERVING_TAG} for each in tags],
        [_SERVING_TAG in each for each in tags],
        [not each for each in tags],
    )
    for chosen in choices:
        if sum(chosen) == 1:
            return list(graphs)[chosen.index(True)]
    listed = " and ".join(str(sorted(each)) for each in tags) or "none"
    raise ModelError(
        f"Model {path} must hold one graph, or one with the tag {_SERVING_TAG!r}; it holds those with the tags: "
        f"{listed}. Export it for serving."
    )


def _choose_signature(names: Collection[str], path: Path) -> str:
    """Returns the name of the signature to freeze.

    Raises:
        ModelError: there is none, or there are several, and none of them is the default.
    """
    for name in _DEFAULTS:
        if name in names:
            return name
    if len(names) == 1:
        return next(iter(names))
    has = f"has the signatures {', '.join(map(repr, sorted(names)))}" if names else "has no signature"
    raise ModelError(
        f"Model {path} {has}. Export the one to quantize: tf.saved_model.save(model, directory, "
        f"signatures={{{_SERVING!r}: function}}), or model.export(directory) in Keras."
    )
