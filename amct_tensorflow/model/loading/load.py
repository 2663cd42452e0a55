"""Loads a model as a frozen graph."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from amct_tensorflow.errors import ModelError
from amct_tensorflow.io.quiet import output_to_log_file
from amct_tensorflow.log import log_for
from amct_tensorflow.model.loading.forms import Form, recognize
from amct_tensorflow.model.loading.freezing import Inference, freeze
from amct_tensorflow.model.loading.frozen_graph import FrozenModel, read_frozen_graph
from amct_tensorflow.model.loading.keras_file import load_keras
from amct_tensorflow.model.loading.known_ops import with_known_ops
from amct_tensorflow.model.loading.saved_model import load_saved_model, load_signature_graph, saved_model_files
from amct_tensorflow.model.loading.tfjs_file import load_tfjs, tfjs_files

# Per form what can load it; each is tried where those before it fail.
_LOADERS: dict[Form, tuple[Callable[[Path], Inference | FrozenModel], ...]] = {
    Form.SAVED_MODEL: (load_saved_model, load_signature_graph),
    Form.KERAS: (load_keras,),
    Form.TFJS: (load_tfjs,),
}
# Of a form that has several files, those with the graph and the weights.
_FILES: dict[Form, Callable[[Path], Iterable[Path]]] = {Form.SAVED_MODEL: saved_model_files, Form.TFJS: tfjs_files}


def load_frozen(path: str | Path) -> FrozenModel:
    """Reads a frozen model, or freezes one of another form; the same model always gives the same graph.

    The names of inputs and outputs of a newly frozen graph are logged. The caller may be inside a ``tf.Graph`` of its
    own, or have disabled eager execution.

    Args:
        path: a frozen graph (``.pb``), the directory of a SavedModel, a Keras model (``.keras``, ``.h5``), or a
            TensorFlow.js model (its ``.json``, or the directory with its ``model.json``).

    Raises:
        ModelNotFoundError: there is nothing.
        ModelError: it is none of these, or cannot be frozen.
    """
    path = Path(path)
    form = recognize(path)
    if form is Form.FROZEN_GRAPH:
        graph_def = read_frozen_graph(path)
        known = with_known_ops(graph_def)
        return FrozenModel(known, path, known is not graph_def, {}, {})
    # Functions take over the collections of the caller's graph, whose tables they do not have. No public name switches
    # eager execution on again where the program has disabled it.
    with tf.Graph().as_default(), tf.__internal__.eager_context.eager_mode(), output_to_log_file("loading"):
        frozen = _freeze(form, path)
    log_for("loading").info(
        "%s was frozen for inference. Inputs: %s. Outputs: %s.",
        path,
        ", ".join(f"{name} {kind}" for name, kind in frozen.inputs.items()) or "none",
        ", ".join(f"{name} ({label})" for name, label in frozen.outputs.items()) or "none",
    )
    return replace(frozen, given_bytes=_given_bytes(form, path))


def _given_bytes(form: Form, path: Path) -> int:
    """Returns the size of the files with a model's graph and weights; what else is beside them does not count."""
    files = _FILES[form](path) if form in _FILES else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _freeze(form: Form, path: Path) -> FrozenModel:
    """Freezes a model in the first way that works; if none does, the error is that of the last one."""
    *others, last = _LOADERS[form]
    for load in others:
        try:
            return _frozen(load(path), path)
        except ModelError as error:
            log_for("loading").debug("%s Another way is tried.", error)
    return _frozen(last(path), path)


def _frozen(loaded: Inference | FrozenModel, path: Path) -> FrozenModel:
    return freeze(loaded, path) if isinstance(loaded, Inference) else loaded
