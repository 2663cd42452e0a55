"""How the values of a tensor fill their range, as far as rounding to one scale depends on it."""

from dataclasses import dataclass

import numpy as np

from amct_tensorflow.ops import Quantizable
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

    def spread(self, uses: np.ndarray | None = None) -> float | None:
        """Returns by what one step for all channels errs more than a step for each would.

        Rounding channel ``c`` in steps of ``s_c`` moves the output by ``s_c^2 / 12 * sum(w_c^2)``, where ``w_c`` are
        the weights that read the channel, and the least step that holds it is as large as its peak. So it is the
        greatest peak by the root mean square of all, weighed by these sums.

        Args:
            uses: these sums, float64 [C]; None where every channel counts the same.

        Returns:
            The ratio of the two errors; None of fewer than 4 channels, or zeros.
        """
        if self._axis is None or self._peaks.size < 4:
            return None
        shares = np.ones(self._peaks.size) if uses is None or uses.size != self._peaks.size else uses
        if not (shares.sum() > 0 and np.any(self._peaks * shares)):
            return None
        typical = np.sqrt(np.average(self._peaks.astype(np.float64) ** 2, weights=shares))
        return float(self._peaks.max() / typical)


def uses_of_channels(op: Quantizable, weights: np.ndarray | None) -> np.ndarray | None:
    """Returns per channel of what a layer reads the sum of the squared weights that read it, float64 [Cin].

    Of groups, in which a weight reads several channels, and of a layer without weights it is None.

    Args:
        op: its op type.
        weights: float32, in the layout of the op.
    """
    if weights is None or op.input_axis is None:
        return None
    others = tuple(axis for axis in range(weights.ndim) if axis != op.input_axis)
    return np.asarray(np.square(weights, dtype=np.float64).sum(axis=others))


@dataclass(frozen=True)
class RangeShape:
    """How values fill their range.

    Attributes:
        count: number of values.
        mean: their mean.
        deviation: their standard deviation.
        channel_spread: see ``ChannelPeaks.spread``.
    """

    count: int
    mean: float
    deviation: float
    channel_spread: float | None

    @classmethod
    def of(cls, distribution: Distribution, peaks: ChannelPeaks, uses: np.ndarray | None = None) -> "RangeShape":
        """Returns the shape of a range that was observed; ``uses`` as in ``ChannelPeaks.spread``."""
        count, total, squares = distribution.sums[:, -1]
        mean = total / count
        return cls(int(count), float(mean), float(np.sqrt(max(squares / count - mean * mean, 0.0))), peaks.spread(uses))
