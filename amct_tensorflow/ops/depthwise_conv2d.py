"""DepthwiseConv2dNative: filters [height, width, channels, multiplier]; channel c gives outputs c * multiplier + m."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.ops.matrix_form import MatrixForm, Sample
from amct_tensorflow.ops.quantizable import Quantizable
from amct_tensorflow.ops.sliding import from_channels_last, pads, spatial, taps, to_channels_last, window_rows


def _reference(node: NodeDef, data: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    assert weights is not None
    seen = taps(node, to_channels_last(node, data), weights.shape[:2])
    total = np.asarray(sum(values[..., np.newaxis] * weights[position] for position, values in seen))
    return from_channels_last(node, total.reshape(*total.shape[:3], -1))


def _restriction(node: NodeDef) -> str | None:
    if max(spatial(node, "dilations")) > 1 and max(spatial(node, "strides")) > 1:
        return "it has both strides and dilations, which TensorFlow advises against"
    return None


def _products(_node: NodeDef, weights: Sequence[int]) -> Fraction:
    return Fraction(math.prod(weights[:2]))


def _rows(node: NodeDef, data: np.ndarray, shape: tuple[int, ...], sample: Sample) -> np.ndarray:
    return window_rows(node, data, shape[:2], sample).transpose(2, 1, 0)


def _matrices(weights: np.ndarray, _groups: int) -> np.ndarray:
    return weights.reshape(-1, *weights.shape[2:]).transpose(1, 0, 2)


def _weights(matrices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return matrices.transpose(1, 0, 2).reshape(shape)


DEPTHWISE_CONV2D = Quantizable(
    name="DepthwiseConv2dNative",
    reference=_reference,
    weight_input=1,
    weight_rank=4,
    input_axis=2,
    channel_axes=(2, 3),
    restriction=_restriction,
    pads=pads,
    products=_products,
    matrix_form=MatrixForm(_rows, _matrices, _weights),
)
