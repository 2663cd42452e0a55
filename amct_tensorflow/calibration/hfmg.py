"""HFMG: the clipping range with the least error, from a histogram (spec section 7.2)."""

import math

import numpy as np

from amct_tensorflow.calibration.factors import ActivationFactors, range_factors
from amct_tensorflow.calibration.observation import Distribution
from amct_tensorflow.config.schema import HfmgParams

_DESTINATION_BINS = 256
_SEARCH_STEPS = 100_000


def search_hfmg(distribution: Distribution, params: HfmgParams, asymmetric: bool) -> ActivationFactors:
    """Chooses the factors of an activation by shrinking its histogram from both ends.

    Args:
        distribution: the values observed at the layer's input.
        params: number of equal bins over the observed range.
        asymmetric: with a zero point; else symmetric around 0.

    Returns:
        The factors that cover the range with the least error.
    """
    low, high = distribution.lowest, distribution.highest
    if low == high:
        return range_factors(low, high, asymmetric)
    bins = params.num_of_bins
    counts, _ = np.histogram(distribution.values, bins=bins, range=(low, high), weights=distribution.counts)
    candidates = _candidate_ranges(counts)
    errors = [_range_error(counts, left, right) for left, right in candidates]
    left, right = candidates[int(np.argmin(errors))]
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


def _range_error(counts: np.ndarray, left: int, right: int) -> float:
    """Returns the squared error, in bins, of mapping the histogram onto 256 equal bins that span ``[left, right]``.

    Each bin's density is uniform; a stretch ``[a, b]`` of density ``rho`` that maps to the centre ``c`` contributes
    ``rho * ((b - c)**3 - (a - c)**3) / 3``.
    """
    width = (right + 1 - left) / _DESTINATION_BINS
    inner = left + width * np.arange(1, _DESTINATION_BINS)
    edges = np.unique(np.concatenate([np.arange(counts.size + 1.0), inner]))
    start, end = edges[:-1], edges[1:]
    middle = (start + end) / 2
    density = counts[np.minimum(middle.astype(np.int64), counts.size - 1)]
    destination = np.clip(np.floor((middle - left) / width), 0, _DESTINATION_BINS - 1)
    centre = left + (destination + 0.5) * width
    return float(np.sum(density * ((end - centre) ** 3 - (start - centre) ** 3)) / 3)
