"""What the values of a recipe are, and how far arithmetic and the simplest quantization move them."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from random_models.building import write
from random_models.writings import Naive, Reference

# By what scales are multiplied: 8 bits must not come near this noise. What is small by luck, as where a softmax chooses
# the same one by chance, is not small twice.
_COARSENESS = (2.6, 3.0)
# How far from what a few images show the mean over many may lie.
_STANDARD_ERRORS = 3


@dataclass(frozen=True)
class Expected:
    """An output on all calibration batches.

    Attributes:
        exact: its values in float64, per batch.
        rounding: how far float32 moves a value, at most.
        noise: mean square of how far the simplest quantization with three times as large scales moves them, at most:
            the mean over images, and three times its standard error, as few images may hold most of the noise.
    """

    exact: list
    rounding: float
    noise: float

    @property
    def reach(self):
        """The greatest magnitude."""
        return max(float(np.abs(values).max()) for values in self.exact)

    @property
    def variance(self):
        return float(np.var(np.concatenate([values.ravel() for values in self.exact])))

    @property
    def is_finite(self):
        """Whether the model keeps its values within float32, so that there is something to compare."""
        return bool(np.isfinite([self.reach, self.rounding, self.noise]).all() and self.reach < 1e30)


def expect(recipe, batches, naive=None):
    """Returns what to expect of each output; ``naive`` are the arguments of ``Naive``, or None for no quantization."""
    writings = [Reference(), Reference(tf.float32)]
    writings += [Naive(**naive, coarseness=each) for each in _COARSENESS] if naive else []
    with np.errstate(all="ignore"):
        runs = [[_outputs(recipe, batch, how) for how in writings] for batch in batches]
    outputs = range(len(recipe.outputs))
    return [_expected(*([run[which][index] for run in runs] for which in range(len(writings)))) for index in outputs]


def _outputs(recipe, batch, how):
    """Returns the outputs of one batch, computed step by step, which takes less than building a graph."""
    values = write(recipe, tf.constant(batch, how.dtype), how)
    return [values[number].numpy() for number in recipe.outputs]


def _expected(exact, single, *naive):
    rounding = max(float(np.abs(one - other).max()) for one, other in zip(single, exact, strict=True))
    noise = max((_highest_mean_square(values, exact) for values in naive), default=0.0)
    return Expected(exact, rounding, noise)


def _highest_mean_square(values, exact):
    """Returns the upper end of the confidence interval of a mean square, of which each image gives one value."""
    squares = [(one - other) ** 2 for one, other in zip(values, exact, strict=True)]
    means = np.concatenate([each.reshape(len(each), -1).mean(axis=1) if each.ndim else each[None] for each in squares])
    error = np.std(means, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
    return float(np.mean(means) + _STANDARD_ERRORS * error)
