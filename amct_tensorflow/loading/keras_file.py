"""What a Keras model computes, from a ``.keras`` or ``.h5`` file."""

import re
import textwrap
from pathlib import Path
from typing import Any

import tensorflow as tf

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.loading.freezing import FREEZE_IT_YOURSELF, Inference
from amct_tensorflow.loading.keras_contents import KerasContents, read_keras_contents

_LONGEST_REASON = 200
_LONGEST_LIST = 150


def load_keras(path: Path) -> Inference:
    """Loads a Keras model as far as that needs no code of its own.

    Raises:
        ModelError: it cannot be loaded; the message says why.
    """
    contents, installed = read_keras_contents(path), _keras_version(path)
    if contents.holds_code:
        # Older versions of Keras run it even in safe mode, if the file is an HDF5 file.
        raise ModelError(
            f"Model {path} holds Python code (a Lambda layer), which is not run from a file. {FREEZE_IT_YOURSELF}"
        )
    try:
        model = tf.keras.models.load_model(str(path), compile=False, safe_mode=True)
        if getattr(model, "inputs", None):
            return Inference(_trace(model), _labels(model), model)
    except Exception as error:  # whatever Keras did not expect of the file
        raise ModelError(_refusal(path, contents, installed, error)) from error
    raise ModelError(
        f"Model {path} does not say what its inputs are. Save it when it has been built with tf.keras.Input, or give "
        "the directory that model.export() writes."
    )


def _keras_version(path: Path) -> str:
    """Returns the version of Keras that TensorFlow uses.

    Raises:
        ModelError: there is none that works with TensorFlow.
    """
    try:
        backend, version = tf.keras.backend.backend(), getattr(tf.keras, "__version__", "2")  # Keras 2 does not tell
    except Exception as error:
        raise ModelError(
            f"Model {path} needs Keras, which cannot be imported ({first_line(error)}). Install it, and set "
            "KERAS_BACKEND=tensorflow."
        ) from error
    if backend != "tensorflow":
        raise ModelError(f"Model {path} needs Keras on TensorFlow, not on {backend}. Set KERAS_BACKEND=tensorflow.")
    return str(version)


def _trace(model: Any) -> Any:
    """Returns the model in inference form as a tf.ConcreteFunction, whose arguments are called as its inputs."""
    structure = model.inputs[0] if isinstance(model, tf.keras.Sequential) else model.input
    specs = [tf.TensorSpec(each.shape, each.dtype, each.name) for each in model.inputs]

    def infer(*tensors: tf.Tensor) -> Any:
        return model(tf.nest.pack_sequence_as(structure, tensors), training=False)

    return tf.function(infer).get_concrete_function(*specs)


def _labels(model: Any) -> tuple[str, ...]:
    """Returns what the model calls its outputs: the names of the layers that they come from."""
    if isinstance(model, tf.keras.Sequential):
        return (model.layers[-1].name,)
    return tuple(model.output_names)


def _refusal(path: Path, contents: KerasContents, installed: str, error: Exception) -> str:
    """Returns why a model cannot be loaded, and what to do."""
    message = f"Model {path} cannot be loaded by Keras {installed} ({_reason(error)})."
    if contents.foreign:
        foreign = textwrap.shorten(", ".join(contents.foreign), _LONGEST_LIST, placeholder=" ...")
        return f"{message} It needs {foreign}, not part of Keras. {FREEZE_IT_YOURSELF}"
    message += f" It was written by Keras {contents.version}"
    if _numbers(contents.version) > _numbers(installed):
        return f"{message}, which is newer: install that, or give the directory that model.export() of it writes."
    if _numbers(contents.version)[:1] == (2,):
        return f"{message}: install tf_keras and set TF_USE_LEGACY_KERAS=1, or give the directory of a SavedModel."
    return f"{message}. {FREEZE_IT_YOURSELF}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _reason(error: Exception) -> str:
    """Returns what is at the bottom of an error of Keras, which puts whole configurations and calls around it."""
    message = str(error)
    marked = re.search(r"\x1b\[1m(.+?)\x1b\[0m", message, re.DOTALL)  # what Keras prints in bold
    innermost = marked[1] if marked else message.rpartition("Exception encountered: ")[2]
    line = innermost.strip().partition("\n")[0] or type(error).__name__
    return textwrap.shorten(line, _LONGEST_REASON, placeholder=" ...")
