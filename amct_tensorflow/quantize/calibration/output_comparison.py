"""Compares the float and the quantized output of a layer, by sums or by a user's sensitivity.

The cosine similarity is close to 1, and its distance from 1 matters. With ``a`` the float output, ``b`` the quantized
one and ``d = a - b``, it is computed from sums of ``a * a``, ``a * d`` and ``d * d`` by the sine, which loses no
digits.
"""

import math
from typing import Protocol

import numpy as np

from amct_tensorflow.errors import AmctError, EvaluatorError


class Comparison(Protocol):
    """The interface of a sensitivity: a number for the similarity of two outputs."""

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Compares the float output with the quantized one."""


def compare(comparison: Comparison, data: np.ndarray, other: np.ndarray, subject: str) -> float:
    """Calls ``compare``; ``subject`` says in messages on what.

    Raises:
        EvaluatorError: it failed, or returned something else than a number.
    """
    try:
        similarity = float(comparison.compare(data, other))
        if math.isnan(similarity):
            raise ValueError("it returned NaN")
    except AmctError:
        raise
    except Exception as error:
        name = type(comparison).__name__
        raise EvaluatorError(f"{name}.compare failed on {subject}: {type(error).__name__}: {error}.") from error
    return similarity


# float32 products are summed in blocks, and the blocks in float64: as fast as BLAS, exact to about 1e-7.
_BLOCK = 4096
# Below such a sum of squares, those of float32 lose digits.
_SMALLEST = 1e-25


class OutputSums:
    """Sums over the values of two outputs."""

    def __init__(self, channel_axis: int | None = None) -> None:
        """Begins with nothing; ``channel_axis`` says where the channels are, if ``noise_without`` is to be asked."""
        self._square = self._product = self._error = 0.0
        self._channel_axis = channel_axis
        self._lost: np.ndarray | float = 0.0  # per channel, the sum of the differences
        self._positions = 0.0

    def add(self, original: np.ndarray, quantized: np.ndarray, weight: float = 1.0) -> None:
        """Adds the outputs of some images.

        Args:
            original: float output, float32.
            quantized: quantized output, same shape.
            weight: how many images each of these stands for.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            difference = original - quantized
            sums = _sums(original, difference)
        if not (np.isfinite(sums).all() and sums[0] >= _SMALLEST):
            original, quantized = _finite(original, quantized)
            difference = original - quantized
            sums = _sums(original, difference)
        self._square, self._product, self._error = (
            total + weight * each for total, each in zip((self._square, self._product, self._error), sums, strict=True)
        )
        if self._channel_axis is not None and difference.ndim:
            by_channel = np.moveaxis(difference, self._channel_axis, -1).reshape(
                -1, difference.shape[self._channel_axis]
            )
            self._lost = self._lost + weight * by_channel.sum(axis=0, dtype=np.float64)
            self._positions += weight * len(by_channel)

    @property
    def noise(self) -> float | None:
        """The sum of the squared differences divided by that of the squared float output; None if that is all zero."""
        return self._to_signal(self._error)

    def noise_without(self, shift: np.ndarray) -> float | None:
        """Returns the noise of the quantized output before a shift was added to it.

        Without the shift, the differences ``d`` are ``d + shift``. The sum of their squares follows from the sum of ``d
        * d`` and, per channel, from the sum of ``d``.

        Args:
            shift: the shift of each channel, float64 [channels].
        """
        error = self._error + float(np.sum(2 * shift * self._lost + self._positions * shift * shift))
        return self._to_signal(max(error, 0.0))

    def _to_signal(self, error: float) -> float | None:
        ratio = error / self._square if self._square else math.nan
        return ratio if math.isfinite(ratio) else None

    @property
    def similarity(self) -> float:
        """``0.5 + 0.5 * cos`` of the two outputs (spec section 6.2).

        It lies in [0, 1]; it is 1 if the float output is all zero, 0 if only the quantized one is.
        """
        square, product, error = self._square, self._product, self._error
        other = max(square - 2 * product + error, 0.0)
        if square == 0:
            return 1.0
        if other == 0:
            return 0.0
        cosine = (square - product) / math.sqrt(square * other)
        if cosine <= 0:
            return 0.5 + 0.5 * max(cosine, -1.0)
        sine_square = max(square * error - product**2, 0.0) / (square * other)
        return 1 - 0.5 * sine_square / (1 + math.sqrt(max(1 - sine_square, 0.0)))


def sum_of_products(left: np.ndarray, right: np.ndarray) -> float:
    """Returns the sum of the products of two float arrays of the same shape."""
    left, right = np.ravel(left), np.ravel(right)
    whole = left.size - left.size % _BLOCK
    blocks = np.matmul(left[:whole].reshape(-1, 1, _BLOCK), right[:whole].reshape(-1, _BLOCK, 1))
    rest = np.dot(left[whole:].astype(np.float64), right[whole:].astype(np.float64))
    return float(np.sum(blocks, dtype=np.float64) + rest)


def _sums(original: np.ndarray, difference: np.ndarray) -> tuple[float, float, float]:
    pairs = ((original, original), (original, difference), (difference, difference))
    square, product, error = (sum_of_products(left, right) for left, right in pairs)
    return square, product, error


def _finite(original: np.ndarray, quantized: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two outputs in float64, in which the squares of all float32 are neither infinite nor lost.

    Where the float output is not finite, both count as 0. Where only the quantized one is not, it counts as the largest
    float32.
    """
    tells = np.isfinite(original)
    pair = (np.where(tells, each, 0).astype(np.float64) for each in (original, quantized))
    wrong = float(np.finfo(np.float32).max)
    expected, actual = (np.nan_to_num(each, nan=wrong, posinf=wrong, neginf=-wrong) for each in pair)
    return expected, actual
