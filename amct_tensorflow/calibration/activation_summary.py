"""What is kept of a layer's input for people to look at."""

from dataclasses import dataclass

import numpy as np

from amct_tensorflow.algorithms.distribution import Distribution

# As many as a picture of the width of a phone has room for.
BINS = 96


@dataclass(frozen=True, eq=False)
class ActivationSummary:
    """The values of a tensor, roughly.

    Attributes:
        lowest: exact minimum.
        highest: exact maximum.
        counts: how many values lie in each of equal parts of the range between, float64 [BINS]; of large tensors a
            sample, scaled to the whole.
    """

    lowest: float
    highest: float
    counts: np.ndarray

    @classmethod
    def of(cls, distribution: Distribution) -> "ActivationSummary":
        """Sums up what calibration remembers of a tensor."""
        return cls(distribution.lowest, distribution.highest, distribution.histogram(BINS))
