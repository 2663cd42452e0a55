"""Recognizes the form of a model.

Nothing here imports TensorFlow: that there is no model shows without it.
"""

from enum import Enum
from pathlib import Path

from amct_tensorflow.errors import ModelError, ModelNotFoundError

ACCEPTED = (
    "a frozen model (.pb), the directory of a SavedModel, a Keras model (.keras, .h5), or a TensorFlow.js model (its "
    ".json, or the directory with its model.json)"
)

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")  # Keras itself goes by them, too
_TFJS_SUFFIX, TFJS_FILE = ".json", "model.json"
SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")


class Form(Enum):
    """A form of models."""

    FROZEN_GRAPH = "a frozen graph"
    SAVED_MODEL = "a SavedModel"
    KERAS = "a Keras model"
    TFJS = "a TensorFlow.js model"


def recognize(path: Path) -> Form:
    """Returns the form of the model at a path, judged by the path alone.

    Raises:
        ModelNotFoundError: there is nothing.
        ModelError: it is a directory, but neither that of a SavedModel nor of a TensorFlow.js model.
    """
    if not path.exists():
        raise ModelNotFoundError(f"Model {path} does not exist. Give the path of {ACCEPTED}.")
    if path.is_dir():
        if any((path / name).is_file() for name in SAVED_MODEL_FILES):
            return Form.SAVED_MODEL
        if (path / TFJS_FILE).is_file():
            return Form.TFJS
        raise ModelError(
            f"Model {path} cannot be read: the directory holds no {SAVED_MODEL_FILES[0]} of a SavedModel, and no "
            f"{TFJS_FILE} of TensorFlow.js. Give {ACCEPTED}."
        )
    if path.suffix == _TFJS_SUFFIX:
        return Form.TFJS
    return Form.KERAS if path.suffix in _KERAS_SUFFIXES else Form.FROZEN_GRAPH
