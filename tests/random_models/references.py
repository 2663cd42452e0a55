"""What the values of a recipe are, and how far arithmetic and the simplest quantization move them."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from graphs import unoptimized

from random_models.building import placeholder, write
from random_models.writings import Naive, Reference

tf1 = tf.compat.v1


@dataclass(frozen=True)
class Expected:
    """An output on all calibration batches.

    Attributes:
        exact: its values in float64, per batch.
        rounding: how far float32 moves a value, at most.
        noise: mean square of how far the simplest quantization moves them.
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
    writings = [Reference(), Reference(tf.float32), Naive(**naive) if naive else Reference()]
    with tf.Graph().as_default() as graph:
        x = placeholder(recipe.data)
        fetches = []
        for how in writings:
            values = write(recipe, tf.cast(x, how.dtype), how)
            fetches.append([values[number] for number in recipe.outputs])
    with tf1.Session(graph=graph, config=unoptimized()) as session, np.errstate(all="ignore"):
        runs = [session.run(fetches, {x: batch}) for batch in batches]
        return [
            _expected([[run[which][index] for run in runs] for which in range(3)]) for index in range(len(fetches[0]))
        ]


def _expected(values):
    exact, single, naive = values
    pairs = [np.abs(one.astype(np.float64) - other) for one, other in zip(single, exact, strict=True)]
    noise = np.concatenate([(one - other).ravel() for one, other in zip(naive, exact, strict=True)])
    return Expected(exact, max(float(each.max()) for each in pairs), float(np.mean(noise**2)))
