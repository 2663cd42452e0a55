"""Loads a layers model of TensorFlow.js through Keras.

Its topology is the description that Keras 2 gives of a model, or that TensorFlow.js gives in the same words. Keras 3
reads it in HDF5 files alone, so that it is written as such a file, with the weights of each layer in a group.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.model.loading.freezing import Inference
from amct_tensorflow.model.loading.keras_file import build_keras, for_keras_3, keras_contents, without_slashes

_SAVE_AGAIN = "Save it again."


def load_layers_model(source: Path, topology: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> Inference:
    """Loads a layers model.

    Args:
        source: its JSON file.
        topology: the description of its layers.
        weights: by the names of layers and of their variables.

    Raises:
        ModelError: Keras cannot build it, or its weights are not those of its layers.
    """
    given = topology.get("model_config") or {key: topology[key] for key in ("class_name", "config") if key in topology}
    description = _parse(source, given) if isinstance(given, str) else given
    if not isinstance(description, dict):
        raise ModelError(f"Model {source} describes its layers by something else than a JSON object. {_SAVE_AGAIN}")
    # A version of TensorFlow.js is none of Keras; its layers are those of Keras 2.
    version = str(topology.get("keras_version"))
    version = version if re.match(r"\d", version) else "2"

    def make() -> Any:
        try:
            config = for_keras_3(description)
            by_layer = _by_layer(source, config, weights)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ModelError(
                f"Model {source} describes its layers in a way that cannot be read ({type(error).__name__}: "
                f"{first_line(error)}). {_SAVE_AGAIN}"
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.h5"
            named = without_slashes(config)
            _write_hdf5(path, named, version, by_layer)
            model = tf.keras.models.load_model(str(path), compile=False, safe_mode=True)
        names = map(_name, named["config"]["layers"])  # those of the model, in the order of the groups
        for name, values in zip(names, by_layer.values(), strict=True):
            if values:
                _set_by_name(source, model.get_layer(name), values)
        return model

    return build_keras(source, keras_contents(version, description), make)


def _parse(source: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"Model {source} describes its layers by a text that is no JSON. {_SAVE_AGAIN}") from error


def _by_layer(
    source: Path, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the weights of each layer of a model, in their order; a model in the model counts as a layer.

    Raises:
        ModelError: a weight is of none of them.
    """
    layers = config["config"]["layers"]
    found: dict[str, dict[str, np.ndarray]] = {_name(layer): {} for layer in layers}
    owners = {name: _name(layer) for layer in layers for name in (*_names_in(layer), _name(layer))}
    for name, value in weights.items():
        owner = next((owners[each] for each in _beginnings(name) if each in owners), None)
        if owner is None:
            raise ModelError(
                f"Model {source} has the weight {name!r}, which belongs to none of its layers. {_SAVE_AGAIN}"
            )
        found[owner][name] = value
    return found


def _set_by_name(source: Path, layer: Any, values: Mapping[str, np.ndarray]) -> None:
    """Gives the variables of a layer their values by name, as TensorFlow.js does; Keras has gone by their order."""
    variables = [*layer.trainable_weights, *layer.non_trainable_weights]
    wanted = [getattr(each, "path", each.name).removesuffix(":0") for each in variables]
    for variable, name in zip(variables, _in_order(source, list(values), wanted), strict=True):
        variable.assign(values[name])


def _in_order(source: Path, names: list[str], wanted: list[str]) -> list[str]:
    """Returns names of weights in the order of variables.

    Keras 3 calls some variables otherwise than Keras 2, such as the kernel of a depthwise convolution. These keep their
    place.

    Raises:
        ModelError: names tell of another order, but not of which.
    """
    for count in (2, 1):  # of scopes; a model in the model has several layers, each with a kernel
        given, own = _ends(names, count), _ends(wanted, count)
        if set(given) == set(own) and len(set(own)) == len(own):
            return sorted(names, key=lambda name: own.index(given[names.index(name)]))
    given, own = _ends(names, 1), _ends(wanted, 1)
    if [each for each in given if each in own] != [each for each in own if each in given]:
        raise ModelError(
            f"Model {source} has weights in another order than the variables of their layer: {', '.join(names[:4])} "
            f"where Keras has {', '.join(wanted[:4])}. {_SAVE_AGAIN}"
        )
    return names


def _ends(names: list[str], count: int) -> list[str]:
    """Returns the last scopes of each name."""
    return ["/".join(name.split("/")[-count:]) for name in names]


def _beginnings(name: str) -> Iterator[str]:
    """Yields what a name in scopes begins with, the longest first; names of layers may have slashes themselves."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer.get("name") or layer["config"]["name"])


def _names_in(value: Any) -> Iterator[str]:
    """Yields all names in the description of a layer."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield value["name"]
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from _names_in(each)


def _write_hdf5(
    path: Path, config: Mapping[str, Any], version: str, weights: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes a model as Keras 2 does."""
    with h5py.File(path, "w") as file:
        file.attrs.update(model_config=json.dumps(config), keras_version=version, backend="tensorflow")
        groups = file.create_group("model_weights")
        groups.attrs.update(
            layer_names=[name.encode() for name in weights], keras_version=version, backend="tensorflow"
        )
        for layer, values in weights.items():
            group = groups.require_group(layer)  # which may be in that of another
            group.attrs["weight_names"] = [name.encode() for name in values]
            for name, value in values.items():
                group.create_dataset(name, data=value)
