"""Reads the layers of an ONNX file from its bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from amct_tensorflow.export.libraries import library
from amct_tensorflow.export.onnx.onnx_editor import OnnxEditor
from amct_tensorflow.export.onnx.onnx_forms import FORMS, INT8_WEIGHTS
from amct_tensorflow.export.written import WrittenLayer, bias_in_file, in_original_layout
from amct_tensorflow.quantize.algorithms.activation_factors import INT16_BITS, ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer


def read_onnx_layers(content: bytes, layers: Mapping[str, QuantizedLayer]) -> dict[str, WrittenLayer]:
    """Returns the layers with weights, and the products of two computed operands.

    Args:
        content: the serialized ModelProto.
        layers: by name, those that the file should have in int8.
    """
    reader = _Reader(library("onnx", "onnx").load_from_string(content))
    return {
        name: reader.read(layer) if layer.weights is not None else reader.read_product(name)
        for name, layer in layers.items()
        if layer.weights is not None or layer.is_product
    }


class _Reader:
    def __init__(self, model: Any) -> None:
        self._file = OnnxEditor(model)
        self._makers = {name: node for node in self._file.nodes for name in node.output}
        self._added = [
            (node, value)
            for node in self._file.nodes
            if node.op_type == "Add"
            for value in (self._value(tensor) for tensor in node.input)
            if value is not None
        ]

    def read(self, layer: QuantizedLayer) -> WrittenLayer:
        """Returns a layer as the file holds it."""
        name = INT8_WEIGHTS.format(layer.name)
        values, node = self._file.constant(name), self._layer(name)
        if values is None or node is None:
            return WrittenLayer(None, None, None, None)
        assert layer.weights is not None
        (dequantizer,) = self._file.readers(name)
        return WrittenLayer(
            weights=in_original_layout(values, layer.weights.shape, FORMS[layer.op_type.name].layout),
            weight_scale=self._file.constant(dequantizer.input[1]),
            bias=bias_in_file(
                layer,
                self._value(node.input[2]) if len(node.input) > 2 else None,
                [value for add, value in self._added if node.output[0] in add.input],
                [value for _, value in self._added],
            ),
            input_grid=self._grid(node.input[0]),
        )

    def read_product(self, name: str) -> WrittenLayer:
        """Returns a product of two computed operands, which is known by its output, as the file holds it."""
        node = self._makers.get(f"{name}:0")
        first, second = (None, None) if node is None else map(self._grid, node.input[:2])
        return WrittenLayer(None, None, None, first, second)

    def _layer(self, weights: str) -> Any | None:
        """Returns the node that reads the dequantized weights."""
        (node,) = self._file.readers(weights) or (None,)
        readers = [] if node is None else self._file.readers(node.output[0])
        return readers[0] if len(readers) == 1 else None

    def _value(self, tensor: str) -> np.ndarray | None:
        """Returns a constant, or dequantized constant integers."""
        maker = self._makers.get(tensor)
        if maker is None or maker.op_type != "DequantizeLinear":
            return self._file.constant(tensor)
        integers, scale = (self._file.constant(name) for name in maker.input[:2])
        return None if integers is None or scale is None else integers * scale.astype(np.float64)

    def _grid(self, tensor: str) -> ActivationFactors | None:
        maker = self._makers.get(tensor)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        scale, zero_point = (self._file.constant(name) for name in maker.input[1:])
        assert scale is not None and zero_point is not None
        if zero_point.dtype == np.int16:
            return ActivationFactors(float(scale), int(zero_point), INT16_BITS)
        return ActivationFactors(float(scale), int(zero_point) - 128)
