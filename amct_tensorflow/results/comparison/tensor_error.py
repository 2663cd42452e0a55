"""Sums up the error of a tensor over batches."""

import math

import numpy as np


class TensorError:
    """Sums over the expected and the actual values of a tensor."""

    def __init__(self) -> None:
        self._signal = self._noise = self._other = self._product = self._largest = 0.0

    def add(self, expected: np.ndarray, actual: np.ndarray) -> None:
        """Adds the values of a batch.

        Args:
            expected: the values of the float model, numbers or bools.
            actual: those of the quantized one; another shape counts as an error without limit.
        """
        if expected.shape != actual.shape:
            self._noise = self._largest = math.inf
            return
        one, other = (np.ravel(values).astype(np.float64) for values in (expected, actual))
        difference = one - other
        self._signal += float(one @ one)
        self._other += float(other @ other)
        self._product += float(one @ other)
        self._noise += float(difference @ difference)
        self._largest = max(self._largest, float(np.max(np.abs(difference), initial=0.0)))

    @property
    def sqnr(self) -> float:
        """Signal-to-quantization-noise ratio in dB; infinite without any noise."""
        if self._noise == 0:
            return math.inf
        ratio = self._signal / self._noise
        return 10 * math.log10(ratio) if ratio > 0 else -math.inf if ratio == 0 else math.nan

    @property
    def cosine(self) -> float:
        """Cosine similarity; 1 if both are all zero, 0 if one of them is."""
        if self._signal == 0 or self._other == 0:
            return float(self._signal == self._other)
        return self._product / math.sqrt(self._signal * self._other)

    @property
    def largest(self) -> float:
        """The largest absolute difference."""
        return self._largest
