"""What the file of a Keras model says of itself, read without running anything that stands in it."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from amct_tensorflow.errors import ContentError, ModelError
from amct_tensorflow.storage.json_text import expect, parse_json

_ZIP_SUFFIX = ".keras"
_KERAS_PACKAGES = ("builtins", "keras", "tf_keras")


@dataclass(frozen=True)
class KerasContents:
    """What the file of a Keras model says of itself.

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
        config = expect(dict, parse_json(text), "the description of the model")
    except ContentError as error:
        raise ModelError(
            f"Model {path} is damaged, or no model that Keras saved ({error}). Save it with model.save(), or give "
            "another form of it."
        ) from error
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
    return str(expect(dict, parse_json(metadata), "metadata.json").get("keras_version")), config


def _read_hdf5(path: Path) -> tuple[str, bytes]:
    try:
        with h5py.File(path, "r") as file:
            version, config = (file.attrs.get(name) for name in ("keras_version", "model_config"))
    except Exception as error:  # likewise
        raise ContentError(str(error)) from error
    if config is None:
        raise ContentError("it has no model_config, and so holds weights at most")
    return str(version), config if isinstance(config, bytes) else str(config).encode(errors="surrogateescape")


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
    """Returns what a description of a class or function calls it, unless it is part of Keras or describes neither."""
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
