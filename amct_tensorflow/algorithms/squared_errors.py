"""The squared error of quantizing an activation, of many ranges at once.

The values are not touched once per range: between two rounding edges all values become the same level ``q * s``, so
that prefix sums of count, value and squared value give the error of a range from its 255 edges,
``sum(x**2) - 2*q*s*sum(x) + (q*s)**2*n`` per level.
"""

import numpy as np

from amct_tensorflow.algorithms.distribution import Distribution


class SquaredErrors:
    """The squared errors of ranges, of one distribution of values."""

    def __init__(self, distribution: Distribution) -> None:
        """Sums up the values."""
        self._values, counts = distribution.values, distribution.counts
        self._sums = np.zeros((3, self._values.size + 1))
        np.cumsum(counts, out=self._sums[0, 1:])
        np.cumsum(counts * self._values, out=self._sums[1, 1:])
        np.cumsum(counts * self._values * self._values, out=self._sums[2, 1:])

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
        bounds = np.zeros((scales.size, levels.shape[1] + 1), np.intp)
        bounds[:, 1:] = np.searchsorted(self._values, edges)
        sums = np.diff(self._sums[:, bounds], axis=2)
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
    """Returns the squared error when values become ``target``, from their number, sum and sum of squares, [3, ...]."""
    number, total, squares = sums
    return np.asarray(squares - 2 * target * total + target * target * number)
