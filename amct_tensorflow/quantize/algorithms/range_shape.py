"""How the values of a tensor fill their range, as far as rounding to one scale depends on it."""

from dataclasses import dataclass

import numpy as np

from amct_tensorflow.quantize.algorithms.distribution import Distribution

# Of a batch, about so many values are looked at; which channel reaches far, few rows show.
_SAMPLE_LIMIT = 1 << 18


class ChannelPeaks:
    """The greatest magnitudes of the channels of a tensor, on a sample of the rows of every batch."""

    def __init__(self, axis: int | None) -> None:
        """Takes the axis that counts the channels; None if none does."""
        self._axis = axis
        self._peaks = np.zeros(0, np.float32)

    def add(self, value: np.ndarray) -> None:
        """Takes the values of a batch."""
        if self._axis is None or value.ndim < 2 or not value.size:
            return
        channels_last = np.moveaxis(value, self._axis, -1)
        rows = channels_last.reshape(-1, channels_last.shape[-1])
        peaks = np.abs(rows[:: max(1, rows.size // _SAMPLE_LIMIT)]).max(axis=0)
        if self._peaks.size and self._peaks.size != peaks.size:
            self._axis = None  # sequences of several lengths, which are no channels
            return
        self._peaks = np.maximum(self._peaks, peaks) if self._peaks.size else peaks

    @property
    def spread(self) -> float | None:
        """By what the greatest peak surpasses that of the median channel; None of fewer than 4 channels, or zeros."""
        if self._axis is None or self._peaks.size < 4:
            return None
        median = float(np.median(self._peaks))
        return float(self._peaks.max()) / median if median > 0 else None


@dataclass(frozen=True)
class RangeShape:
    """How values fill their range.

    Attributes:
        count: number of values.
        mean: their mean.
        deviation: their standard deviation.
        channel_spread: see ``ChannelPeaks``.
    """

    count: int
    mean: float
    deviation: float
    channel_spread: float | None

    @classmethod
    def of(cls, distribution: Distribution, peaks: ChannelPeaks) -> "RangeShape":
        """Returns the shape of a range that was observed."""
        count, total, squares = distribution.sums[:, -1]
        mean = total / count
        return cls(int(count), float(mean), float(np.sqrt(max(squares / count - mean * mean, 0.0))), peaks.spread)
