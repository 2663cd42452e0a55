"""Moves both ends of a range to where the squared error is least, with the errors of many ranges at once.

No pass over the values is needed per range: between two rounding edges all values become the same level ``q * s``. So
prefix sums of count, value and squared value give the error of a range from its 255 edges, ``sum(x**2) - 2*q*s*sum(x) +
(q*s)**2*n`` per level.

IFMR moves the upper end alone, and leaves the lower one at the least value observed, which may be an outlier as much as
the greatest. Here a compass search moves both ends: to the best neighbour as long as one is better, then in smaller
steps. The error never rises, and an end at 0 stays there.

The error is that of the tensor, and clipping counts twice in it: rounding errors are independent and cancel in means
and sums, while clipping makes neighbouring values smaller together. With the error of the layers' outputs instead,
``trace(W.T @ C @ W)`` with ``C`` the covariance of ``q(x) - x``, the ends hardly differ, and networks are not better
(docs/algorithms.md, "What was tried and dropped").
"""

import numpy as np

from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, asymmetric_factors
from amct_tensorflow.quantize.algorithms.distribution import Distribution
from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE


class SquaredErrors:
    """The squared errors of ranges, of one distribution of values."""

    def __init__(self, distribution: Distribution) -> None:
        """Takes the values."""
        self._values, self._sums = distribution.values, distribution.sums

    def of(self, lowers: np.ndarray, uppers: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Returns per range the sum of ``(rint(clip(x, lower, upper) / scale) * scale - x)**2``.

        Args:
            lowers: lower bounds, float64 [ranges].
            uppers: upper bounds, likewise.
            scales: steps, likewise.
        """
        first = np.rint(lowers / scales)[:, np.newaxis]
        last = np.rint(uppers / scales)[:, np.newaxis]
        levels = first + np.arange(np.max(last - first) + 1)
        # Everything above a range's last level is clipped to that level, and the levels beyond stay empty.
        edges = np.where(levels < last, (levels + 0.5) * scales[:, np.newaxis], np.inf)
        before = self._sums.take(np.searchsorted(self._values, edges), axis=1)
        sums = before.copy()
        sums[:, :, 1:] -= before[:, :, :-1]
        return np.asarray(np.sum(_error(sums, levels * scales[:, np.newaxis]), axis=1))

    def of_clipping(self, lowers: np.ndarray, uppers: np.ndarray) -> np.ndarray:
        """Returns per range the sum of ``(clip(x, lower, upper) - x)**2``.

        Args:
            lowers: lower bounds, float64 [ranges].
            uppers: upper bounds, likewise.
        """
        below = self._sums[:, np.searchsorted(self._values, lowers)]
        above = self._sums[:, -1:] - self._sums[:, np.searchsorted(self._values, uppers, side="right")]
        return np.asarray(_error(below, lowers) + _error(above, uppers))


def _error(sums: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the squared error of values rounded to ``target``, from their number, sum and sum of squares."""
    number, total, squares = sums
    return np.asarray(squares - 2 * target * total + target * target * number)


_LOWEST, _HIGHEST = -128, 127
# In terms of the ends that it starts from.
_STEPS = (0.1, 0.03, 0.01)
_EITHER_END = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
_BOTH_ENDS = np.array([(-1, -1), (1, 1)])


def refine_range(distribution: Distribution, factors: ActivationFactors, asymmetric: bool) -> ActivationFactors:
    """Returns factors whose squared error, with clipping counted twice, is at most that of the given ones.

    Args:
        distribution: the values observed at the layer's input.
        factors: where to start.
        asymmetric: with a zero point; else only the scale changes.
    """
    errors = SquaredErrors(distribution)
    ends = np.array([_LOWEST - factors.offset, _HIGHEST - factors.offset]) * factors.scale
    directions = _EITHER_END if asymmetric else _BOTH_ENDS
    place, found, least = np.zeros(2), factors, _errors(errors, [factors])[0]
    for step in _STEPS:
        moved = True
        while moved:
            places = place + step * directions
            moves = (_factors(ends * np.maximum(1 + each, 0.0), asymmetric) for each in places)
            candidates = [each or found for each in moves]
            lost = _errors(errors, candidates)
            best = int(np.argmin(lost))
            moved = bool(lost[best] < least)
            if moved:
                place, found, least = places[best], candidates[best], lost[best]
    return found


def _factors(ends: np.ndarray, asymmetric: bool) -> ActivationFactors | None:
    """Returns the factors whose range has these ends; None if they are too close together."""
    scale = float(np.float32((ends[1] - ends[0]) / (_HIGHEST - _LOWEST)))
    if scale < SMALLEST_SCALE:
        return None
    return asymmetric_factors(float(ends[0]), scale) if asymmetric else ActivationFactors(scale, 0)


def _errors(errors: SquaredErrors, candidates: list[ActivationFactors]) -> np.ndarray:
    """Returns the errors of candidates, with clipping counted twice."""
    scales = np.array([each.scale for each in candidates])
    offsets = np.array([each.offset for each in candidates])
    lowers, uppers = (_LOWEST - offsets) * scales, (_HIGHEST - offsets) * scales
    return np.asarray(errors.of(lowers, uppers, scales) + errors.of_clipping(lowers, uppers))
