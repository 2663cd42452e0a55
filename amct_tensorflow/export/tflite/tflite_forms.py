"""The forms of the op types in TensorFlow Lite."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# What the tensor with the integers of a layer's weights is called.
INT8_WEIGHTS = "{}/int8_weights"


def _filters(weights: np.ndarray) -> np.ndarray:
    """From [height, width, in, out] to [out, height, width, in]."""
    return weights.transpose(3, 0, 1, 2)


def _depthwise_filters(weights: np.ndarray) -> np.ndarray:
    """From [height, width, channels, multiplier] to [1, height, width, channels * multiplier]."""
    return weights.reshape(1, *weights.shape[:2], -1)


def _transposed_filters(weights: np.ndarray) -> np.ndarray:
    """From [height, width, out, in] to [out, height, width, in]."""
    return weights.transpose(2, 0, 1, 3)


def _rows(weights: np.ndarray) -> np.ndarray:
    """From [in, out] to [out, in]."""
    return weights.T


@dataclass(frozen=True)
class Form:
    """How TensorFlow Lite has an op type.

    Attributes:
        op: its name there.
        version: the least that takes int8.
        wide_version: the least that takes int16 beside weights of int8.
        layout: brings weights into its layout.
        channel_axis: the axis of the output channels in that layout.
        data: which input carries the activations; weights are input 1.
        bias: which carries the bias.
        per_channel: whether a scale for all weights must be written once per channel.
    """

    op: str
    version: int
    wide_version: int
    layout: Callable[[np.ndarray], np.ndarray]
    channel_axis: int
    data: int = 0
    bias: int = 2
    per_channel: bool = True


DENSE = Form("FULLY_CONNECTED", 4, 7, _rows, 0, per_channel=False)
FORMS = {
    "Conv2D": Form("CONV_2D", 3, 4, _filters, 0),
    "DepthwiseConv2dNative": Form("DEPTHWISE_CONV_2D", 3, 5, _depthwise_filters, 3),
    "Conv2DBackpropInput": Form("TRANSPOSE_CONV", 3, 4, _transposed_filters, 0, data=2, bias=3),
    "MatMul": DENSE,
    "BatchMatMul": DENSE,
    "BatchMatMulV2": DENSE,
}
