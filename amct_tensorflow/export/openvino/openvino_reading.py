"""Reads the layers of an OpenVINO file; the conversion writes the model anew, and moves constants."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from amct_tensorflow.export.onnx.onnx_forms import FORMS, INT8_WEIGHTS
from amct_tensorflow.export.written import WrittenLayer, bias_in_file, in_original_layout
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer

# What stands between the integers of weights and the operation that computes the layer, or between that and the
# quantizer of its data: ops that move values, and those that bring integers back.
_MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Pad", "SpaceToBatch")
_BRINGING_BACK = ("Convert", "Subtract", "Multiply")


def read_openvino_layers(model: Any, layers: Mapping[str, QuantizedLayer]) -> dict[str, WrittenLayer]:
    """Returns the layers with weights.

    Args:
        model: the model as OpenVINO reads it from the files.
        layers: by name, those whose weights the files should have in int8.
    """
    operations = model.get_ordered_ops()
    constants = {each.get_friendly_name(): each for each in operations if _type(each) == "Constant"}
    added = [
        (each, value)
        for each in operations
        if _type(each) == "Add"
        for value in (_value(source) for source in _sources(each))
        if value is not None
    ]
    return {name: _read(layer, constants.get(INT8_WEIGHTS.format(name)), added) for name, layer in layers.items()}


def _read(layer: QuantizedLayer, weights: Any | None, added: list[tuple[Any, np.ndarray]]) -> WrittenLayer:
    if weights is None or layer.weights is None:
        return WrittenLayer(None, None, None, None)
    *behind, operation = _chain_behind(weights)
    scale: np.ndarray | None = np.ones(1)
    for each in behind:
        if _type(each) == "Multiply":
            scale = _value(_sources(each)[1])
    first = [(add, value) for add, value in added if _reads(add, operation)]
    second = [(add, value) for add, value in added if any(_reads(add, each) for each, _ in first)]
    return WrittenLayer(
        weights=in_original_layout(weights.data, layer.weights.shape, FORMS[layer.op_type.name].layout),
        weight_scale=scale,
        bias=bias_in_file(
            layer,
            None,
            [value for _, value in (*first, *second)],
            [value for _, value in added],
        ),
        input_grid=_grid(_sources(operation)[0]),
    )


def _chain_behind(constant: Any) -> Iterator[Any]:
    """Yields the operations behind the integers of weights, up to the one that computes the layer."""
    operation = constant
    while operation is constant or _type(operation) in (*_MOVING, *_BRINGING_BACK):
        operation = next(iter(operation.output(0).get_target_inputs())).get_node()
        yield operation


def _grid(operation: Any) -> ActivationFactors | None:
    """Returns the grid of the quantizer behind which an operation stands; None if there is none."""
    while _type(operation) in _MOVING:
        operation = _sources(operation)[0]
    if _type(operation) != "FakeQuantize":
        return None
    lowest, highest = (float(_sources(operation)[index].data.ravel()[0]) for index in (3, 4))
    scale = (highest - lowest) / 255
    return ActivationFactors(scale, round(-lowest / scale) - 128)


def _value(operation: Any) -> np.ndarray | None:
    """Returns a constant, or dequantized constant integers; None if an operation yields no constant."""
    if _type(operation) == "Constant":
        return np.asarray(operation.data)
    if _type(operation) not in (*_MOVING, *_BRINGING_BACK):
        return None
    first, *others = (_value(source) for source in _sources(operation))
    if first is None or _type(operation) != "Multiply":
        return first
    return None if others[0] is None else first * others[0].astype(np.float64)


def _reads(operation: Any, other: Any) -> bool:
    """Compares names, as ``==`` makes an operation of two."""
    return other.get_friendly_name() in (each.get_friendly_name() for each in _sources(operation))


def _sources(operation: Any) -> list[Any]:
    return [operation.input_value(index).get_node() for index in range(operation.get_input_size())]


def _type(operation: Any) -> str:
    return str(operation.get_type_name())
