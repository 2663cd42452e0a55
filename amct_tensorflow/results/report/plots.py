"""Draws the figures of the page, as inline SVG.

All are ``WIDTH`` by ``HEIGHT`` units, drawn on whole units, with y pointing down.
"""

import importlib
import io
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from amct_tensorflow.io.table import plural
from amct_tensorflow.results.report.document import Activation, Report, Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_INCHES = (7.2, 3.0)
# As shares of these. To let Matplotlib find them takes twice as long as all the rest.
_MARGINS = {"left": 0.14, "right": 0.99, "bottom": 0.17, "top": 0.9}

# Stand-ins, as Matplotlib knows no variables of CSS: each becomes the variable of its name.
TEXT, LINE, GOOD, BAD, INT8, FLOAT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {TEXT: "text", LINE: "line", GOOD: "good", BAD: "bad", INT8: "int8", FLOAT: "float"}
_SETTINGS: Any = {  # of a type that newer versions of Matplotlib have a name for
    "svg.fonttype": "none",  # text stays text
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
# Matplotlib has one set of settings for all threads, and a run draws in one beside that of its caller.
_drawing = threading.Lock()


def import_matplotlib() -> None:
    """Imports all of Matplotlib that figures need, so that the first is drawn as fast as others."""
    for module in ("figure", "ticker", "backends.backend_svg", "font_manager"):
        importlib.import_module(f"matplotlib.{module}")


def draw(name: str, description: str, paint: Callable[["Axes"], None]) -> str:
    """Draws a figure; equal figures give equal text.

    Args:
        name: prefix of its ids, which must be unique in the page.
        description: the text for screen readers.
        paint: draws into the axes.

    Returns:
        An ``svg`` element.
    """
    # Matplotlib takes half a second to be imported, and only a report needs it.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    stream = io.BytesIO()
    with _drawing, rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=_INCHES, facecolor="none")
        figure.subplots_adjust(**_MARGINS)
        paint(figure.subplots())
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _for_page(stream.getvalue(), name, description)


