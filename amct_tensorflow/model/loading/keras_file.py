"""Loads a Keras model; its description is read and checked before any of its code runs."""

import json
import re
import shutil
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf

from amct_tensorflow.errors import ContentError, ModelError, first_line
from amct_tensorflow.model.loading.freezing import FREEZE_IT_YOURSELF, Inference

_ZIP_SUFFIX = ".keras"
_INPUT = "InputLayer"
_KERAS_PACKAGES = ("builtins", "keras", "tf_keras")


@dataclass(frozen=True)
class KerasContents:
    """The description in the file of a Keras model.

    Attributes:
        version: the version of Keras that wrote it.
        foreign: the classes and functions in it that are not part of Keras; an HDF5 file does not tell of classes.
        holds_code: whether it holds Python bytecode, which loading it would run.
    """

    version: str
    foreign: tuple[str, ...]
    holds_code: bool


def read_keras_contents(path: Path) -> KerasContents:
    """Reads the description of a model in a ``.keras`` or HDF5 file.

    Raises:
        ModelError: it is no such file, is damaged, or holds weights only.
    """
    try:
        version, text = (_read_zip if path.suffix == _ZIP_SUFFIX else _read_hdf5)(path)
        config = _parse(text, "the description of the model")
    except ContentError as error:
        raise ModelError(
            f"Model {path} is damaged, or no model that Keras saved ({error}). Save it with model.save(), or give "
            "another form of it."
        ) from error
    return keras_contents(version, config)


def keras_contents(version: str, config: dict[str, Any]) -> KerasContents:
    """Returns what a description tells that some version of Keras wrote."""
    # What a model was trained with is not needed to run it.
    config.pop("compile_config", None)
    objects = list(_objects(config))
    foreign = dict.fromkeys(name for each in objects if (name := _foreign_name(each)))
    return KerasContents(version, tuple(foreign), any(map(_is_code, objects)))


def _read_zip(path: Path) -> tuple[str, bytes]:
    try:
        with zipfile.ZipFile(path) as file:
            metadata, config = file.read("metadata.json"), file.read("config.json")
    except Exception as error:  # each part of a damaged archive has errors of its own
        raise ContentError(str(error)) from error
    return str(_parse(metadata, "metadata.json").get("keras_version")), config


def _read_hdf5(path: Path) -> tuple[str, bytes]:
    try:
        with h5py.File(path, "r") as file:
            version, config = (file.attrs.get(name) for name in ("keras_version", "model_config"))
    except Exception as error:  # likewise
        raise ContentError(str(error)) from error
    if config is None:
        raise ContentError("it has no model_config, and so holds weights at most")
    return str(version), config if isinstance(config, bytes) else str(config).encode(errors="surrogateescape")


def _parse(text: bytes, name: str) -> dict[str, Any]:
    """Parses a JSON object as Keras writes it: with infinity and NaN, which msgspec refuses."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:  # also that it is no text (UnicodeDecodeError)
        raise ContentError(f"{type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(parsed, dict):
        raise ContentError(f"{name} is no JSON object")
    return parsed


def _objects(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the JSON objects in a description, at any depth."""
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _foreign_name(described: dict[str, Any]) -> str | None:
    """Returns the name in a description of a class or function that is not part of Keras; else None."""
    if "module" not in described or "class_name" not in described:
        return None
    module, name = described["module"], described["class_name"]
    if module == "builtins" and name == "function":
        return str(described.get("config"))
    if module is None:
        return str(name)
    return None if str(module).partition(".")[0] in _KERAS_PACKAGES else f"{module}.{name}"


def _is_code(described: dict[str, Any]) -> bool:
    """Tells whether an object is a Python lambda, as Keras 3 or as Keras 2 describes it."""
    of_keras_2 = (value == "lambda" for key, value in described.items() if key.endswith("_type"))
    return described.get("class_name") == "__lambda__" or any(of_keras_2)


_LONGEST_REASON = 200
_LONGEST_LIST = 150


def load_keras(path: Path) -> Inference:
    """Loads a Keras model that needs no code but that of Keras.

    Raises:
        ModelError: it cannot be loaded; the message says why.
    """

    def load() -> Any:
        if path.suffix == _ZIP_SUFFIX:
            return tf.keras.models.load_model(str(path), compile=False, safe_mode=True)
        with tempfile.TemporaryDirectory() as folder:
            return tf.keras.models.load_model(str(_readable(path, Path(folder))), compile=False, safe_mode=True)

    return build_keras(path, read_keras_contents(path), load)


def _readable(path: Path, folder: Path) -> Path:
    """Returns an HDF5 file that Keras 3 reads as it was meant: the file, or a copy of it in a folder."""
    config = json.loads(_read_hdf5(path)[1])
    modern = without_slashes(for_keras_3(config))
    if modern == config:
        return path
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = json.dumps(modern)
    return copy


