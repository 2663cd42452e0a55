"""Ops that clip values to a range: Relu, Relu6, and Maximum or Minimum with a constant."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Clip(NamedTuple):
    """The range to which values are clipped; an infinite end clips nothing."""

    lowest: float
    highest: float

    def then(self, following: "Clip") -> "Clip":
        """Returns the clip that does the work of this one and then another; disjoint ranges leave one value."""
        lowest, highest = (float(np.clip(bound, following.lowest, following.highest)) for bound in self)
        return Clip(lowest, highest)


NO_CLIP = Clip(-np.inf, np.inf)


@dataclass(frozen=True)
class Clips:
    """Clips values, if the bounds that it reads are constants of rank 0.

    Attributes:
        to: returns the range, from the bounds in their order.
        bounds: how many bounds it reads, beside the values.
        values_first: whether the values must be its first input.
    """

    to: Callable[..., Clip]
    bounds: int = 0
    values_first: bool = False


RELU = Clips(lambda: Clip(0.0, np.inf))
RELU6 = Clips(lambda: Clip(0.0, 6.0))
MINIMUM = Clips(lambda bound: Clip(-np.inf, bound), bounds=1)
MAXIMUM = Clips(lambda bound: Clip(bound, np.inf), bounds=1)
BY_VALUE = Clips(lambda low, high: Clip(low, np.inf).then(Clip(-np.inf, high)), bounds=2, values_first=True)
