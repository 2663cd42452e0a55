"""The distribution of a layer's input: exact values while they are few, a histogram of many.

The histogram's grid is a power of two: ``BINS`` bins over ``[-2**e, 2**e]`` with the smallest ``e`` that covers what
was seen. When a later batch needs a larger ``e``, neighbouring bins are merged; the result is the histogram on the
larger grid. So it does not depend on the split into batches, and memory is bounded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE

BINS = 1 << 16
# Up to this many values are kept as they are, so that the search on small layers is exact.
EXACT_LIMIT = 1 << 16
# A batch contributes at most about this many of a tensor's values to the histogram. Minimum and maximum are always
# exact; the error of a range is a mean over values, to which so many samples give three digits.
SAMPLE_LIMIT = 1 << 18
# No grid is finer than the smallest scale; the factor that takes values to the grid is a float32 then, too.
_SMALLEST_EXPONENT = round(math.log2(SMALLEST_SCALE * BINS / 2))


def grid_exponent(lowest: float, highest: float) -> int:
    """Returns the smallest ``e`` with ``max(|lowest|, |highest|) <= 2**e``, not both of which are 0."""
    bound = max(abs(lowest), abs(highest))
    mantissa, exponent = math.frexp(bound)
    return exponent - 1 if mantissa == 0.5 else exponent


@dataclass(frozen=True, eq=False)
class Distribution:
    """The observed values of a tensor.

    Attributes:
        values: distinct or repeated values in ascending order, float64.
        counts: how often each was seen, float64.
        lowest: exact minimum.
        highest: exact maximum.
        half_width: how far an observed value may lie from its entry in ``values``; 0 if values are exact.
    """

    values: np.ndarray
    counts: np.ndarray
    lowest: float
    highest: float
    half_width: float

    @property
    def total(self) -> int:
        """Number of values observed."""
        return int(self.counts.sum())

    @cached_property
    def sums(self) -> np.ndarray:
        """The number, sum and sum of squares of what is before each entry, float64 [3, entries + 1]."""
        sums = np.zeros((3, self.values.size + 1))
        np.cumsum(self.counts, out=sums[0, 1:])
        np.cumsum(self.counts * self.values, out=sums[1, 1:])
        np.cumsum(self.counts * self.values * self.values, out=sums[2, 1:])
        return sums

    def histogram(self, bins: int) -> np.ndarray:
        """Returns the number of values in each of ``bins`` equal parts of ``[lowest, highest]``, float64 [bins]."""
        if self.lowest == self.highest:  # a constant, which NumPy would put into the middle of a range of its own
            return np.append(np.zeros(bins - 1), self.counts.sum())
        found, _ = np.histogram(self.values, bins, (self.lowest, self.highest), weights=self.counts)
        return np.asarray(found, np.float64)

    def kth_largest(self, k: int) -> float:
        """Returns the k-th largest value, exactly if ``k`` is 1 or values are exact, else to within one bin."""
        if k <= 1:
            return self.highest
        index = np.searchsorted(np.cumsum(self.counts[::-1]), k)
        return min(float(self.values[::-1][index]) + self.half_width, self.highest)

    def kth_smallest(self, k: int) -> float:
        """Returns the k-th smallest value, as precisely as ``kth_largest``."""
        if k <= 1:
            return self.lowest
        index = np.searchsorted(np.cumsum(self.counts), k)
        return max(float(self.values[index]) - self.half_width, self.lowest)


class Observation:
    """Accumulates the values of one tensor over the batches of a calibration."""

    def __init__(self) -> None:
        self._lowest = math.inf
        self._highest = -math.inf
        self._exact: list[np.ndarray] | None = []
        self._total = 0
        self._exponent = 0
        self._counts = np.zeros(0, np.int64)

    def add(self, batch: np.ndarray) -> bool:
        """Adds a batch; returns False, and forgets it, if it holds NaN or Inf."""
        lowest, highest = float(batch.min()), float(batch.max())  # both propagate NaN
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            return False
        self._lowest = min(self._lowest, lowest)
        self._highest = max(self._highest, highest)
        stride = _sampling_stride(batch.shape)
        exponent = max(grid_exponent(lowest, highest), _SMALLEST_EXPONENT) if lowest or highest else _SMALLEST_EXPONENT
        self._merge(_histogram(batch.ravel()[::stride], exponent) * stride, exponent)
        self._total += batch.size
        if self._exact is not None:
            self._exact = [*self._exact, batch.ravel().copy()] if self._total <= EXACT_LIMIT else None
        return True

    def distribution(self) -> Distribution:
        """Returns the distribution of all batches added."""
        if self._exact is not None:
            values = np.sort(np.concatenate(self._exact)).astype(np.float64)
            return Distribution(values, np.ones(values.size), self._lowest, self._highest, 0.0)
        width = 2.0 ** (self._exponent + 1) / BINS
        seen = np.flatnonzero(self._counts)
        centres = (seen + 0.5) * width - 2.0**self._exponent
        centres = np.clip(centres, self._lowest, self._highest)
        return Distribution(
            centres, self._counts[seen].astype(np.float64), self._lowest, self._highest, half_width=width / 2
        )

    def _merge(self, counts: np.ndarray, exponent: int) -> None:
        if self._counts.size == 0:
            self._counts, self._exponent = counts, exponent
            return
        target = max(self._exponent, exponent)
        self._counts = _coarsen(self._counts, target - self._exponent) + _coarsen(counts, target - exponent)
        self._exponent = target


def _sampling_stride(shape: Sequence[int]) -> int:
    """Returns the step at which a tensor is sampled: 1 up to ``SAMPLE_LIMIT`` values.

    The step has no factor in common with any axis but the first, so that all channels are sampled alike.
    """
    stride = max(1, math.ceil(math.prod(shape) / SAMPLE_LIMIT))
    while any(math.gcd(stride, length) > 1 for length in shape[1:]):
        stride += 1
    return stride


def _histogram(values: np.ndarray, exponent: int) -> np.ndarray:
    """Counts float32 values on the grid ``[-2**exponent, 2**exponent]``; the top of the range joins the last bin."""
    bins = np.floor(values * np.float32(2.0**-exponent * (BINS // 2))).astype(np.int32) + BINS // 2
    return np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)


def _coarsen(counts: np.ndarray, doublings: int) -> np.ndarray:
    """Moves a histogram to a grid ``2**doublings`` times as wide, with the same number of bins."""
    doublings = min(doublings, BINS.bit_length() - 2)
    if doublings == 0:
        return counts
    merged = counts.reshape(-1, 1 << doublings).sum(axis=1)
    coarse = np.zeros(BINS, np.int64)
    start = (BINS - merged.size) // 2
    coarse[start : start + merged.size] = merged
    return coarse
