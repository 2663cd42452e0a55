"""Draws a run: what was tried, what was kept, and which layers mind being quantized.

    pip install matplotlib
    python ./src/plot_run.py --output run.svg

It reads the files that the sample left in outputs/ and amct_log/; the name of the picture says its format (svg, png,
pdf).

Exit codes: 0 the picture is drawn; 1 an input cannot be used; 2 wrong arguments.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")  # no window; a server has none
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

RESULTS = Path("outputs/accuracy_based_auto_calibration")
LOGS = Path("amct_log")
PREFIX = "accuracy_based_auto_calibration"
MET, MISSED, FLOAT, QUANTIZED = "tab:green", "tab:red", "tab:blue", "tab:gray"
MOST_NAMES = 12
# Layers whose similarity is 1 to the last digit would have no place on a logarithmic axis.
LEAST_SENSITIVITY = 1e-8


class InputError(ValueError):
    """The files of the run cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Evaluation:
    """A configuration that was evaluated: the layers in float, whether the target was met, and the loss."""

    in_float: frozenset[str]
    satisfied: bool
    loss: float


@dataclass(frozen=True)
class Run:
    """A run of the search.

    Attributes:
        evaluations: in the order in which they took place; the first is of all layers quantized.
        sensitivities: per layer, one minus its similarity.
        saved: layers in float in the saved model.
    """

    evaluations: list[Evaluation]
    sensitivities: dict[str, float]
    saved: frozenset[str]


def read_run(results: Path, logs: Path) -> Run:
    """Reads the files of a run.

    Raises:
        InputError: one is missing or damaged.
    """
    history = _read(logs / f"{PREFIX}_record.json")
    ranking = _read(results / f"{PREFIX}_ranking_information.json")
    final = _read(results / f"{PREFIX}_final_config.json")
    try:
        evaluations = [
            Evaluation(
                frozenset(layer for layer, quantized in entry["roll_back_config"].items() if not quantized),
                bool(entry["metric_eval"][0]),
                float(entry["metric_eval"][1]),
            )
            for entry in history
        ]
        sensitivities = {layer: max(1 - float(similarity), LEAST_SENSITIVITY) for layer, similarity in ranking}
        saved = frozenset(layer for layer in sensitivities if not final[layer]["quant_enable"])
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(f"{results} and {logs} do not hold the files of one run ({error}). Run it again.") from error
    return Run(evaluations, sensitivities, saved)


def _read(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}). Run the sample first, in this directory.") from error


def draw(run: Run) -> Figure:
    """Draws a run: the evaluations on the left, the layers on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[1, 2], layout="constrained")
    _draw_evaluations(left, run)
    _draw_layers(right, run)
    return figure


def _draw_evaluations(axes: Axes, run: Run) -> None:
    for number, evaluation in enumerate(run.evaluations, 1):
        if not math.isfinite(evaluation.loss):
            continue
        point = len(evaluation.in_float), evaluation.loss
        is_saved = evaluation.in_float == run.saved
        color = MET if evaluation.satisfied else MISSED
        axes.scatter(*point, s=160, color=color, edgecolors="black" if is_saved else color, linewidths=2)
        axes.annotate(str(number), point, ha="center", va="center", color="white", fontsize=8)
    axes.set_title("Evaluated, in this order", fontsize=10)
    axes.set_xlabel("layers in float")
    axes.set_ylabel("loss (green: target met; black edge: saved)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(0.2)


def _draw_layers(axes: Axes, run: Run) -> None:
    layers = sorted(run.sensitivities, key=lambda layer: -run.sensitivities[layer])
    in_float = [layer for layer in layers if layer in run.saved]
    colors = [FLOAT if layer in run.saved else QUANTIZED for layer in layers]
    axes.bar(range(1, len(layers) + 1), [run.sensitivities[layer] for layer in layers], color=colors)
    names = in_float[:MOST_NAMES] + [f"and {len(in_float) - MOST_NAMES} more"] * (len(in_float) > MOST_NAMES)
    axes.text(
        0.98,
        0.96,
        "\n".join(names),
        transform=axes.transAxes,
        ha="right",
        va="top",
        color=FLOAT,
        fontsize=8,
        parse_math=False,
    )
    axes.set_yscale("log")
    axes.set_title(f"{len(layers)} layers by sensitivity; {len(in_float)} stay in float (blue)", fontsize=10)
    axes.set_xlabel("rank")
    axes.set_ylabel("1 - similarity when quantized")
    axes.margins(x=0.01)


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draw a run of the sample.")
    add = parser.add_argument
    add("--output", metavar="FILE", type=Path, required=True, help="picture to write: .svg, .png or .pdf (required)")
    add("--results", metavar="DIR", type=Path, default=RESULTS, help="default: %(default)s")
    add("--logs", metavar="DIR", type=Path, default=LOGS, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    if arguments.output.suffix not in (".svg", ".png", ".pdf"):
        parser.error(f"{arguments.output}: the name of the picture must end with .svg, .png or .pdf")
    mpl.rcParams["svg.hashsalt"] = PREFIX  # the same run gives the same bytes
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    temporary = arguments.output.with_name(f".{os.getpid()}.{arguments.output.name}")
    try:
        figure = draw(read_run(arguments.results, arguments.logs))
        figure.savefig(temporary, metadata=None if arguments.output.suffix == ".png" else _undated(arguments.output))
        temporary.replace(arguments.output)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, ArithmeticError) as error:  # numbers too large for the axes
        reason = " ".join(str(error).split())
        print(f"error: the numbers of the run cannot be drawn ({reason}). Run it again.", file=sys.stderr)
        return 1
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{arguments.output} is drawn.")
    return 0


def _undated(picture: Path) -> dict[str, None]:
    return {"Date": None} if picture.suffix == ".svg" else {"CreationDate": None}


if __name__ == "__main__":
    sys.exit(main())
