"""IFMR: the range of a layer's input that loses least when quantized (spec section 7.1).

The mean squared error of 61 candidate ranges is computed without touching the values 61 times: between two rounding
edges all values become the same level ``q * s``, so that prefix sums of count, value and squared value give the error
of a candidate from its 255 edges, ``sum(x**2) - 2*q*s*sum(x) + (q*s)**2*n`` per level.
"""

import math

import numpy as np

from amct_tensorflow.algorithms.activation_factors import ActivationFactors, asymmetric_factors
from amct_tensorflow.algorithms.arq import EPSILON
from amct_tensorflow.algorithms.distribution import Distribution
from amct_tensorflow.config.schema import IfmrParams

_LEVELS = 255
_SYMMETRIC_STEPS_BELOW, _SYMMETRIC_STEPS_ABOVE = 128, 127


def search_ifmr(distribution: Distribution, params: IfmrParams, asymmetric: bool) -> ActivationFactors:
    """Chooses the factors of an activation.

    Args:
        distribution: the values observed at the layer's input.
        params: percentiles and search range.
        asymmetric: with a zero point; else symmetric around 0.

    Returns:
        The factors with the least mean squared error; the first of equals.
    """
    highest, lowest = _initial_bounds(distribution, params)
    ratios = search_ratios(params)
    if asymmetric:
        uppers = ratios * highest
        lowers = np.full_like(uppers, lowest)
        scales = (uppers - lowest) / _LEVELS
    else:
        uppers = ratios * max(highest, -lowest)
        lowers = -uppers
        scales = uppers / (_SYMMETRIC_STEPS_BELOW if highest < -lowest else _SYMMETRIC_STEPS_ABOVE)
    scales = np.where(scales < EPSILON, 1.0, scales).astype(np.float32).astype(np.float64)
    best = int(np.argmin(_squared_errors(distribution, lowers, uppers, scales)))
    if asymmetric:
        return asymmetric_factors(lowest, float(scales[best]))
    return ActivationFactors(float(scales[best]), 0)


def search_ratios(params: IfmrParams) -> np.ndarray:
    """Returns the ratios of the upper bound to try, float64; 61 of them by default, 0.7 to 1.3."""
    count = math.ceil((params.search_end - params.search_start) / params.search_step)
    ratios = params.search_start + params.search_step * np.arange(max(count, 1))
    return np.asarray(np.round(ratios, 9))


def _initial_bounds(distribution: Distribution, params: IfmrParams) -> tuple[float, float]:
    """Returns the percentiles that the search starts from, widened to include 0."""
    highest = distribution.kth_largest(_percentile_rank(params.max_percentile, distribution.total))
    lowest = distribution.kth_smallest(_percentile_rank(params.min_percentile, distribution.total))
    return max(highest, 0.0), min(lowest, 0.0)


def _percentile_rank(percentile: float, total: int) -> int:
    """Returns which largest (or smallest) value stands at a percentile; 1 is the extreme itself."""
    if 1 - percentile < EPSILON:
        return 1
    return max(total - int(percentile * total), 1)


def _squared_errors(
    distribution: Distribution, lowers: np.ndarray, uppers: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Returns per candidate the sum of ``(rint(clip(x, lower, upper) / scale) * scale - x)**2``."""
    values, counts = distribution.values, distribution.counts
    sums = np.zeros((3, values.size + 1))
    np.cumsum(counts, out=sums[0, 1:])
    np.cumsum(counts * values, out=sums[1, 1:])
    np.cumsum(counts * values * values, out=sums[2, 1:])
    first = np.rint(lowers / scales)[:, np.newaxis]
    last = np.rint(uppers / scales)[:, np.newaxis]
    levels = first + np.arange(np.max(last - first) + 1)
    # Everything above a candidate's last level is clipped to that level, and the levels beyond stay empty.
    edges = np.where(levels < last, (levels + 0.5) * scales[:, np.newaxis], np.inf)
    bounds = np.zeros((scales.size, levels.shape[1] + 1), np.intp)
    bounds[:, 1:] = np.searchsorted(values, edges)
    number, total, squares = np.diff(sums[:, bounds], axis=2)
    targets = levels * scales[:, np.newaxis]
    return np.asarray(np.sum(squares - 2 * targets * total + targets * targets * number, axis=1))
