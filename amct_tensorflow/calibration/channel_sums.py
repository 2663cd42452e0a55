"""What quantization takes from a layer's output, summed up so that it does not matter how the images come.

From these sums follow the mean difference per output channel, which is what local bias correction adds to the bias, and
the cosine similarity of the float output to the quantized one, *with that one correction applied to all of it*. A
correction measured on each part by itself would hide the error: of a part with one position per channel, all of it.

With ``a`` the float output, ``b`` the quantized one, ``d = a - b``, and ``m`` the mean of ``d`` per channel, the
corrected output is ``b + m``, and

    sum((d - m) ** 2)   = sum(d ** 2) - sum(n * m ** 2)
    sum(a * (d - m))    = sum(a * d) - sum(m * sum(a))
    sum((b + m) ** 2)   = sum(b ** 2) + sum(2 * m * sum(b)) + sum(n * m ** 2)

The similarity is close to 1, and what matters is how far below; it is computed from the sine, which keeps all digits.
"""

import math

import numpy as np

# float32 products are summed in blocks, and the blocks in float64: as fast as BLAS, exact to about 1e-7.
_BLOCK = 4096


class ChannelSums:
    """Sums over the positions of a layer's output."""

    def __init__(self, channels: int, *, correction_only: bool = False) -> None:
        """Starts at zero; ``correction_only`` leaves out what the similarity follows from, most of the work."""
        self._correction_only = correction_only
        self._weight = 0.0
        self._original = np.zeros(channels)
        self._difference = np.zeros(channels)
        self._original_square = self._quantized_square = self._product = self._square = 0.0

    def add(self, original: np.ndarray, quantized: np.ndarray, weight: float) -> None:
        """Adds the outputs of some images.

        Args:
            original: float output, float32 with the channels last.
            quantized: quantized output, same shape.
            weight: how many images each of these stands for.
        """
        channels = len(self._original)
        original, quantized = original.reshape(-1, channels), quantized.reshape(-1, channels)
        difference = original - quantized
        # A matrix product sums columns faster than sum() does.
        ones = np.full(len(original), weight, np.float32)
        self._weight += weight * len(original)
        self._difference += ones @ difference
        if self._correction_only:
            return
        self._original += ones @ original
        self._original_square += weight * dot(original, original)
        self._quantized_square += weight * dot(quantized, quantized)
        self._product += weight * dot(original, difference)
        self._square += weight * dot(difference, difference)

    @property
    def correction(self) -> np.ndarray:
        """Mean of the float output less the quantized one, float64 [Cout]."""
        return self._difference / max(self._weight, 1.0)

    def similarity(self, *, corrected: bool) -> float:
        """Returns ``0.5 + 0.5 * cos`` of the two outputs (spec section 6.2).

        Args:
            corrected: whether the quantized output is the one with the correction added.

        Returns:
            A value in [0, 1]; 1 if the float output is all zero, 0 if only the quantized one is.
        """
        shift = self.correction if corrected else np.zeros_like(self._difference)
        shift_square = self._weight * float(np.sum(shift**2))
        original_square = self._original_square
        product = self._product - float(np.sum(shift * self._original))
        square = max(self._square - shift_square, 0.0) if corrected else self._square
        shifted = 2 * float(np.sum(shift * (self._original - self._difference)))
        quantized_square = max(self._quantized_square + shifted + shift_square, 0.0)
        if original_square == 0:
            return 1.0
        if quantized_square == 0:
            return 0.0
        both = original_square * quantized_square
        cosine = (original_square - product) / math.sqrt(both)
        if cosine <= 0:
            return 0.5 + 0.5 * max(cosine, -1.0)
        sine_square = max(original_square * square - product**2, 0.0) / both
        return 1 - 0.5 * sine_square / (1 + math.sqrt(max(1 - sine_square, 0.0)))


def dot(left: np.ndarray, right: np.ndarray) -> float:
    """Returns the sum of the products of two float32 arrays of the same shape."""
    left, right = np.ravel(left), np.ravel(right)
    whole = left.size - left.size % _BLOCK
    blocks = np.matmul(left[:whole].reshape(-1, 1, _BLOCK), right[:whole].reshape(-1, _BLOCK, 1))
    rest = np.dot(left[whole:].astype(np.float64), right[whole:].astype(np.float64))
    return float(np.sum(blocks, dtype=np.float64) + rest)
