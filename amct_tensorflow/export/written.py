"""Compares the layers in a written file with those of its plan.

A converter may move, fold or drop nodes of the float reference, and an edit may miss its node. So each format has a
reader that parses the finished bytes, from their names alone, and what it finds is compared here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amct_tensorflow.errors import ExportError
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer

# A scale, or a bias that stands in the file as floats, may have been rounded to float32 once more on its way.
_TOLERANCE = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class WrittenLayer:
    """A layer as a file holds it.

    Attributes:
        weights: int8, in the layout of the op type; None for an op without.
        weight_scale: their step, float [Cout] or [1]; None for an op without weights.
        bias: the bias of each output channel, in float: the integers times their scale, or the floats in the file; None
            without a bias.
        input_grid: scale and offset of what the layer reads; None if the file does not quantize it.
        second_grid: those of the second operand of a product of two computed ones; likewise.
    """

    weights: np.ndarray | None
    weight_scale: np.ndarray | None
    bias: np.ndarray | None
    input_grid: ActivationFactors | None
    second_grid: ActivationFactors | None = None


def check_written(layers: Mapping[str, QuantizedLayer], written: Mapping[str, WrittenLayer], tool: str) -> None:
    """Checks that a file holds the layers of its plan.

    Args:
        layers: by name, at least those that were found in the file.
        written: what was found.
        tool: the format, as messages call it.

    Raises:
        ExportError: the file holds something else; the message names the layer, and what differs.
    """
    for name, found in written.items():
        for what in _differences(layers[name], found):
            raise ExportError(
                f"The {what} of layer {name!r} in the {tool} file are not those of the quantized model: a converter "
                "has changed them. Put the layer into skip_layers and quantize again, or choose another format."
            )


def in_original_layout(
    values: np.ndarray, shape: Sequence[int], layout: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns weights as the op type has them.

    Args:
        values: the weights in the order in which a file has them.
        shape: the shape that they have in the op type.
        layout: what brought them into that order; it only moves values.
    """
    original = np.empty(int(np.prod(shape)), values.dtype)
    original[layout(np.arange(original.size).reshape(shape)).ravel()] = values.ravel()
    return original.reshape(shape)


def bias_in_file(
    layer: QuantizedLayer, own: np.ndarray | None, behind: Sequence[np.ndarray], anywhere: Sequence[np.ndarray]
) -> np.ndarray | None:
    """Returns the bias of a layer in a file; None if there is none.

    Args:
        layer: the layer.
        own: the bias input of its operator.
        behind: the constants that are added to what it yields.
        anywhere: those that are added to anything; a bias may stand behind ops that move what the layer yields.
    """
    expected = np.zeros(0) if layer.bias is None else layer.float_bias
    parts = [*([] if own is None else [own]), *(each for each in behind if _is(each, expected))]
    parts = parts or [each for each in anywhere if _is(each, expected)][:1]
    return np.asarray(sum(np.ravel(each) for each in parts)) if parts else None


def _is(found: np.ndarray, bias: np.ndarray) -> bool:
    return found.size == bias.size and _alike(found, bias)


def _differences(layer: QuantizedLayer, found: WrittenLayer) -> list[str]:
    """Returns the differences of a layer."""
    differs = []
    if layer.weights is not None:
        if found.weights is None or not np.array_equal(found.weights, layer.weights):
            differs.append("weights")
        if found.weight_scale is None or not _alike(found.weight_scale, layer.weight_scale):
            differs.append("scales of the weights")
        bias = np.zeros(1) if found.bias is None else found.bias
        if not _alike(bias, np.zeros(1) if layer.bias is None else layer.float_bias):
            differs.append("biases")
    grids = (found.input_grid, found.second_grid)
    for grid, quantizer in zip(grids, layer.quantizers, strict=False):
        if grid is not None and not _same_grid(grid, quantizer.grid):
            differs.append("factors of the input")
    return differs


def _alike(found: np.ndarray, expected: np.ndarray) -> bool:
    """Compares values per channel, or one for all of them."""
    if found.size != expected.size and 1 not in (found.size, expected.size):
        return False
    return bool(np.allclose(np.ravel(found), np.ravel(expected), rtol=_TOLERANCE, atol=0))


def _same_grid(found: ActivationFactors, expected: ActivationFactors) -> bool:
    is_alike = (found.offset, found.num_bits) == (expected.offset, expected.num_bits)
    return is_alike and bool(np.isclose(found.scale, expected.scale, rtol=_TOLERANCE, atol=0))
