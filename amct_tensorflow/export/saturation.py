"""Finds out whether a processor adds products of bytes in pairs of 16 bits, which saturate.

x86 processors without VNNI have one instruction for products of bytes (VPMADDUBSW): it multiplies unsigned bytes by
signed ones, and adds two products in 16 bits. Two products of 255 * 127 are 64,770, which saturates at 32,767. ONNX
Runtime and OpenVINO use it all the same. A pair of weights whose magnitudes sum up to 128 at most stays exact for any
input: 255 * 128 = 32,640.

The runtime itself is tested, with a product of known value. Names of processors would not tell: a runtime may choose
other kernels, and a virtual machine may hide features.
"""

from collections.abc import Callable, Iterable

import numpy as np

from amct_tensorflow.export.libraries import library
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer

# Weights in 7 bits: no pair of them saturates.
SEVEN_BITS = (-64, 63)
_SAFE_SUM = 128
_INPUTS = 8
_BYTE, _WEIGHT = 255, 127
_EXACT = _INPUTS * _BYTE * _WEIGHT


def can_saturate(layers: Iterable[QuantizedLayer]) -> bool:
    """Tells whether a pair of weights, or of a second operand, may be so large that its products exceed 16 bits."""
    return any(
        layer.is_product if layer.weights is None else _largest_pair(layer.weights) > _SAFE_SUM for layer in layers
    )


def _largest_pair(weights: np.ndarray) -> int:
    """Returns the greatest sum of two magnitudes; which weights make a pair is up to the kernel."""
    magnitudes = np.abs(weights.astype(np.int16)).ravel()
    return int(np.partition(magnitudes, -2)[-2:].sum()) if magnitudes.size > 1 else 0


def saturates(run: Callable[[bytes, dict[str, np.ndarray]], np.ndarray]) -> bool:
    """Tells whether a runtime, with its defaults on this processor, adds products of bytes in 16 bits.

    Args:
        run: runs an ONNX model (serialized) on the values of its inputs, and returns its only output.
    """
    found = run(_product(), {"x": np.full((1, _INPUTS), _BYTE, np.float32)})
    # Runtimes may round the result, to bfloat16 for example; what saturates loses half of it.
    return bool(np.any(found < 0.9 * _EXACT))


def _product() -> bytes:
    """Returns an ONNX model: a product of a row of bytes and a matrix, in QuantizeLinear and DequantizeLinear."""
    onnx = library("onnx", "onnx")
    helper, from_array = onnx.helper, onnx.numpy_helper.from_array
    constants = {
        "step": np.array(1, np.float32),
        "zero": np.array(0, np.uint8),
        "weights": np.full((_INPUTS, 4), _WEIGHT, np.int8),
        "weight_steps": np.ones(4, np.float32),
        "weight_zeros": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["values"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_steps", "weight_zeros"], ["matrix"], axis=1),
        helper.make_node("MatMul", ["values", "matrix"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, _INPUTS]), ("y", [1, 4]))
    ]
    initializers = [from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