def for_keras_3(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the description that Keras 2 gives of a layer, or of a model, in words that Keras 3 knows as well.

    Keras 2 gives the first layer of a row the shape of a batch, which Keras 3 takes for that of an example: only a
    layer for inputs may have it. It calls the layers of a row nothing at first, and writes ``groups`` of depthwise
    convolutions, which have none.
    """
    kind, config = layer["class_name"], layer["config"]
    config = dict(config) if isinstance(config, dict) else {"name": "sequential", "layers": config}
    if "layers" in config:
        layers = [*config["layers"]]
        first = layers[0]["config"] if layers else {}
        if kind == "Sequential" and "batch_input_shape" in first and layers[0]["class_name"] != _INPUT:
            shape = {"batch_input_shape": first["batch_input_shape"], "dtype": first.get("dtype") or "float32"}
            layers.insert(0, {"class_name": _INPUT, "config": {"name": f"{first['name']}_input"} | shape})
        config["layers"] = list(map(for_keras_3, layers))
    if isinstance(config.get("layer"), dict):  # which it wraps
        config["layer"] = for_keras_3(config["layer"])
    if kind != _INPUT:
        config.pop("batch_input_shape", None)
    if kind == "DepthwiseConv2D" and config.get("groups") == 1:
        del config["groups"]
    return {**layer, "config": config}


def without_slashes(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a description whose layers have names without slashes, of which Keras 2 has some, and Keras 3 none."""
    if _numbers(_version()) < (3,):
        return config
    named = {name for each in _objects(config) if "class_name" in each for name in _names_of(each)}
    names: dict[str, str] = {}
    for old in sorted(name for name in named if "/" in name):
        new = old.replace("/", "_")
        while new in named:
            new += "_"
        named.add(new)
        names[old] = new
    return dict(_renamed(config, names)) if names else config


def _names_of(described: dict[str, Any]) -> list[str]:
    config = described.get("config")
    given = [described.get("name"), config.get("name") if isinstance(config, dict) else None]
    return [name for name in given if isinstance(name, str)]


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Returns a part of a description in which texts that are names are others."""
    if isinstance(value, dict):
        return {key: _renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def build_keras(path: Path, contents: KerasContents, make: Callable[[], Any]) -> Inference:
    """Builds a Keras model that needs no code but that of Keras.

    Args:
        path: where it is.
        contents: what its description tells.
        make: makes the model.

    Raises:
        ModelError: it cannot be made; the message says why.
    """
    installed = _keras_version(path)
    if contents.holds_code:
        # Older versions of Keras run it even in safe mode, if the file is an HDF5 file.
        raise ModelError(
            f"Model {path} holds Python code (a Lambda layer), which is not run from a file. {FREEZE_IT_YOURSELF}"
        )
    try:
        model = make()
        if getattr(model, "inputs", None):
            return Inference(_trace(model), _labels(model), model)
    except ModelError:
        raise
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
        backend, version = tf.keras.backend.backend(), _version()
    except Exception as error:
        raise ModelError(
            f"Model {path} needs Keras, which cannot be imported ({first_line(error)}). Install it, and set "
            "KERAS_BACKEND=tensorflow."
        ) from error
    if backend != "tensorflow":
        raise ModelError(f"Model {path} needs Keras on TensorFlow, not on {backend}. Set KERAS_BACKEND=tensorflow.")
    return version


def _version() -> str:
    return str(getattr(tf.keras, "__version__", "2"))  # Keras 2 does not tell


def _trace(model: Any) -> Any:
    """Returns the model in inference form as a tf.ConcreteFunction, whose arguments are called as its inputs."""
    structure = model.inputs[0] if isinstance(model, tf.keras.Sequential) else model.input
    specs = [tf.TensorSpec(each.shape, each.dtype, each.name) for each in model.inputs]

    def infer(*tensors: tf.Tensor) -> Any:
        return model(tf.nest.pack_sequence_as(structure, tensors), training=False)

    return tf.function(infer).get_concrete_function(*specs)


def _labels(model: Any) -> tuple[str, ...]:
    """Returns the model's names of its outputs: the layers that they come from."""
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
    """Returns the innermost message of an error of Keras, which wraps it in configurations and calls."""
    message = str(error)
    marked = re.search(r"\x1b\[1m(.+?)\x1b\[0m", message, re.DOTALL)  # what Keras prints in bold
    innermost = marked[1] if marked else message.rpartition("Exception encountered: ")[2]
    line = innermost.strip().partition("\n")[0] or type(error).__name__
    return textwrap.shorten(line, _LONGEST_REASON, placeholder=" ...")
