"""Tells why a layer loses much by int8, from how what it reads fills its range, and what helps.

The figures are rules of thumb. Values of a normal distribution that are clipped at 4 standard deviations have 32 steps
of 8 bits within one of these; a quarter of that loses 12 dB.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.algorithms.range_shape import RangeShape

_FEW_STEPS = 8
_LARGE_SPREAD = 8
_FAR_MEAN = 4
_FEW_VALUES = 4096
_SHARE_OF_DAMAGE = 0.8
_MOST_LAYERS = 8

_WIDER = "Give its activations 16 bits (num_bits: 16), or search with --device generic, which finds such layers."
_BALANCE = "Let calibration balance its channels (input_balancing: true)."
_Layer = TypeVar("_Layer")


@dataclass(frozen=True)
class Cause:
    """A reason why a layer loses much.

    Attributes:
        kind: ``outlier_channels``, ``tails``, ``far_mean``, ``few_values``, ``one_weight_scale``, or ``unknown``.
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
    """

    grid: ActivationFactors
    shape: RangeShape | None
    is_balanced: bool
    may_balance: bool
    weight_spread: float | None


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
    return tuple(_causes(symptoms)) or (
        Cause("unknown", "Nothing stands out: its values fill their range, and its error is that of 8 bits.", _WIDER),
    )


def _causes(symptoms: Symptoms) -> Iterator[Cause]:
    spread = symptoms.weight_spread
    if spread is not None and spread >= _LARGE_SPREAD:
        yield Cause(
            "one_weight_scale",
            f"All its weights have one scale, but those of some outputs reach {spread:.0f} times as far as usual.",
            "Give every output a scale of its own (channel_wise: true).",
        )
    if symptoms.shape is not None and symptoms.grid.num_bits == INT8_BITS:
        yield from _causes_in_range(symptoms.shape, symptoms)


def _causes_in_range(shape: RangeShape, symptoms: Symptoms) -> Iterator[Cause]:
    if shape.count < _FEW_VALUES:
        detail = f"Only {shape.count} values of what it reads were seen."
        yield Cause("few_values", detail, "Calibrate on more data (batch_num).")
    steps = shape.deviation / symptoms.grid.scale
    left = f"{steps:.1f} steps are left for a standard deviation."
    if steps < 2 * _FEW_STEPS and abs(shape.mean) >= _FAR_MEAN * shape.deviation > 0:
        detail = f"What it reads lies around {shape.mean:.3g}, but 0 has to be in its range, too: {left}"
        yield Cause("far_mean", detail, _WIDER)
    elif steps < 2 * _FEW_STEPS and (shape.channel_spread or 0) >= _LARGE_SPREAD:
        detail = f"Some channels of what it reads reach {shape.channel_spread:.0f} times as far as usual: {left}"
        yield Cause("outlier_channels", detail, _WIDER if symptoms.is_balanced or symptoms.may_balance else _BALANCE)
    elif steps < _FEW_STEPS:
        yield Cause("tails", f"What it reads has long tails, in all channels alike: {left}", _WIDER)