def _for_page(svg: bytes, name: str, description: str) -> str:
    """Returns an SVG file as an element of a page."""
    root = ElementTree.fromstring(svg)  # what Matplotlib has just written
    for part in [child for child in root if child.tag.endswith("metadata")]:
        root.remove(part)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if f"{{{_XLINK}}}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{{{_XLINK}}}href"))
        for key, value in element.attrib.items():
            element.set(key, _of_page(key, value, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    for style in root.findall(".//style"):
        style.text = ""  # it would hold for the whole page, which says the same for all figures
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def _of_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-")
    if key == "style":
        return re.sub(r"#0\d0\d0\d", lambda match: f"var(--{_VARIABLES[match[0]]})", value)
    return re.sub(r"url\(#", f"url(#{name}-", value)


# On a logarithmic axis, layers that do less than this share of the largest damage all look alike.
_LEAST = 1e-6


def search_figure(report: Report) -> str:
    """Draws the search: per evaluation, the loss against the layers in float."""
    count = len(report.evaluations)
    description = f"Loss against layers in float of {plural(count, 'evaluation')}; the table below has the numbers."
    return draw("search", description, partial(_paint_search, report))


def _paint_search(report: Report, axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as late as the rest of it

    outcome = report.outcome
    for satisfied, color, marker, label in ((True, GOOD, "o", "target met"), (False, BAD, "X", "target missed")):
        chosen = [each for each in report.evaluations if each.satisfied is satisfied and each.loss is not None]
        if chosen:
            points = [len(each.in_float) for each in chosen], [each.loss or 0.0 for each in chosen]
            axes.scatter(*points, s=60, color=color, marker=marker, label=label, zorder=3)
    for each in report.evaluations:
        if each.loss is not None:
            axes.annotate(str(each.number), (len(each.in_float), each.loss), (7, 4), textcoords="offset points",
                          fontsize=9)  # fmt: skip
    saved = next((each for each in report.evaluations if each.saved and each.loss is not None), None)
    if saved is not None:
        point = len(saved.in_float), saved.loss or 0.0
        axes.scatter(*point, s=220, facecolors="none", edgecolors=TEXT, label="saved", zorder=2)
        if outcome.interval is not None:
            axes.vlines(point[0], outcome.interval.lower, outcome.interval.upper, color=TEXT, linewidth=1, zorder=1)
    if outcome.target is not None:
        axes.axhline(outcome.target, color=LINE, linestyle="--", zorder=0)
        axes.annotate("target", (1, outcome.target), (-2, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=9)  # fmt: skip
    axes.set_xlabel("layers in float")
    axes.set_ylabel("loss")
    most = max((len(each.in_float) for each in report.evaluations), default=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(-0.5 - most / 20, most + 0.5 + most / 10)
    axes.margins(y=0.15)
    if axes.get_legend_handles_labels()[0]:
        # Above the plot, where no interval runs through it.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, markerscale=0.7, borderaxespad=0)


class Bar(NamedTuple):
    """A layer in a figure.

    Attributes:
        damage: its damage; None if it was not calibrated.
        int8: whether it is in int8.
    """

    damage: float | None
    int8: bool


@lru_cache(maxsize=1)
def along_figure(bars: tuple[Bar, ...]) -> str:
    """Draws the damage of the layers, given in the order of the model; may have been called for them before."""
    known = [(number, bar) for number, bar in enumerate(bars, 1) if bar.damage is not None]
    description = "Damage of each layer along the model; the table below has the numbers."
    return draw("along", description, partial(_paint_layers, known, "layer, in the order of the model"))


@lru_cache(maxsize=1)
def sorted_figure(bars: tuple[Bar, ...]) -> str:
    """Draws the damage of the layers, most damaging first; takes them as ``along_figure`` does."""
    known = sorted((bar for bar in bars if bar.damage is not None), key=lambda bar: -(bar.damage or 0.0))
    description = "Damage of each layer, most damaging first; the table below has the numbers."
    return draw("sorted", description, partial(_paint_layers, list(enumerate(known, 1)), "layer, most damaging first"))


def _paint_layers(bars: Sequence[tuple[int, Bar]], title: str, axes: "Axes") -> None:
    largest = max((bar.damage or 0.0 for _, bar in bars), default=0.0)
    for int8, color, label in ((True, INT8, "in int8"), (False, FLOAT, "in float")):
        chosen = [(place, bar.damage or 0.0) for place, bar in bars if bar.int8 is int8]
        if chosen:
            heights = [max(damage, largest * _LEAST) for _, damage in chosen]
            axes.bar([place for place, _ in chosen], heights, width=0.8, color=color, label=label)
    if largest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain_labels())
        axes.yaxis.set_minor_formatter(_plain_labels(labelOnlyBase=False))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel(title)
    axes.set_ylabel("damage")
    axes.margins(x=0.01)
    if len({bar.int8 for _, bar in bars}) > 1:
        axes.legend(loc="best")


_POWER = re.compile(r"\$\\mathdefault\{(?:(?P<factor>[^\\{}]+)\\times)?10\^\{(?P<exponent>-?\d+)\}\}\$")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _plain_labels(**options: Any) -> "Formatter":
    """Returns what labels a logarithmic axis as Matplotlib does, but in plain text.

    To typeset the labels takes as long as all the rest of a figure.
    """
    from matplotlib.ticker import LogFormatterSciNotation  # noqa: PLC0415 - as late as the rest of it

    class PlainLabels(LogFormatterSciNotation):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return plain_power(super().__call__(x, pos))

    return PlainLabels(**options)


def plain_power(label: str) -> str:
    """Returns a power of ten that Matplotlib would typeset, or a multiple of one, as text; other labels as they are."""
    found = _POWER.fullmatch(label)
    if found is None:
        return label
    factor = f"{found['factor']}·" if found["factor"] else ""
    return f"{factor}10{found['exponent'].translate(_RAISED)}"


WIDTH, HEIGHT = 384, 96
_MOST_COLUMNS = 128


@dataclass(frozen=True)
class HistogramSketch:
    """A histogram, and where it is clipped.

    Attributes:
        path: its outline; heights are logarithms of the counts.
        clip: x of the lower and of the upper end of the clip.
        low: the value at the left edge.
        high: the value at the right edge.
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
        low: the value at the bottom.
        high: the value at the top.
    """

    path: str
    zero: int
    low: float
    high: float


def sketch_histogram(activation: Activation) -> HistogramSketch | None:
    """Draws a histogram; None if there is none."""
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
