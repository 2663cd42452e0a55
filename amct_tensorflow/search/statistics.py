"""Computes a confidence interval of the loss from its measurement on some images."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
_MISMATCH = 1e-6


@dataclass(frozen=True)
class LossInterval:
    """A confidence interval of a loss.

    Attributes:
        lower: lower end, in the unit of the loss.
        upper: upper end.
        images: number of images it rests on.
    """

    lower: float
    upper: float
    images: int

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.upper - self.lower) / 2

    def images_to_resolve(self, target: float) -> int:
        """Returns how many images would bring the half width down to ``target``."""
        return math.ceil(self.images * (self.half_width / target) ** 2)


def paired_interval(original: np.ndarray, other: np.ndarray, loss: float) -> LossInterval | None:
    """Returns the confidence interval of a loss, from the results of the same images with two models.

    Since both models see the same images, only those whose result changes count. The interval is the normal one with
    two pseudo-images, half a change of the largest size each way and one without change (Agresti and Min, 2005, for
    binary results), so that a few images without any change do not pass for certainty.

    Args:
        original: results with the original model, float64 [images].
        other: results with the other one, in the same order.
        loss: the loss that was measured; its sign tells whether large results are good.

    Returns:
        The interval; None if the results do not belong together, or their mean change is not the loss.
    """
    if original.shape != other.shape or not original.size:
        return None
    changes = original - other
    scale = float(np.max(np.abs([original, other])))
    if not math.isclose(abs(changes.mean()), abs(loss), rel_tol=_MISMATCH, abs_tol=_MISMATCH * scale):
        return None
    if changes.mean() * loss < 0:
        changes = -changes
    largest = float(np.max(np.abs(changes))) or float(np.ptp(original)) or scale
    count = len(changes) + 2
    mean = float(changes.sum()) / count
    variance = (float(np.sum(changes**2)) + largest**2) / count - mean**2
    half_width = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(max(variance, 0.0) / count)
    return LossInterval(mean - half_width, mean + half_width, len(changes))
