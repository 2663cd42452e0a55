"""IFMR: the clipping range with the least squared error, from ratios of the upper bound (spec section 7.1)."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np

from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, asymmetric_factors, range_factors
from amct_tensorflow.quantize.algorithms.distribution import Distribution
from amct_tensorflow.quantize.algorithms.range_refinement import SquaredErrors
from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE

_LEVELS = 255
_SYMMETRIC_STEPS_BELOW, _SYMMETRIC_STEPS_ABOVE = 128, 127
# A percentile that is 1 but for the rounding of float32 covers every value.
_EPSILON = float(np.finfo(np.float32).eps)
_MOST_RATIOS = 10_000  # the search looks at all of them at once


@dataclass(frozen=True)
class Ifmr(ActivationAlgorithm):
    """IFMR and its parameters.

    Attributes:
        search_range: first ratio of the upper bound to try, above 0, and end of the ratios to try.
        search_step: step between ratios, in (0, end - start].
        max_percentile: share of values that the initial upper bound covers, in (0.5, 1].
        min_percentile: likewise for the lower bound.
    """

    name: ClassVar[str] = "ifmr"
    message: ClassVar[str] = "FMRQuantize"

    search_range: tuple[float, float] = (0.7, 1.3)
    search_step: float = 0.01
    max_percentile: float = 0.999999
    min_percentile: float = 0.999999

    def content(self) -> dict[str, Any]:
        """Returns its entries in config.json, in the order of the original toolkit."""
        content = super().content()
        order = ("max_percentile", "min_percentile", "search_range", "search_step", "act_algo")
        return {key: content[key] for key in order}

    def fault(self) -> str | None:
        """Returns which parameter is out of range, as a sentence; None if all are in range."""
        for key, value in (("max_percentile", self.max_percentile), ("min_percentile", self.min_percentile)):
            if not 0.5 < value <= 1:
                return f"{key} is {value}; it must lie in (0.5, 1]."
        start, end = self.search_range
        if not 0 < start < end:
            return f"search_range is [{start}, {end}]; it must be [start, end] with 0 < start < end."
        # Decimal, because 1.3 - 0.7 in binary is a little less than 0.6.
        span, step = Decimal(str(end)) - Decimal(str(start)), Decimal(str(self.search_step))
        if not 0 < step <= span:
            return f"search_step is {self.search_step}; it must lie in (0, {span}]."
        if span / step > _MOST_RATIOS:
            return (
                f"search_step is {self.search_step}; that makes more than {_MOST_RATIOS} ranges to try per layer. Use "
                "a larger step."
            )
        return None

    def search(self, distribution: Distribution, asymmetric: bool) -> ActivationFactors:
        """Returns the factors with the least mean squared error; the first of equals."""
        highest, lowest = self._initial_bounds(distribution)
        if highest == lowest:
            return range_factors(lowest, highest, asymmetric)
        ratios = self.ratios()
        if asymmetric:
            uppers = ratios * highest
            lowers = np.full_like(uppers, lowest)
            scales = (uppers - lowest) / _LEVELS
        else:
            uppers = ratios * max(highest, -lowest)
            lowers = -uppers
            scales = uppers / (_SYMMETRIC_STEPS_BELOW if highest < -lowest else _SYMMETRIC_STEPS_ABOVE)
        scales = np.maximum(scales, SMALLEST_SCALE).astype(np.float32).astype(np.float64)
        best = int(np.argmin(SquaredErrors(distribution).of(lowers, uppers, scales)))
        if asymmetric:
            return asymmetric_factors(lowest, float(scales[best]))
        return ActivationFactors(float(scales[best]), 0)

    def ratios(self) -> np.ndarray:
        """Returns the ratios of the upper bound to try, float64; 61 of them by default, 0.7 to 1.3."""
        start, end = self.search_range
        count = math.ceil((end - start) / self.search_step)
        ratios = start + self.search_step * np.arange(max(count, 1))
        return np.asarray(np.round(ratios, 9))

    def _initial_bounds(self, distribution: Distribution) -> tuple[float, float]:
        """Returns the percentiles that the search starts from, widened to include 0.

        If so few values are not 0 that the percentiles leave all of them out, those of the values other than 0 count.
        """
        highest = distribution.kth_largest(_percentile_rank(self.max_percentile, distribution.total))
        lowest = distribution.kth_smallest(_percentile_rank(self.min_percentile, distribution.total))
        if highest <= 0 <= lowest:
            highest, lowest = distribution.highest, distribution.lowest
        return max(highest, 0.0), min(lowest, 0.0)


def _percentile_rank(percentile: float, total: int) -> int:
    """Returns the rank of the value at a percentile, from the top (or bottom); 1 is the extreme itself."""
    if 1 - percentile < _EPSILON:
        return 1
    return max(total - int(percentile * total), 1)
