"""How a recipe becomes a graph: as a program writes it, or as what the program's values are compared with."""

import numpy as np
import tensorflow as tf


class Program:
    """Float32, with the ops that programs use.

    Attributes:
        step: index of the step that is being written.
    """

    dtype = tf.float32

    def __init__(self):
        self.step = 0

    def constant(self, values):
        return tf.constant(values, self.dtype)

    def data(self, x):
        """Returns what a layer reads."""
        return x

    def weights(self, values, axis):
        """Returns the weights of a layer, whose outputs are counted by an axis."""
        del axis
        return self.constant(values)

    def product(self, x, y, **transposed):
        """Returns the product of two computed operands."""
        return tf.matmul(x, y, **transposed)

    def images(self, x, channels_first, compute):
        """Returns ``compute(images, data_format)``."""
        return compute(x, "NCHW" if channels_first else "NHWC")

    def grouped(self, convolve, x, filters, groups):
        """Returns a convolution whose channels are divided into groups."""
        del groups
        return convolve(x, filters)

    def batch_norm(self, x, scale, offset, mean, variance, epsilon, op, data_format):
        """Returns ``(x - mean) / sqrt(variance + epsilon) * scale + offset``, per channel."""
        scale, offset, mean, variance = map(self.constant, (scale, offset, mean, variance))
        return getattr(tf.raw_ops, op)(
            x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=False,
            data_format=data_format,
        )[0]  # fmt: skip


class Reference(Program):
    """The same values by other ops, for which TensorFlow has kernels everywhere, in float64 by default."""

    def __init__(self, dtype=tf.float64):
        super().__init__()
        self.dtype = dtype

    def images(self, x, channels_first, compute):
        if not channels_first:
            return compute(x, "NHWC")
        return tf.transpose(compute(tf.transpose(x, [0, 2, 3, 1]), "NHWC"), [0, 3, 1, 2])

    def grouped(self, convolve, x, filters, groups):
        parts = zip(tf.split(x, groups, -1), tf.split(filters, groups, -1), strict=True)
        return tf.concat([convolve(*part) for part in parts], -1)

    def batch_norm(self, x, scale, offset, mean, variance, epsilon, op, data_format):
        factor = scale / np.sqrt(variance + epsilon)
        return (x - self.constant(mean)) * self.constant(factor) + self.constant(offset)


class Naive(Reference):
    """What the simplest quantization makes of the model: every layer's input in the 8 bits that its extremes span.

    No quantization that is worth anything is much worse.
    """

    def __init__(self, quantized, per_tensor=(), *, symmetric=False, products=False, coarseness=1.0):
        """Takes which steps to quantize, which of them with one scale for all weights, and a factor of all scales.

        ``symmetric`` is said of the zero points of activations, ``products`` whether both operands of products are
        quantized, which never have one.
        """
        super().__init__()
        self._coarseness = coarseness
        self._quantized = frozenset(quantized)
        self._per_tensor = frozenset(per_tensor)
        self._symmetric = symmetric
        self._products = products

    def product(self, x, y, **transposed):
        if not self._products or self.step not in self._quantized:
            return super().product(x, y, **transposed)
        return super().product(*(self._rounded(each, symmetric=True) for each in (x, y)), **transposed)

    def data(self, x):
        return self._rounded(x, self._symmetric) if self.step in self._quantized else x

    def _rounded(self, x, symmetric):
        lowest, highest = tf.minimum(tf.reduce_min(x), 0), tf.maximum(tf.reduce_max(x), 0)
        reach = tf.maximum(-lowest, highest)
        step = tf.maximum(reach / 127 if symmetric else (highest - lowest) / 255, 1e-300) * self._coarseness
        return tf.clip_by_value(tf.round(x / step) * step, lowest, highest)

    def weights(self, values, axis):
        if self.step not in self._quantized:
            return self.constant(values)
        others = tuple(index for index in range(values.ndim) if index != axis % values.ndim)
        reach = np.abs(values).max(axis=None if self.step in self._per_tensor else others, keepdims=True)
        step = np.where(reach == 0, 1, reach / 127) * self._coarseness
        return self.constant(np.rint(values / step) * step)
