"""Asking a sensitivity, perhaps the user's own, how alike two outputs are."""

import math
from typing import Protocol

import numpy as np

from amct_tensorflow.errors import AmctError, EvaluatorError


class Comparison(Protocol):
    """What is needed of a sensitivity: a number that tells how alike two outputs are."""

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
