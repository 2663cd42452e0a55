"""Computes scale and zero point of an activation (spec section 7.4), and moves them away from ties.

A tie is a value in the middle between two levels. Images divided by 127.5, less 1, consist of ties: their values are
``(k - 127.5) * 2 / 255``, and a range of [-1, 1] has the scale 2 / 255. Runtimes round ties differently: AscendQuant
and ONNX to even, TensorFlow's fake quantizers up, OpenVINO by the parity of the zero point; errors of float32 decide as
well. Rounding to even leaves 129 of the 256 levels of the image. A scale, or values, larger by ``TIE_MARGIN`` have no
ties.
"""

from dataclasses import dataclass, replace

import numpy as np

from amct_tensorflow.ops.clips import Clip
from amct_tensorflow.quantize.algorithms.distribution import Distribution
from amct_tensorflow.quantize.algorithms.scales import SCALE_OF_NOTHING, SMALLEST_SCALE, symmetric_scale

# Bits of quantized activations. In 16 they are symmetric around 0.
INT8_BITS, INT16_BITS = 8, 16
ACTIVATION_BITS = (INT8_BITS, INT16_BITS)
_QUANT_MIN, _QUANT_MAX = -128, 127


def type_name(num_bits: int) -> str:
    """Returns what records, configurations and graphs call the integers of so many bits: ``INT8`` for 8."""
    return f"INT{num_bits}"


def lowest_integer(num_bits: int) -> int:
    """Returns the least signed integer of so many bits: -128 for 8."""
    return -(1 << (num_bits - 1))


def highest_integer(num_bits: int) -> int:
    """Returns the greatest signed integer of so many bits: 127 for 8."""
    return (1 << (num_bits - 1)) - 1


@dataclass(frozen=True)
class ActivationFactors:
    """``x`` is approximately ``(x_q - offset) * scale``.

    Attributes:
        scale: step of the quantized activation, in units of the activation; a float32 value.
        offset: zero point, in [-128, 127]; 0 in 16 bits.
        num_bits: bits of ``x_q``, 8 or 16.
    """

    scale: float
    offset: int
    num_bits: int = INT8_BITS

    @property
    def inverse(self) -> np.float32:
        """What AscendQuant multiplies by: ``1 / scale`` in float32.

        It is the same of the inverse of that inverse: whatever ``x``, ``1 / (1 / (1 / x))`` is ``1 / x`` in float32.
        """
        return np.float32(np.float32(1) / np.float32(self.scale))

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value that it has an integer of."""
        return (self.lowest - self.offset) * self.scale, (self.highest - self.offset) * self.scale

    @property
    def lowest(self) -> int:
        """The least integer."""
        return lowest_integer(self.num_bits)

    @property
    def highest(self) -> int:
        """The greatest integer."""
        return highest_integer(self.num_bits)

    def integer_of(self, value: float) -> int:
        """Returns what AscendQuant makes of a value, which may be infinite."""
        steps = np.rint(np.float32(value) * self.inverse)
        return int(np.clip(steps + self.offset, self.lowest, self.highest))

    def repeats(self, clip: Clip) -> bool:
        """Tells whether the integers of values are those of the clipped values, so that the clip is superfluous."""
        return self.integer_of(clip.lowest) == self.lowest and self.integer_of(clip.highest) == self.highest


def asymmetric_factors(lowest: float, scale: float) -> ActivationFactors:
    """Returns the factors of a range that starts at ``lowest <= 0`` with a given step."""
    offset = int(-np.rint(np.float32(lowest) / np.float32(scale))) + _QUANT_MIN
    return ActivationFactors(scale, min(offset, _QUANT_MAX))


def range_factors(lowest: float, highest: float, asymmetric: bool) -> ActivationFactors:
    """Returns the factors that cover ``[lowest, highest]``, widened to include 0; both are 0 if only 0 was seen."""
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    if lowest == highest:
        return ActivationFactors(SCALE_OF_NOTHING, _QUANT_MIN if asymmetric else 0)
    if not asymmetric:
        symmetric = symmetric_scale(np.array([highest]), np.array([-lowest]))
        return ActivationFactors(float(np.float32(symmetric[0])), 0)
    scale = max((highest - lowest) / 255, SMALLEST_SCALE)
    return asymmetric_factors(lowest, float(np.float32(scale)))


def wide_range_factors(lowest: float, highest: float) -> ActivationFactors:
    """Returns the factors in 16 bits that cover ``[lowest, highest]``, symmetric around 0.

    Both extremes are kept: with steps of 2**-15 of the range, clipping never gains what it loses.
    """
    largest = max(-lowest, highest, 0.0)
    scale = max(largest / highest_integer(INT16_BITS), SMALLEST_SCALE) if largest else SCALE_OF_NOTHING
    return ActivationFactors(float(np.float32(scale)), 0, INT16_BITS)


def round_through_float16(scale: float) -> float | None:
    """Rounds a scale so that float16 holds it, or its square root where it is out of range (spec section 7.1).

    Returns:
        The scale; None if its square root is out of range, too.
    """
    if 2.0**-14 <= scale <= 65504.0:
        return float(np.float16(scale))
    root = np.sqrt(scale)
    return float(np.float32(np.float16(root)) ** 2) if 2.0**-14 <= root <= 65504.0 else None


# In terms of a step. Float32 loses 2**-16 of one at the ends of a range; values that are no ties hardly notice it.
TIE_MARGIN = 2.0**-10
# A value stands for others on the grid of a histogram, which may be this far off.
_NEAR = 2.0**-6


def break_ties(distribution: Distribution, factors: ActivationFactors) -> ActivationFactors:
    """Returns the factors with a scale larger by ``TIE_MARGIN`` if most values are ties; else as they are.

    Args:
        distribution: the values observed.
        factors: scale and zero point that were chosen for them.
    """
    steps = np.abs(distribution.values / factors.scale)
    ties = np.abs(steps - np.floor(steps) - 0.5) < _NEAR
    if 2 * distribution.counts[ties].sum() <= distribution.counts.sum():
        return factors
    return replace(factors, scale=float(np.float32(factors.scale * (1 + TIE_MARGIN))))
