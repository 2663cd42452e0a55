"""What quantization takes from a layer's output, summed up so that it does not matter how the images come.

From these sums follow, per output channel, the gain and the shift that bring the quantized output closest to the float
one, and the cosine similarity of the two outputs *with that one correction applied to all of it*. A correction measured
on each part by itself would hide the error: of a part with one position per channel, all of it.

With ``a`` the float output, ``b`` the quantized one and ``d = a - b``, the corrected output ``g * b + m`` misses ``a``
by ``r = d - (g - 1) * b - m``. Everything is computed from sums of ``a``, ``d`` and their products, in which the digits
of a small difference are kept.
"""

import math
from typing import NamedTuple

import numpy as np

# A channel that hardly varies tells nothing of a gain, and no sound layer asks for a large one.
_LEAST_VARIANCE = 1e-6
_LARGEST_EXCESS = 0.25


class OutputCorrection(NamedTuple):
    """What brings a quantized output closer to the float one: ``gain * b + shift`` per channel, float64 [Cout]."""

    gain: np.ndarray
    shift: np.ndarray


class ChannelSums:
    """Sums over the positions of a layer's output, per channel."""

    def __init__(self, channels: int) -> None:
        """Starts at zero."""
        self._count = 0.0
        self._a, self._d, self._aa, self._ad, self._dd = np.zeros((5, channels))

    def add(self, original: np.ndarray, quantized: np.ndarray, weight: float) -> None:
        """Adds the outputs of some images.

        Args:
            original: float output, float32 with the channels last.
            quantized: quantized output, same shape.
            weight: how many images each of these stands for.
        """
        a = original.reshape(-1, len(self._a)).astype(np.float64)
        d = a - quantized.reshape(a.shape)
        ones = np.full(len(a), weight)  # a matrix product sums columns faster than sum() does
        self._count += weight * len(a)
        self._a += ones @ a
        self._d += ones @ d
        self._aa += ones @ (a * a)
        self._ad += ones @ (a * d)
        self._dd += ones @ (d * d)

    def correction(self, *, gain: bool, shift: bool) -> OutputCorrection:
        """Returns the correction with the least squared error, of the parts asked for."""
        count = max(self._count, 1.0)
        a, d = (self._a / count, self._d / count) if shift else (np.zeros_like(self._a), np.zeros_like(self._d))
        b = a - d
        excess = np.zeros_like(self._a)  # of the gain over 1
        if gain:
            # Moments about the mean if a shift takes that, else about 0.
            variance = (self._aa - 2 * self._ad + self._dd) / count - b * b
            covariance = (self._ad - self._dd) / count - b * d
            enough = variance > _LEAST_VARIANCE * (self._aa / count)
            excess = np.where(enough, covariance / np.where(enough, variance, 1.0), 0.0)
            excess = np.where(np.abs(excess) <= _LARGEST_EXCESS, excess, 0.0)
        return OutputCorrection(1 + excess, d - excess * b)

    def similarity(self, correction: OutputCorrection) -> float:
        """Returns ``0.5 + 0.5 * cos`` of the two outputs, the quantized one corrected (spec section 6.2).

        Returns:
            A value in [0, 1]; 1 if the float output is all zero, 0 if only the quantized one is.
        """
        excess, shift = correction.gain - 1, correction.shift
        b, ab, bd = self._a - self._d, self._aa - self._ad, self._ad - self._dd
        bb = ab - bd
        square = float(np.sum(self._aa))
        # Sums of a * r and of r * r.
        product = float(np.sum(self._ad - excess * ab - shift * self._a))
        rest = self._dd + excess**2 * bb + shift**2 * self._count
        rest += 2 * (excess * shift * b - excess * bd - shift * self._d)
        error = max(float(np.sum(rest)), 0.0)
        other = max(square - 2 * product + error, 0.0)
        if square == 0:
            return 1.0
        if other == 0:
            return 0.0
        cosine = (square - product) / math.sqrt(square * other)
        if cosine <= 0:
            return 0.5 + 0.5 * max(cosine, -1.0)
        sine_square = max(square * error - product**2, 0.0) / (square * other)
        return 1 - 0.5 * sine_square / (1 + math.sqrt(max(1 - sine_square, 0.0)))
