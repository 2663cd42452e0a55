"""Computes the levels of TensorFlow's fake quantizers from the ranges that they learnt.

A fake quantizer nudges its range, so that 0 becomes one of its values, as the documentation of
``tf.quantization.fake_quant_with_min_max_vars`` describes. All is computed in float32, as TensorFlow does::

    scale      = (max - min) / (highest - lowest)
    zero_point = round(lowest - min / scale), limited to [lowest, highest]
    values     = (level - zero_point) * scale        for level in [lowest, highest]
"""

from dataclasses import dataclass

import numpy as np

# What float32 loses of a level, with room.
_FLOAT32 = 2.0**-13


@dataclass(frozen=True, eq=False)
class FakeQuantizerRange:
    """The levels of a fake quantizer.

    Attributes:
        scale: step between two values, float32 [channels], or [1] for one range; 0 or less where the range is empty.
        zero_point: the level that stands for 0, int64, likewise.
        lowest: the lowest level: 0, or 1 for a narrow range.
        highest: the highest level.
        between: whether 0 lay in the middle between two levels before nudging, bool, likewise. If so, evenly spread
            values of the original range are all ties.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    lowest: int
    highest: int
    between: np.ndarray

    @property
    def is_int8(self) -> bool:
        """Tells whether its levels are those of int8, shifted by 128."""
        return (self.lowest, self.highest) == (0, 255)


def fake_quantizer_range(
    minimum: np.ndarray, maximum: np.ndarray, num_bits: int, narrow_range: bool
) -> FakeQuantizerRange:
    """Returns the levels of a fake quantizer, after nudging.

    Args:
        minimum: lower ends of the ranges, float32, a scalar or [channels].
        maximum: upper ends, likewise.
        num_bits: number of bits of a level.
        narrow_range: whether the lowest level is left out.
    """
    lowest, highest = int(narrow_range), 2**num_bits - 1
    low, high = np.atleast_1d(np.float32(minimum)), np.atleast_1d(np.float32(maximum))
    scale = (high - low) / np.float32(highest - lowest)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.where(scale > 0, np.float32(lowest) - low / scale, np.float32(lowest))
    # Of two levels that are equally near TensorFlow takes the one farther from 0; here none is below 0.
    exact = np.clip(exact, lowest, highest).astype(np.float64)
    between = np.abs(exact - np.floor(exact) - 0.5) < _FLOAT32
    return FakeQuantizerRange(scale, np.floor(exact + 0.5).astype(np.int64), lowest, highest, between)
