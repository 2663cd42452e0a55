"""Range refinement: both ends of an activation's range are moved to where quantization loses least.

IFMR moves the upper end alone, and leaves the lower one at the least value that was seen. Where values are negative,
too, that is an outlier as much as the greatest is. So the ends are moved both, by a compass search: to the best of
their neighbours, as long as one is better, and then in smaller steps. It only ever finds less error than it starts
from, and an end that is 0 stays there.

The error is that of the tensor, in which clipping counts twice: the errors of rounding differ from value to value, and
fall out where a network takes a mean or a sum, while clipping makes values that lie together all smaller. Judged by the
error of what layers make of it, which is ``trace(W.T @ C @ W)`` with ``C`` the covariance of ``q(x) - x``, the ends
hardly differ, and networks are not better (docs/algorithms.md, "What was tried and dropped").
"""

import numpy as np

from amct_tensorflow.algorithms.activation_factors import ActivationFactors, asymmetric_factors
from amct_tensorflow.algorithms.distribution import Distribution
from amct_tensorflow.algorithms.scale_limits import SMALLEST_SCALE
from amct_tensorflow.algorithms.squared_errors import SquaredErrors

_LOWEST, _HIGHEST = -128, 127
# In terms of the ends that it starts from.
_STEPS = (0.1, 0.03, 0.01)
# Where the search stands comes first, so that it stays there unless another place is better.
_EITHER_END = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
_BOTH_ENDS = np.array([(0, 0), (-1, -1), (1, 1)])


def refine_range(distribution: Distribution, factors: ActivationFactors, asymmetric: bool) -> ActivationFactors:
    """Returns factors with a squared error, in which clipping counts twice, that is at most that of those given.

    Args:
        distribution: the values observed at the layer's input.
        factors: where to start.
        asymmetric: with a zero point; else only the scale changes.
    """
    errors = SquaredErrors(distribution)
    ends = np.array([_LOWEST - factors.offset, _HIGHEST - factors.offset]) * factors.scale
    directions = _EITHER_END if asymmetric else _BOTH_ENDS
    place, found = np.zeros(2), factors
    for step in _STEPS:
        moved = True
        while moved:
            places = place + step * directions
            moves = (_factors(ends * np.maximum(1 + each, 0.0), asymmetric) for each in places[1:])
            candidates = [found, *(each or found for each in moves)]
            best = _best(errors, candidates)
            place, found, moved = places[best], candidates[best], best > 0
    return found


def _factors(ends: np.ndarray, asymmetric: bool) -> ActivationFactors | None:
    """Returns the factors whose range has these ends; None if they are too close together."""
    scale = float(np.float32((ends[1] - ends[0]) / (_HIGHEST - _LOWEST)))
    if scale < SMALLEST_SCALE:
        return None
    return asymmetric_factors(float(ends[0]), scale) if asymmetric else ActivationFactors(scale, 0)


def _best(errors: SquaredErrors, candidates: list[ActivationFactors]) -> int:
    """Returns which candidate has the least error; the first of equals."""
    scales = np.array([each.scale for each in candidates])
    offsets = np.array([each.offset for each in candidates])
    lowers, uppers = (_LOWEST - offsets) * scales, (_HIGHEST - offsets) * scales
    return int(np.argmin(errors.of(lowers, uppers, scales) + errors.of_clipping(lowers, uppers)))
