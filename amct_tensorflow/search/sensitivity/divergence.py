"""The divergence of the model's outputs, on which output-level sensitivity is based."""

import math
from collections.abc import Sequence

import numpy as np

# Rows of probabilities sum to 1 up to the rounding of float32.
_SUM_TOLERANCE = 1e-3
_SMALLEST_PROBABILITY = 1e-30


class Divergence:
    """Accumulates the divergence of outputs from a reference, however the images are split into parts.

    The divergence of an output is its mean KL divergence (in nats) if it holds probabilities along its last axis; the
    squared error divided by the squared reference if it holds other floats; and the share of values that differ
    otherwise.
    """

    def __init__(self, outputs: int) -> None:
        self._outputs = [_OutputDivergence() for _ in range(outputs)]

    def add(self, reference: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        """Adds the values of every output for some of the images."""
        for output, expected, actual in zip(self._outputs, reference, values, strict=True):
            output.add(np.asarray(expected), np.asarray(actual))

    @property
    def value(self) -> float:
        """The mean over the outputs; infinite if one is not finite where the reference is, NaN if there is none."""
        return float(np.mean([output.value for output in self._outputs])) if self._outputs else math.nan


class _OutputDivergence:
    def __init__(self) -> None:
        self._holds_probabilities = True
        self._divergence = 0.0
        self._rows = 0
        self._error = 0.0
        self._scale = 0.0

    def add(self, reference: np.ndarray, value: np.ndarray) -> None:
        is_float = np.issubdtype(reference.dtype, np.floating)
        if reference.shape != value.shape:  # a size that depends on the values, like that of a list of detections
            self._add_error(np.ones(1), np.zeros(1))
        elif is_float and reference.ndim and self._holds_probabilities and _are_probabilities(reference):
            self._divergence += _divergence(reference, value)
            self._rows += reference.size // reference.shape[-1]
            self._accumulate(reference, value)
        elif is_float:
            self._add_error(reference, value)
        else:
            self._add_error(np.ones(reference.shape), (reference == value).astype(np.float64))

    @property
    def value(self) -> float:
        if self._holds_probabilities:
            return self._divergence / max(self._rows, 1)
        return self._error / self._scale if self._scale else float(self._error > 0)

    def _add_error(self, reference: np.ndarray, value: np.ndarray) -> None:
        self._holds_probabilities = False
        self._accumulate(reference, value)

    def _accumulate(self, reference: np.ndarray, value: np.ndarray) -> None:
        finite = np.isfinite(reference)
        expected, actual = reference[finite].astype(np.float64), value[finite].astype(np.float64)
        self._error += float(np.sum((expected - actual) ** 2)) if np.isfinite(actual).all() else np.inf
        self._scale += float(np.sum(expected**2))


def _are_probabilities(values: np.ndarray) -> bool:
    if not values.size or values.shape[-1] < 2:
        return False
    return bool(np.all(values >= 0) and np.allclose(values.sum(axis=-1), 1, atol=_SUM_TOLERANCE))


def _divergence(reference: np.ndarray, value: np.ndarray) -> float:
    """Sum over the rows of ``sum(p * log(p / q) - p + q)``: never negative, even where sums differ from 1 a little."""
    if not np.isfinite(value).all():
        return np.inf
    p, q = (np.maximum(array.astype(np.float64), _SMALLEST_PROBABILITY) for array in (reference, value))
    return float(np.sum(p * np.log(p / q) - p + q))
