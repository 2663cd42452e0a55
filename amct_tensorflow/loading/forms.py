"""Which form the model at a path has."""

from enum import Enum
from pathlib import Path

from amct_tensorflow.errors import ModelError, ModelNotFoundError

ACCEPTED = "a frozen model (.pb), the directory of a SavedModel, or a Keras model (.keras, .h5)"

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")  # Keras itself goes by them, too
_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")


class Form(Enum):
    """A form in which people have models."""

    FROZEN_GRAPH = "a frozen graph"
    SAVED_MODEL = "a SavedModel"
    KERAS = "a Keras model"


def recognize(path: Path) -> Form:
    """Returns the form of the model at a path; what stands in a file is not looked at.

    Raises:
        ModelNotFoundError: there is nothing.
        ModelError: it is a directory, but not that of a SavedModel.
    """
    if not path.exists():
        raise ModelNotFoundError(f"Model {path} does not exist. Give the path of {ACCEPTED}.")
    if path.is_dir():
        if any((path / name).is_file() for name in _SAVED_MODEL_FILES):
            return Form.SAVED_MODEL
        raise ModelError(
            f"Model {path} cannot be read: the directory holds no {_SAVED_MODEL_FILES[0]}, so that it is no "
            f"SavedModel. Give {ACCEPTED}."
        )
    return Form.KERAS if path.suffix in _KERAS_SUFFIXES else Form.FROZEN_GRAPH
