"""What a SavedModel computes: its signature for serving, or its only one."""

from collections.abc import Collection
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.loading.freezing import FREEZE_IT_YOURSELF, Inference

_SERVING = "serving_default"
_SERVING_TAG = "serve"
_RESERVED = "__saved_model_"


def load_saved_model(path: Path) -> Inference:
    """Loads a SavedModel of TensorFlow 1 or 2.

    Raises:
        ModelError: it is damaged, or it cannot be told which of its signatures is meant.
    """
    try:
        graphs = tf.__internal__.saved_model.parse_saved_model(str(path)).meta_graphs
        graph = _choose_graph(graphs, path)
        name = _choose_signature([key for key in graph.signature_def if not key.startswith(_RESERVED)], path)
        loaded = tf.saved_model.load(str(path), tags=list(graph.meta_info_def.tags))
        function = loaded.signatures[name]
    except ModelError:
        raise
    except Exception as error:  # whatever TensorFlow did not expect of the files
        raise ModelError(
            f"Model {path} cannot be loaded as a SavedModel ({first_line(error)}). {FREEZE_IT_YOURSELF}"
        ) from error
    return Inference(function, tuple(sorted(function.structured_outputs)), loaded)


def _choose_graph(graphs: Collection[MetaGraphDef], path: Path) -> MetaGraphDef:
    """Returns the only graph of a SavedModel, or the one to serve with.

    Raises:
        ModelError: there are several, and none of them is for serving.
    """
    found = [graph for graph in graphs if len(graphs) == 1 or set(graph.meta_info_def.tags) == {_SERVING_TAG}]
    if len(found) != 1:
        tags = " and ".join(str(sorted(graph.meta_info_def.tags)) for graph in graphs) or "none"
        raise ModelError(
            f"Model {path} must hold one graph, or one with the tag {_SERVING_TAG!r}; it holds those with the tags: "
            f"{tags}. Export it for serving."
        )
    return found[0]


def _choose_signature(names: Collection[str], path: Path) -> str:
    """Returns the name of the signature to freeze.

    Raises:
        ModelError: there is none, or there are several, and none of them is the default.
    """
    if _SERVING in names:
        return _SERVING
    if len(names) == 1:
        return next(iter(names))
    has = f"has the signatures {', '.join(map(repr, sorted(names)))}" if names else "has no signature"
    raise ModelError(
        f"Model {path} {has}. Export the one to quantize: tf.saved_model.save(model, directory, "
        f"signatures={{{_SERVING!r}: function}}), or model.export(directory) in Keras."
    )
