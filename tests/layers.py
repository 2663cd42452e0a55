"""A layer of every op type that can be quantized; tests of all of them go through these rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from graphs import normal


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes:
        lengths: those of its data, but for the number of channels; None is that of images.
        weights: returns the shape of its weights from the number of channels; None for a layer without.
        compute: makes it of data and weights.
        channels: how many its data has.
    """

    lengths: tuple[int | None, ...]
    weights: Callable[[int], tuple[int, ...]] | None
    compute: Callable[[tf.Tensor, Any], tf.Tensor]
    channels: int = 6

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (*self.lengths, self.channels)

    def __call__(self, x: tf.Tensor, given_as: Callable[[np.ndarray], Any] = lambda weights: weights) -> tf.Tensor:
        """Puts the layer behind a tensor, its weights as a function gives them."""
        weights = None if self.weights is None else given_as(normal(self.weights(int(x.shape[-1])), 1))
        return self.compute(x, weights)


def _transposed(x, weights):
    return tf.nn.conv2d_transpose(x, weights, tf.stack([tf.shape(x)[0], 16, 18, 5]), 2, "SAME")


IMAGE, VOLUME, ROW, SEQUENCE = (None, 8, 9), (None, 4, 6, 5), (None,), (None, 7)
LAYERS = {
    "Conv2D": Layer(IMAGE, lambda c: (3, 3, c, 5), lambda x, w: tf.nn.conv2d(x, w, 2, "SAME")),
    "DepthwiseConv2dNative": Layer(
        IMAGE, lambda c: (3, 3, c, 2), lambda x, w: tf.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "SAME")
    ),
    "MatMul": Layer(ROW, lambda c: (c, 5), tf.matmul, channels=20),
    "AvgPool": Layer(IMAGE, None, lambda x, _: tf.nn.avg_pool2d(x, 3, 2, "VALID")),
    "Conv2DBackpropInput": Layer(IMAGE, lambda c: (3, 3, 5, c), _transposed),
    "Conv3D": Layer(VOLUME, lambda c: (2, 3, 3, c, 5), lambda x, w: tf.nn.conv3d(x, w, [1] * 5, "SAME"), channels=4),
    "BatchMatMul": Layer(ROW, lambda c: (c, 5), lambda x, w: tf.raw_ops.BatchMatMul(x=x, y=w), channels=20),
    "BatchMatMulV2": Layer(SEQUENCE, lambda c: (c, 5), lambda x, w: tf.raw_ops.BatchMatMulV2(x=x, y=w), channels=20),
}

# Products of two operands that are computed, as in attention, by what they are called; see ``calibrate_and_save``.
PRODUCTS = {
    "BatchMatMul of two": Layer(SEQUENCE, None, lambda x, _: tf.raw_ops.BatchMatMul(x=x, y=tf.tanh(x), adj_y=True)),
    "BatchMatMulV2 of two": Layer(SEQUENCE, None, lambda x, _: tf.matmul(tf.tanh(x), x, transpose_a=True)),
    "MatMul of two": Layer(ROW, None, lambda x, _: tf.matmul(x, tf.tanh(x), transpose_a=True)),
    "Einsum of two": Layer(SEQUENCE, None, lambda x, _: tf.einsum("abc,adc->abd", x, tf.tanh(x))),
}
PRODUCTS_TOO = "quantize_products: true"
