"""Reads the layers of a TensorFlow Lite file from its bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from amct_tensorflow.export.tflite.tflite_editor import TfliteEditor
from amct_tensorflow.export.tflite.tflite_forms import DENSE, FORMS, INT8_WEIGHTS
from amct_tensorflow.export.written import WrittenLayer, in_original_layout
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, INT16_BITS, ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer


def read_tflite_layers(content: bytes, layers: Mapping[str, QuantizedLayer]) -> dict[str, WrittenLayer]:
    """Returns the layers whose weights a file has in int8, and the products of two computed operands.

    Args:
        content: the flatbuffer.
        layers: the layers by name, for the shapes of their weights.
    """
    editor = TfliteEditor(content)
    sources = {
        op_type: {
            int(operator.outputs[0]): int(operator.inputs[0])
            for operator in editor.operators
            if editor.op_type(operator) == op_type
        }
        for op_type in ("DEQUANTIZE", "QUANTIZE")
    }
    brought_back = sources["DEQUANTIZE"]
    by_weights = {}
    products: dict[str, WrittenLayer] = {}
    for operator in editor.operators:
        if editor.op_type(operator) == "BATCH_MATMUL":
            read = _read_product(editor, operator, brought_back)
            products.update(dict.fromkeys(editor.name(operator.outputs[0]).removesuffix("/int8").split(";"), read))
        if len(operator.inputs) > 1:
            index = int(operator.inputs[1])
            by_weights[editor.name(brought_back.get(index, index))] = operator
    found = {
        name: _read(editor, by_weights[INT8_WEIGHTS.format(name)], layer, brought_back, sources["QUANTIZE"])
        for name, layer in layers.items()
        if INT8_WEIGHTS.format(name) in by_weights
    }
    return found | {name: products[name] for name in layers if name in products}


def _read_product(editor: TfliteEditor, operator: Any, brought_back: Mapping[int, int]) -> WrittenLayer:
    """Returns a product of two operands; one that the file has in float alone has no grid."""
    tensors = [brought_back.get(int(index), int(index)) for index in operator.inputs[:2]]
    told = [editor.tensor(tensor).quantization for tensor in tensors]
    first, second = (
        None if parameters is None or parameters.scale is None else editor.grid(tensor)
        for tensor, parameters in zip(tensors, told, strict=True)
    )
    return WrittenLayer(None, None, None, first, second)


def _read(
    editor: TfliteEditor,
    operator: Any,
    layer: QuantizedLayer,
    brought_back: Mapping[int, int],
    quantized: Mapping[int, int],
) -> WrittenLayer:
    assert layer.weights is not None
    form = FORMS[layer.op_type.name]
    data, weights = (int(operator.inputs[index]) for index in (form.data, 1))
    data, weights = brought_back.get(data, data), brought_back.get(weights, weights)
    narrow = brought_back.get(quantized.get(data, -1), data)
    if _takes_all(editor.grid(data), editor.grid(narrow)):
        data = narrow
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


def _takes_all(grid: ActivationFactors, narrow: ActivationFactors) -> bool:
    """Tells whether a grid of 16 bits has every value of one of 8 bits, in the same steps."""
    return (grid.num_bits, narrow.num_bits, grid.scale) == (INT16_BITS, INT8_BITS, narrow.scale)


def _in_float(editor: TfliteEditor, index: int) -> np.ndarray | None:
    """Returns a bias, dequantized if the file has integers."""
    values, parameters = editor.values(index), editor.tensor(index).quantization
    if values is None or parameters is None or parameters.scale is None:
        return values
    return np.asarray(values * np.asarray(parameters.scale, np.float64))
