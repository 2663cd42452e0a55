"""Reads the layers of a TensorFlow Lite file from its bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from amct_tensorflow.export.tflite.tflite_editor import TfliteEditor
from amct_tensorflow.export.tflite.tflite_forms import DENSE, FORMS, INT8_WEIGHTS
from amct_tensorflow.export.written import WrittenLayer, in_original_layout
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer


def read_tflite_layers(content: bytes, layers: Mapping[str, QuantizedLayer]) -> dict[str, WrittenLayer]:
    """Returns the layers whose weights a file has in int8.

    Args:
        content: the flatbuffer.
        layers: the layers by name, for the shapes of their weights.
    """
    editor = TfliteEditor(content)
    brought_back = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in editor.operators
        if editor.op_type(operator) == "DEQUANTIZE"
    }
    by_weights = {}
    for operator in editor.operators:
        if len(operator.inputs) > 1:
            index = int(operator.inputs[1])
            by_weights[editor.name(brought_back.get(index, index))] = operator
    return {
        name: _read(editor, by_weights[INT8_WEIGHTS.format(name)], layer, brought_back)
        for name, layer in layers.items()
        if INT8_WEIGHTS.format(name) in by_weights
    }


def _read(editor: TfliteEditor, operator: Any, layer: QuantizedLayer, brought_back: Mapping[int, int]) -> WrittenLayer:
    assert layer.weights is not None
    form = FORMS[layer.op_type.name]
    data, weights = (int(operator.inputs[index]) for index in (form.data, 1))
    data, weights = brought_back.get(data, data), brought_back.get(weights, weights)
    bias = int(operator.inputs[form.bias]) if len(operator.inputs) > form.bias else -1
    values = editor.values(weights)
    if values is not None and form is DENSE:
        values = _of_inputs(values.reshape(editor.tensor(weights).shape), layer.weights.shape[0])
    return WrittenLayer(
        weights=None if values is None else in_original_layout(values, layer.weights.shape, form.layout),
        weight_scale=np.asarray(editor.tensor(weights).quantization.scale),
        bias=None if bias == -1 else _in_float(editor, bias),
        input_grid=editor.grid(data),
    )


def _of_inputs(rows: np.ndarray, inputs: int) -> np.ndarray:
    """Returns the weights of so many inputs; what follows multiplies the ends of the grid, and has to be zero."""
    return rows if rows[:, inputs:].any() else rows[:, :inputs]


def _in_float(editor: TfliteEditor, index: int) -> np.ndarray | None:
    """Returns a bias, dequantized if the file has integers."""
    values, parameters = editor.values(index), editor.tensor(index).quantization
    if values is None or parameters is None or parameters.scale is None:
        return values
    return np.asarray(values * np.asarray(parameters.scale, np.float64))
