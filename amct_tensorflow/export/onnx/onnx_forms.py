"""The forms of the op types in ONNX."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# What the tensor with the integers of a layer's weights is called.
INT8_WEIGHTS = "{}/int8_weights"


def _filters(weights: np.ndarray) -> np.ndarray:
    """From [height, width, in, out] to [out, in, height, width]."""
    return weights.transpose(3, 2, 0, 1)


def _depthwise_filters(weights: np.ndarray) -> np.ndarray:
    """From [height, width, channels, multiplier] to [channels * multiplier, 1, height, width]."""
    return _filters(weights.reshape(*weights.shape[:2], 1, -1))


def _volume_filters(weights: np.ndarray) -> np.ndarray:
    """From [depth, height, width, in, out] to [out, in, depth, height, width]."""
    return weights.transpose(4, 3, 0, 1, 2)


def _matrix(weights: np.ndarray) -> np.ndarray:
    return weights


@dataclass(frozen=True)
class Form:
    """How ONNX has an op type.

    Attributes:
        op: its name there.
        layout: brings weights into its layout.
        channel_axis: the axis of the output channels in that layout.
    """

    op: str
    layout: Callable[[np.ndarray], np.ndarray]
    channel_axis: int


FORMS = {
    "Conv2D": Form("Conv", _filters, 0),
    "DepthwiseConv2dNative": Form("Conv", _depthwise_filters, 0),
    "Conv3D": Form("Conv", _volume_filters, 0),
    "Conv2DBackpropInput": Form("ConvTranspose", _filters, 1),
    "MatMul": Form("MatMul", _matrix, 1),
    "BatchMatMul": Form("MatMul", _matrix, 1),
    "BatchMatMulV2": Form("MatMul", _matrix, 1),
}
