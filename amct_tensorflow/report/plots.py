"""The figures of the page."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from amct_tensorflow.report.document import Layer, Report
from amct_tensorflow.report.figure import BAD, FLOAT, GOOD, INT8, LINE, TEXT, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# On a logarithmic axis, layers that do less than this share of the largest damage all look alike.
_LEAST = 1e-6


def search_figure(report: Report) -> str:
    """Draws the search: per evaluation, the loss against the layers in float."""
    count = len(report.evaluations)
    description = f"Loss against layers in float of {count} evaluations; the table below has the numbers."
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


def along_figure(report: Report) -> str:
    """Draws the damage of the layers in the order of the model."""
    layers = [(number, layer) for number, layer in enumerate(report.layers, 1) if layer.damage is not None]
    description = "Damage of each layer along the model; the table below has the numbers."
    return draw("along", description, partial(_paint_layers, layers, "layer, in the order of the model"))


def sorted_figure(report: Report) -> str:
    """Draws the damage of the layers, most damaging first."""
    layers = list(enumerate(report.by_damage, 1))
    description = "Damage of each layer, most damaging first; the table below has the numbers."
    return draw("sorted", description, partial(_paint_layers, layers, "layer, most damaging first"))


def _paint_layers(layers: Sequence[tuple[int, Layer]], title: str, axes: "Axes") -> None:
    largest = max((layer.damage or 0.0 for _, layer in layers), default=0.0)
    for int8, color, label in ((True, INT8, "in int8"), (False, FLOAT, "in float")):
        chosen = [(place, layer.damage or 0.0) for place, layer in layers if layer.int8 is int8]
        if chosen:
            heights = [max(damage, largest * _LEAST) for _, damage in chosen]
            axes.bar([place for place, _ in chosen], heights, width=0.8, color=color, label=label)
    if largest > 0:
        axes.set_yscale("log")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel(title)
    axes.set_ylabel("damage")
    axes.margins(x=0.01)
    if len({layer.int8 for _, layer in layers}) > 1:
        axes.legend(loc="best")
