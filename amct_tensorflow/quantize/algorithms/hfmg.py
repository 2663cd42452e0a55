"""HFMG: the clipping range with the least error, from a histogram (spec section 7.2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, range_factors
from amct_tensorflow.quantize.algorithms.distribution import Distribution

_NUM_OF_BINS = (1024, 2048, 4096, 8192)
_DESTINATION_BINS = 256
_SEARCH_STEPS = 100_000
_RANGES_AT_A_TIME = 512  # a few megabytes


@dataclass(frozen=True)
class Hfmg(ActivationAlgorithm):
    """HFMG and its parameter: the number of equal bins over the observed range."""

    name: ClassVar[str] = "hfmg"
    message: ClassVar[str] = "HFMGQuantize"

    num_of_bins: int = 4096

    def fault(self) -> str | None:
        """Returns why the number of bins is not allowed, as a sentence; None if it is."""
        if self.num_of_bins not in _NUM_OF_BINS:
            return f"num_of_bins is {self.num_of_bins}; use one of {_NUM_OF_BINS}."
        return None

    def search(self, distribution: Distribution, asymmetric: bool) -> ActivationFactors:
        """Returns the factors that cover the range with the least error, found by shrinking it from both ends."""
        low, high = distribution.lowest, distribution.highest
        if low == high:
            return range_factors(low, high, asymmetric)
        bins = self.num_of_bins
        counts, _ = np.histogram(distribution.values, bins=bins, range=(low, high), weights=distribution.counts)
        candidates = _candidate_ranges(counts)
        left, right = candidates[int(np.argmin(_range_errors(counts, candidates)))]
        width = (high - low) / bins
        return range_factors(low + left * width, low + (right + 1) * width, asymmetric)


def _candidate_ranges(counts: np.ndarray) -> list[tuple[int, int]]:
    """Returns the ranges of bins tried: the whole, then each after the sparser side gave way."""
    bins = counts.size
    step = max(math.ceil(counts.sum() / _SEARCH_STEPS), 1)
    fewest = math.ceil(bins / 4)
    cumulated = np.concatenate([[0.0], np.cumsum(counts)])
    left, right = 0, bins - 1
    ranges = [(left, right)]
    while right - left > fewest:
        next_left = int(np.searchsorted(cumulated, cumulated[left] + step))
        next_right = int(np.searchsorted(cumulated, cumulated[right + 1] - step, side="right")) - 2
        if next_left - left > right - next_right:
            left = next_left
        else:
            right = next_right
        ranges.append((left, right))
    return ranges


class _Moments:
    """Integrals of a histogram, of uniform density within each bin: from 0 to any point, of 1, x and x**2.

    They are summed up once, so that a range costs its 257 edges, however many bins there are.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self._density = np.append(counts, 0.0)  # nothing lies beyond the last bin
        edges = np.arange(counts.size + 1.0)
        self._sums = [np.concatenate([[0.0], np.cumsum(counts * np.diff(edges**power / power))]) for power in (1, 2, 3)]

    def up_to(self, points: np.ndarray) -> np.ndarray:
        """Returns the three integrals at points in ``[0, bins]``, shape [3, *points.shape]."""
        bins = points.astype(np.int64)
        density = self._density[bins]
        return np.stack(
            [
                sums[bins] + density * (points**power - bins.astype(np.float64) ** power) / power
                for power, sums in enumerate(self._sums, start=1)
            ]
        )


def _range_errors(counts: np.ndarray, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns per range the squared error, in bins, of mapping the histogram onto 256 equal bins that span it.

    A stretch ``[a, b]`` of density ``rho`` that maps to the centre ``c`` contributes the integral of
    ``rho * (x - c)**2``. Bins outside the range map to the first and last of the 256.
    """
    moments = _Moments(counts)
    errors = []
    for start in range(0, len(ranges), _RANGES_AT_A_TIME):
        left, right = np.array(ranges[start : start + _RANGES_AT_A_TIME], np.float64).T[:, :, np.newaxis]
        width = (right + 1 - left) / _DESTINATION_BINS
        edges = left + width * np.arange(_DESTINATION_BINS + 1)
        edges[:, 0], edges[:, -1] = 0, counts.size
        number, total, squares = np.diff(moments.up_to(edges), axis=-1)
        centre = left + width * (np.arange(_DESTINATION_BINS) + 0.5)
        errors.append(np.sum(squares - 2 * centre * total + centre**2 * number, axis=-1))
    return np.concatenate(errors)
