"""The covariance of what a layer reads, and how far it can be trusted.

A covariance of few rows shows correlations that only these have, and to follow them does harm. So something is added to
every variance: ``damping`` times the mean variance ``m``, which up to a factor is shrinkage towards ``m * I``,

    (1 - r) * H + r * m * I,   damping = r / (1 - r)

by as much as Ledoit and Wolf 2004 estimate from the rows themselves ("A well-conditioned estimator for
large-dimensional covariance matrices", section 3.3), with ``n`` rows ``x`` from which the mean is taken, and the sum of
squares ``|.|**2``:

    r = sum over rows |x @ x.T - H|**2 / n**2  /  |H - m * I|**2,  at most 1

They assume rows that are independent, which positions of one image are not, so that ``DAMPING`` is the least.

One matrix per group bounds the memory; a group of more than ``LARGEST_BLOCK`` inputs is split into blocks, and the
covariances between blocks count as 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# The least share of the mean variance that is added to every variance.
DAMPING = 0.1
# The most: with so much, hardly an integer is another than the nearest.
_MOST_DAMPING = 100.0
# A 3 x 3 window on 256 channels; the moments of so many inputs take 21 MB, and their factorization a fifth of a second.
LARGEST_BLOCK = 2304


class Covariance(NamedTuple):
    """The covariance of a block of inputs.

    Attributes:
        inputs: which inputs the block holds.
        values: float64 [groups, block, block].
        damping: per group how much to add to every variance, as a share of the mean variance; float64 [groups].
    """

    inputs: slice
    values: np.ndarray
    damping: np.ndarray


# The mean of so many rows, which is exact for an input that never varies, is that of all but for an eighth of a
# deviation.
_ROWS_OF_ORIGIN = 64
# With more inputs, products of matrices are faster, although groups must be moved for them.
_MOST_INPUTS_SIDE_BY_SIDE = 25


def _lie_side_by_side(rows: np.ndarray) -> bool:
    """Tells whether the groups of few inputs lie side by side, as the channels of a depthwise layer do."""
    groups, _, inputs = rows.shape
    return groups > 1 and inputs <= _MOST_INPUTS_SIDE_BY_SIDE and rows.strides[0] == rows.itemsize


# So many rows are summed up in float32 before float64 takes over, which NumPy is slow to turn each value into.
_ROWS_SUMMED = 256


def sum_of_rows(rows: np.ndarray) -> np.ndarray:
    """Returns the sums of rows [groups, rows, inputs] over the rows, float64 [groups, inputs]."""
    total = np.zeros((rows.shape[0], rows.shape[2]))
    for start in range(0, rows.shape[1], _ROWS_SUMMED):
        total += rows[:, start : start + _ROWS_SUMMED].sum(axis=1)
    return total


class SecondMoments:
    """Accumulates the covariance of rows of data, whatever batches they come in.

    Products of float32 lose digits where the mean is large against the deviation. The rows are therefore taken
    relative to the mean of some of the first, and what the mean of all differs by is corrected for at the end.

    Attributes:
        count: number of rows.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin = np.zeros((0, 1, 0), np.float32)
        self._sum = np.zeros((0, 1, 0))
        self._products: list[np.ndarray] = []
        # Per block the sums over rows of |x|**4, [groups], and of |x|**2 * x, [groups, block].
        self._fourth: list[np.ndarray] = []
        self._third: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Adds rows, float32 [groups, rows, inputs]; what is added later has the same groups and inputs."""
        if not self._products:
            some = rows[:, :: max(1, rows.shape[1] // _ROWS_OF_ORIGIN)]
            self._origin = some.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
            self._sum = np.zeros(self._origin.shape)
            blocks = [rows[:, :1, block] for block in self._blocks]
            self._products = [np.zeros((len(rows), one.shape[2], one.shape[2]), np.float32) for one in blocks]
            self._fourth = [np.zeros(len(rows)) for _ in blocks]
            self._third = [np.zeros((len(rows), one.shape[2])) for one in blocks]
        self.count += rows.shape[1]
        if _lie_side_by_side(rows):
            self._add_side_by_side(rows)
            return
        centred = np.subtract(rows, self._origin, order="C")
        self._sum += sum_of_rows(centred)[:, np.newaxis]
        for index, block in enumerate(self._blocks):
            part = centred[:, :, block]
            self._products[index] += part.transpose(0, 2, 1) @ part
            squares = np.einsum("gri,gri->gr", part, part)
            self._fourth[index] += np.square(squares, dtype=np.float64).sum(axis=1)
            self._third[index] += (squares[:, np.newaxis] @ part)[:, 0]

    def _add_side_by_side(self, rows: np.ndarray) -> None:
        """Adds rows of few inputs whose groups lie side by side, where they lie: to move them takes longer."""
        columns, origin = rows.transpose(2, 1, 0), self._origin.transpose(2, 1, 0)
        products, sums, third = self._products[0].transpose(1, 2, 0), self._sum[:, 0].T, self._third[0].T
        part = columns - origin
        sums += part.sum(axis=1)
        squares = np.einsum("irg,irg->rg", part, part)
        self._fourth[0] += np.einsum("rg,rg->g", squares, squares)
        third += np.einsum("rg,irg->ig", squares, part)
        for first in range(len(part)):
            found = np.einsum("rg,irg->ig", part[first], part[first:])
            products[first, first:] += found
            products[first + 1 :, first] += found[1:]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self._origin)

    @property
    def inputs(self) -> int:
        """Number of inputs of a group."""
        return int(self._origin.shape[-1])

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows, float64 [groups, inputs]."""
        return np.asarray(self._origin + self._sum / self.count)[:, 0]

    def covariances(self) -> Iterator[Covariance]:
        """Yields the covariance of each block."""
        mean = self._sum / self.count
        for products, fourth, third, block in zip(self._products, self._fourth, self._third, self._blocks, strict=True):
            part = mean[:, 0, block]
            values = part[:, :, np.newaxis] * part[:, np.newaxis]
            np.subtract(products / self.count, values, out=values)
            yield Covariance(block, values, self._damping(values, part, fourth / self.count, third / self.count))

    def _damping(self, covariance: np.ndarray, mean: np.ndarray, fourth: np.ndarray, third: np.ndarray) -> np.ndarray:
        """Returns per group the damping that its rows ask for.

        Args:
            covariance: their covariance, [groups, block, block].
            mean: the mean ``d`` of the rows ``x`` as they were summed up, [groups, block].
            fourth: the mean of ``|x|**4``, [groups].
            third: the mean of ``|x|**2 * x``, [groups, block].
        """
        squares, variance = np.einsum("gij,gij->g", covariance, covariance), np.einsum("gii->g", covariance)
        spread = squares - np.square(variance) / covariance.shape[1]
        # The mean of |x - d|**4, with E[x @ x.T] = H + d @ d.T and E[|x|**2] = trace(H) + |d|**2.
        of_mean = np.square(mean).sum(axis=1)
        along = np.einsum("gi,gij,gj->g", mean, covariance, mean)
        centred = fourth - 4 * (third * mean).sum(axis=1) + 4 * along + 2 * of_mean * variance + 3 * np.square(of_mean)
        noise = (centred - squares) / self.count
        shrinkage = np.clip(np.divide(noise, spread, out=np.zeros_like(noise), where=spread > 0), 0, 1)
        asked = np.divide(shrinkage, 1 - shrinkage, out=np.full_like(noise, np.inf), where=shrinkage < 1)
        return np.asarray(np.clip(asked, DAMPING, _MOST_DAMPING))

    @property
    def _blocks(self) -> list[slice]:
        starts = range(0, self.inputs, LARGEST_BLOCK)
        return [slice(start, min(start + LARGEST_BLOCK, self.inputs)) for start in starts]
