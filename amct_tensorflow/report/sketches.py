"""Small pictures of layers, of which there are hundreds in a page: each a few paths, without axes.

All are ``WIDTH`` by ``HEIGHT`` units, drawn on whole units, with y pointing down.
"""

import math
from dataclasses import dataclass

import numpy as np

from amct_tensorflow.report.document import Activation, Weights

WIDTH, HEIGHT = 384, 96
_MOST_COLUMNS = 128


@dataclass(frozen=True)
class HistogramSketch:
    """A histogram, and where it is clipped.

    Attributes:
        path: its outline; heights are logarithms of the counts.
        clip: x of the lower and of the upper end of the clip.
        low: what the left edge stands for.
        high: what the right edge stands for.
    """

    path: str
    clip: tuple[int, int]
    low: float
    high: float


@dataclass(frozen=True)
class RangesSketch:
    """The range of the weights of each output channel, from left to right.

    Attributes:
        path: their outline.
        zero: y of zero.
        low: what the bottom stands for.
        high: what the top stands for.
    """

    path: str
    zero: int
    low: float
    high: float


def sketch_histogram(activation: Activation) -> HistogramSketch | None:
    """Draws what was observed; None if nothing is known of it."""
    seen = activation.observed
    if seen is None or not seen.counts:
        return None
    low, high = min(seen.lowest, activation.clip[0]), max(seen.highest, activation.clip[1])
    span = high - low or 1.0
    edges = [_scaled(edge, low, span) for edge in np.linspace(seen.lowest, seen.highest, len(seen.counts) + 1)]
    tallest = math.log1p(max(seen.counts)) or 1.0
    heights = [HEIGHT - round(HEIGHT * math.log1p(max(count, 0.0)) / tallest) for count in seen.counts]
    steps = "".join(f"V{height}H{edge}" for height, edge in zip(heights, edges[1:], strict=True))
    clip = _scaled(activation.clip[0], low, span), _scaled(activation.clip[1], low, span)
    return HistogramSketch(f"M{edges[0]} {HEIGHT}{steps}V{HEIGHT}Z", clip, low, high)


def sketch_ranges(weights: Weights) -> RangesSketch | None:
    """Draws the ranges of weights; neighbouring channels share a column where there are too many."""
    if not weights.lowest or len(weights.lowest) != len(weights.highest):
        return None
    low, high = min(0.0, *weights.lowest), max(0.0, *weights.highest)
    span = high - low or 1.0
    groups = np.array_split(np.arange(len(weights.lowest)), min(len(weights.lowest), _MOST_COLUMNS))
    tops = [_down(max(weights.highest[i] for i in group), low, span) for group in groups]
    bottoms = [_down(min(weights.lowest[i] for i in group), low, span) for group in groups]
    edges = [round(WIDTH * place / len(groups)) for place in range(len(groups) + 1)]
    there = "".join(f"V{top}H{edge}" for top, edge in zip(tops, edges[1:], strict=True))
    back = "".join(f"V{bottom}H{edge}" for bottom, edge in zip(bottoms[::-1], edges[-2::-1], strict=True))
    return RangesSketch(f"M0 {bottoms[0]}{there}{back}Z", _down(0.0, low, span), low, high)


def _scaled(value: float, low: float, span: float) -> int:
    return round(WIDTH * (value - low) / span)


def _down(value: float, low: float, span: float) -> int:
    return HEIGHT - round(HEIGHT * (value - low) / span)
