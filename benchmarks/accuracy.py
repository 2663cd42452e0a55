"""What does each step of quantization gain? Each on and off, on finer and coarser hardware, over several draws.

One row per way to quantize, for each network (``classifiers.py``) in a process of its own. A row is a whole run: all
layers quantized are evaluated on all images, and where they lose 0.5 points of top-1 or more, PredictiveSearch with
OutputDivergence looks for the layers to roll back. When all rows of all networks were measured, the tables are written
into ``docs/algorithms.md``.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measuring import BATCH, ROOT, STEPS, measured_on, report, scratch_folder, table, without

import numpy as np
from classifiers import CLASSIFIERS, Classifier, Judge
from one_sided import only_activations, only_weights
from pages import write_section
from processes import is_complete, measure_each, run_apart

import amct_tensorflow as amct
from amct_tensorflow.quantize.config.schema import QuantConfig, WeightConfig

PAGE = ROOT / "docs" / "algorithms.md"
TARGET = 0.5
DRAWS = 5
MORE_BATCHES = 4
SEED = 1
OF_WEIGHTS = ("rounding",)


@dataclass(frozen=True)
class Way:
    """A way to quantize, which is one row.

    Attributes:
        hardware: what is quantized, and how finely; what the table calls it.
        steps: the steps that are on.
        symmetric: whether activations have no zero point.
        per_layer: whether the weights of a layer share one scale.
        balance: how strongly residual streams are balanced; None for not at all.
        only: within what it makes, one kind of rounding is left out.
        batches: of how many batches of 32 images a draw consists.
        draws: how many times other images are drawn to calibrate with; the first are those that come first.
    """

    hardware: str
    steps: tuple[str, ...] = STEPS
    symmetric: bool = False
    per_layer: bool = False
    balance: float | None = None
    only: Callable[[], AbstractContextManager[None]] = nullcontext
    batches: int = 1
    draws: int = 1

    def configure(self, model: amct.FloatModel) -> QuantConfig:
        """Returns the configuration."""
        config = amct.make_quant_config(model, batch_num=self.batches, activation_offset=not self.symmetric)
        layers = dict(config.layers)
        for spec in model.layers:
            layer = layers[spec.name]
            if self.per_layer:
                layer = replace(layer, weights=WeightConfig(False))
            if spec.op.weight_input is not None:
                layer = replace(layer, dmq_strength=self.balance)
            layers[spec.name] = layer
        return replace(config, layers=layers, **without(step for step in STEPS if step not in self.steps))

    def cells(self) -> dict[str, str]:
        """Returns how the table describes it."""
        steps = {(): "none (the original toolkit's algorithms)", STEPS: "all"}.get(self.steps, ", ".join(self.steps))
        if self.balance is not None:
            steps += f", balanced with {self.balance}"
        images = f"{self.draws} x {self.batches * BATCH}" if self.draws > 1 else str(self.batches * BATCH)
        return {"quantized": self.hardware, "steps": steps, "calibration images": images}


def ablations() -> list[tuple[str, ...]]:
    """Returns sets of steps: one more step each time, and all but one."""
    growing = [STEPS[:count] for count in range(len(STEPS) + 1)]
    all_but_one = [tuple(step for step in STEPS if step != left_out) for left_out in STEPS]
    return list(dict.fromkeys([*growing, *all_but_one]))


def off_and_on(hardware: str, on: tuple[str, ...] = STEPS, **options: Any) -> list[Way]:
    """Returns the row without any step, and that with all."""
    return [Way(hardware, steps, **options) for steps in ((), on)]


COARSE = {
    "symmetric activations": {"symmetric": True},
    "one weight scale per layer": {"per_layer": True},
    "both of these": {"symmetric": True, "per_layer": True},
}
ROWS: dict[str, list[Way]] = {
    "steps": [Way("default", steps) for steps in ablations()],
    "sides": [
        *off_and_on("weights only", only=only_weights),
        *off_and_on("activations only", tuple(step for step in STEPS if step not in OF_WEIGHTS), only=only_activations),
    ],
    "balance": [Way("default", balance=strength) for strength in (0.5, 0.65, 0.8)],
    "coarse": [way for hardware, options in COARSE.items() for way in off_and_on(hardware, **options)],
    "draws": [Way("default", draws=DRAWS), Way("default", batches=MORE_BATCHES)],
}


def main() -> None:
    """Measures each network in a process of its own."""
    arguments = parse_arguments()
    amct.set_logging_level(print_level="error", save_level="error")
    if arguments.measure:
        print(json.dumps(measure(CLASSIFIERS[arguments.measure], arguments.rows)))
        return
    networks = measure_each(
        "accuracy", arguments.networks, lambda name: measure_apart(name, arguments.rows), arguments.json
    )
    rows = [{"network": network["network"], **row} for network in networks for row in format_rows(network)]
    report("accuracy", rows, f"The target is to lose less than {TARGET} points of top-1.")
    if is_complete(networks, list(CLASSIFIERS)) and arguments.rows == list(ROWS):
        lines = [line for network in networks for line in section(network)]
        write_section(PAGE, Path(__file__).name, [measured_on(), *lines])
    else:
        print(f"{PAGE} is as it was: it shows all rows of all networks or none.")


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="divergence, accuracy and layers in float, with each step on and off")
    parser.add_argument("--networks", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS), help="which (all)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which parts of the table (all)")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    parser.add_argument("--measure", choices=CLASSIFIERS, help="measure one in this process, and print one JSON line")
    return parser.parse_args()


def measure_apart(name: str, rows: Sequence[str]) -> dict[str, Any]:
    """Measures a network in a process of its own; returns a row with a remark if that fails."""
    missing = CLASSIFIERS[name].missing()
    if missing is not None:
        return {"network": name, "remark": f"{missing} is not there"}
    return run_apart(name, __file__, "--measure", name, "--rows", *rows)


def measure(classifier: Classifier, rows: Sequence[str]) -> dict[str, Any]:
    """Returns what each row of some parts of the table gives."""
    judge = Judge(classifier, TARGET)
    ways = [way for part in rows for way in ROWS[part]]
    measured = [{**way.cells(), "runs": [run(judge, way, draw) for draw in range(way.draws)]} for way in ways]
    first = measured[0]["runs"][0]
    return {
        "network": classifier.name,
        "images": len(classifier.data[0]),
        **{key: first[key] for key in ("float_top1", "layers")},
        "rows": measured,
    }


def run(judge: Judge, way: Way, draw: int) -> dict[str, Any]:
    """Runs the tool once."""
    classifier = judge.classifier
    judge.calibrate_with = images_of_draw(len(classifier.data[0]), way.batches * BATCH, draw)
    judge.divergences.clear()
    start = time.perf_counter()
    model = amct.FloatModel.load(classifier.inputs.model, [classifier.output])
    with scratch_folder(), way.only():
        result = amct.accuracy_based_auto_calibration(
            model, [classifier.output], "record.txt", "config.json", "net", judge,
            strategy="PredictiveSearch", sensitivity="OutputDivergence", config=way.configure(model),
            exact=True,  # the judge tells quantized models by their ops
        )  # fmt: skip
    in_float = [name for name, quantized in result.roll_back_config.items() if not quantized]
    return {
        "kl": judge.divergences[0],
        "top1": result.global_metric,
        "float_layers": len(in_float),
        "target_met": result.target_met,
        "saved_top1": result.saved_metric,
        "float_top1": result.original_metric,
        "layers": len(result.roll_back_config),
        "evaluations": result.evaluations,
        "seconds": round(time.perf_counter() - start, 2),
    }


def images_of_draw(number: int, size: int, draw: int) -> np.ndarray:
    """Returns which images are drawn: first those that come first, then others at random, none of them twice."""
    drawn = np.concatenate([np.arange(size), size + np.random.default_rng(SEED).permutation(number - size)])
    return drawn[draw * size : (draw + 1) * size]


def format_rows(network: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the cells of each row of a network."""
    if "remark" in network:
        return [{"remark": network["remark"]}]
    return [format_row(row) for row in network["rows"]]


def format_row(row: dict[str, Any]) -> dict[str, str]:
    """Returns the cells of a row: of several draws, the mean and the range."""
    runs = row["runs"]
    return {
        **{key: row[key] for key in ("quantized", "steps", "calibration images")},
        "KL": spread([run["kl"] for run in runs], "{:.3g}"),
        "top-1": spread([run["top1"] for run in runs], "{:.2f}"),
        "layers in float": spread([run["float_layers"] for run in runs], "{:.3g}")
        + ("" if all(run["target_met"] for run in runs) else ", target missed"),
    }


def spread(values: Sequence[float], form: str) -> str:
    """Returns the mean, and if they differ the least and the greatest value."""
    mean = form.format(float(np.mean(values)))
    if min(values) == max(values):
        return mean
    return f"{mean} ({form.format(min(values))} to {form.format(max(values))})"


def section(network: dict[str, Any]) -> list[str]:
    """Returns the lines of a network in the page."""
    return [
        "",
        f"**{network['network']}**, {network['layers']} layers, top-1 {network['float_top1']:.2f} in float, "
        f"{network['images']} images:",
        "",
        *table(format_rows(network)),
    ]


if __name__ == "__main__":
    main()
