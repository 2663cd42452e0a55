"""Tells why a layer loses much by int8, from how what it reads fills its range, and what helps.

The figures are rules of thumb. Values of a normal distribution that are clipped at 4 standard deviations have 32 steps
of 8 bits within one of these; half of that loses 6 dB. Where a step for all channels errs 4 times as much as a step for
each, that loses 12 dB.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from amct_tensorflow.io.table import plural
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.algorithms.range_shape import RangeShape

_FEW_STEPS = 16
_LARGE_CHANNEL_SPREAD = 4
_LARGE_WEIGHT_SPREAD = 8
_FAR_MEAN = 4
_LONG_TAIL = 4
_FEW_VALUES = 4096
_SHARE_OF_DAMAGE = 0.8
_MOST_LAYERS = 8

# Of values that are all one, sums in double precision leave so much of a deviation.
_ROUNDING = 1e-6

_IN_FLOAT = "Leave it in float (quant_enable: false)."
_WIDER = (
    "Give its activations 16 bits (num_bits: 16, asymmetric: false), or search with --device generic, which finds such "
    "layers."
)
_ZERO_POINT = "Give it a zero point (asymmetric: true), which makes its steps half as large."
_BALANCE = "Let calibration balance its channels (input_balancing: true)."
_Layer = TypeVar("_Layer")


@dataclass(frozen=True)
class Cause:
    """A reason why a layer loses much.

    Attributes:
        kind: ``outlier_channels``, ``tails``, ``far_mean``, ``unused_levels``, ``few_values``, ``constant``,
            ``one_weight_scale``, or ``unknown``.
        detail: what is so of this layer, as a sentence.
        remedy: what helps, as a sentence or two.
    """

    kind: str
    detail: str
    remedy: str


@dataclass(frozen=True)
class Symptoms:
    """What is known of a layer that loses much.

    Attributes:
        grid: scale, offset and bits of what it reads.
        shape: how that fills its range; None if it is not known.
        is_balanced: whether its channels are balanced.
        may_balance: whether calibration was free to balance channels.
        weight_spread: of weights with one scale for all, by what the channel that reaches farthest surpasses the median
            one; None with a scale per channel.
        is_product: whether it multiplies two computed operands, for which there are no 16 bits.
        seen: the least and the greatest value that it reads; None if they are not known.
    """

    grid: ActivationFactors
    shape: RangeShape | None
    is_balanced: bool
    may_balance: bool
    weight_spread: float | None
    is_product: bool = False
    seen: tuple[float, float] | None = None

    @property
    def reads_8_bits(self) -> bool:
        """Whether what it reads has 8 bits."""
        return self.grid.num_bits == INT8_BITS

    @property
    def remedy_for_coarse_steps(self) -> str:
        """What helps where the steps of its input are too coarse."""
        return _WIDER if self.reads_8_bits and not self.is_product else _IN_FLOAT

    @property
    def unused_side(self) -> str | None:
        """The side of 0 on which no value lies, but half of the levels do; None if there is none."""
        if self.seen is None or self.grid.offset != 0 or self.is_product or self.seen[0] == self.seen[1]:
            return None
        margin = self.grid.scale / 2  # what is less than that is rounded to 0
        return "below" if self.seen[0] >= -margin else "above" if self.seen[1] <= margin else None

    def reach(self, shape: RangeShape) -> tuple[float, float] | None:
        """Returns how far values and range go below the mean and above it, in standard deviations, if it is known."""
        if self.seen is None:
            return None
        lowest, highest = self.grid.limits
        below, above = shape.mean - max(lowest, self.seen[0]), min(highest, self.seen[1]) - shape.mean
        return below / shape.deviation, above / shape.deviation


def most_damaging(damages: Iterable[tuple[_Layer, float]]) -> Iterator[tuple[_Layer, float]]:
    """Yields the layers that make up most of the damage, up to a number that one still reads, and their shares of it.

    Args:
        damages: the layers, and the damage that each does alone; one that is not finite counts as none.
    """
    known = sorted(((layer, damage) for layer, damage in damages if 0 < damage < math.inf), key=lambda pair: -pair[1])
    total, told = sum(damage for _, damage in known), 0.0
    for layer, damage in known[:_MOST_LAYERS]:
        if told >= _SHARE_OF_DAMAGE * total:
            return
        told += damage
        yield layer, damage / total


def spread_of_weights(lowest: Sequence[float], highest: Sequence[float]) -> float | None:
    """Returns by what the output channel whose weights reach farthest surpasses the median one; None of zeros."""
    peaks = np.maximum(np.abs(lowest), np.abs(highest))
    median = float(np.median(peaks))
    return float(peaks.max()) / median if median > 0 else None


def find_causes(symptoms: Symptoms) -> tuple[Cause, ...]:
    """Returns the causes that are found, the likeliest first; one that is called unknown if there are none."""
    return tuple(_causes(symptoms)) or (_unknown(symptoms),)


def _unknown(symptoms: Symptoms) -> Cause:
    detail = "Nothing stands out: its values fill their range, and its error is that of 8 bits."
    if not symptoms.reads_8_bits:
        detail = "What it reads has 16 bits, so that its error is that of its weights, which have 8."
    return Cause("unknown", detail, symptoms.remedy_for_coarse_steps)


def _causes(symptoms: Symptoms) -> Iterator[Cause]:
    spread = symptoms.weight_spread
    if spread is not None and spread >= _LARGE_WEIGHT_SPREAD:
        yield Cause(
            "one_weight_scale",
            f"All its weights have one scale, but those of some outputs reach {spread:.0f} times as far as usual.",
            "Give every output a scale of its own (channel_wise: true).",
        )
    if symptoms.shape is not None and symptoms.reads_8_bits:
        yield from _causes_in_range(symptoms.shape, symptoms)


def _causes_in_range(shape: RangeShape, symptoms: Symptoms) -> Iterator[Cause]:
    if shape.count < _FEW_VALUES:
        detail = f"Only {plural(shape.count, 'value', 'was', 'were')} seen of what it reads."
        yield Cause("few_values", detail, "Calibrate on more data (batch_num).")
    if shape.deviation <= _ROUNDING * abs(shape.mean):
        detail = f"Everything that it reads is {shape.mean:.3g}: no data has shown what it may read."
        yield Cause("constant", detail, "Calibrate on data that the model will see.")
        return
    steps = shape.deviation / symptoms.grid.scale
    wider = symptoms.remedy_for_coarse_steps
    left = f"{steps:.1f} steps are left for a standard deviation."
    spread = shape.channel_spread or 0.0
    if symptoms.unused_side is not None:
        detail = f"It reads nothing {symptoms.unused_side} 0, where half of its levels are: {left}"
        yield Cause("unused_levels", detail, _ZERO_POINT)
        steps *= 2
    if steps < _FEW_STEPS and abs(shape.mean) >= _FAR_MEAN * shape.deviation > 0:
        detail = f"What it reads lies around {shape.mean:.3g}, but 0 has to be in its range, too: {left}"
        yield Cause("far_mean", detail, wider)
    elif spread >= _LARGE_CHANNEL_SPREAD:
        lost = f"one step for all loses {20 * math.log10(spread):.0f} dB against one for each."
        detail = f"Channels of what it reads reach unequally far: {lost}"
        yield Cause("outlier_channels", detail, wider if symptoms.is_balanced or symptoms.may_balance else _BALANCE)
    elif steps < _FEW_STEPS:
        yield Cause("tails", f"What it reads has {_tails(symptoms.reach(shape))}: {left}", wider)


def _tails(reach: tuple[float, float] | None) -> str:
    """Describes tails by how far they go below the mean and above it, in standard deviations."""
    if reach is None or max(reach) < _LONG_TAIL:
        return "long tails"
    below, above = reach
    if min(reach) >= _LONG_TAIL:
        return f"long tails on both sides, {below:.0f} standard deviations below its mean and {above:.0f} above it"
    if above > below:
        return f"a long tail on one side, {above:.0f} standard deviations above its mean, and {below:.1f} below it"
    return f"a long tail on one side, {below:.0f} standard deviations below its mean, and {above:.1f} above it"
