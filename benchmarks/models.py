"""What becomes of networks of many kinds: layers quantized, BatchNorms folded, size, accuracy, seconds?

One row per network (``networks.py``, ``sentences.py``), each in a process of its own. When all were measured, the table
is written into ``docs/models.md``, where the columns are explained.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, interleaved, measured_on, peak_memory, ratio, report, scratch_folder, table

import numpy as np
import tensorflow as tf
from graph_contents import contents
from networks import IMAGES, Network, find_network
from networks import NAMES as OF_IMAGES
from pages import write_section
from processes import is_complete, measure_each, run_apart
from sentences import MINILM, Feed, Sentences

import amct_tensorflow as amct
from amct_tensorflow.model.model_file import import_graph, load_graph

PAGE = ROOT / "docs" / "models.md"
NAMES = [*OF_IMAGES, MINILM.name]
ROUNDS = 5
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "network": lambda row: row["network"],
    "layers": lambda row: str(row["float"]["layers"]),
    "quantized": lambda row: str(row["quantized"]["quantized"]),
    "BatchNorms": lambda row: str(row["batch_norms"]),
    "scalings": lambda row: str(row["float"]["scalings"]),
    "foldable": lambda row: str(row["foldable"]),
    "folded": lambda row: str(row["float"]["scalings"] - row["quantized"]["scalings"]),
    "left": lambda row: str(row["quantized"]["scalings"]),
    "shifts left": lambda row: str(row["quantized"]["shifts"]),
    "float MB": lambda row: f"{row['float_bytes'] / 1e6:.1f}",
    "quantized MB": lambda row: f"{row['quantized_bytes'] / 1e6:.1f}",
    "size ratio": lambda row: f"{row['quantized_bytes'] / row['float_bytes']:.2f}",
    "signal-to-noise dB": lambda row: f"{row['signal_to_noise_db']:.1f}",
    "users see": lambda row: row["agreement"],
    "change by folding": lambda row: f"{row['change_by_folding']:.1e}",
    "time ratio": lambda row: f"{row['time_ratio_to_folded']:.2f}",
    "engine s": lambda row: f"{row['engine_cpu_seconds']:.1f}",
    "calibration s": lambda row: f"{row['calibration_cpu_seconds']:.1f}",
    "peak MB": lambda row: f"{row['peak_mb']:.0f}",
}


def main() -> None:
    """Measures each network in a process of its own."""
    arguments = network_arguments("one row per network: what is quantized, folded, and lost", NAMES)
    rows = measure_networks("models", __file__, arguments, measure)
    cells = [format_row(row) for row in rows]
    report("models", cells, f"{IMAGES} images to calibrate with, and {IMAGES} others; of sentences more.")
    if is_complete(rows, NAMES):
        measured = measured_on(Keras=tf.keras.__version__)
        write_section(PAGE, Path(__file__).name, [measured, "", *table(cells)])
    else:
        print(f"{PAGE} is as it was: it shows all networks or none.")


def network_arguments(description: str, names: Sequence[str]) -> argparse.Namespace:
    """Parses the command line of a program that measures networks of the names given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--networks", nargs="+", metavar="NAME", choices=names, default=names, help=f"which of {', '.join(names)}"
    )
    parser.add_argument("--cache", type=Path, default=RESULTS / "networks", help="folder of frozen models, kept")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    parser.add_argument("--measure", choices=names, help="measure one in this process, and print one JSON line")
    return parser.parse_args()


def find(name: str, cache: Path) -> Network | Sentences:
    """Returns a network; one of Keras is made unless the cache has it.

    Raises:
        FileNotFoundError: it is a real one, and something of it is not there.
    """
    if name != MINILM.name:
        return find_network(name, cache)
    if missing := MINILM.missing():
        raise FileNotFoundError(missing)
    return MINILM


def measure_networks(
    benchmark: str,
    program: str,
    arguments: argparse.Namespace,
    measure: Callable[[Network | Sentences], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Measures networks, each in a process of its own, in which the program is run again.

    Such a process prints its row, and ends here.

    Args:
        benchmark: what the file of figures calls it.
        program: the program.
        arguments: its command line: ``networks``, ``cache``, ``json``, and ``measure``, the one of such a process.
        measure: returns the row of a network.

    Returns:
        A row per network, with a remark if measuring it failed.
    """
    amct.set_logging_level(print_level="error", save_level="error")
    if arguments.measure:
        print(json.dumps(measure(find(arguments.measure, arguments.cache))))
        raise SystemExit
    return measure_each(
        benchmark, arguments.networks, partial(_measure_apart, program, arguments.cache), arguments.json
    )


def _measure_apart(program: str, cache: Path, name: str) -> dict[str, Any]:
    try:
        find(name, cache)
    except FileNotFoundError as error:
        return {"network": name, "remark": f"{error} is not there"}
    return run_apart(name, program, "--measure", name, "--cache", str(cache.resolve()))


def measure(network: Network | Sentences) -> dict[str, Any]:
    """Quantizes a network, and compares the float model, that after folding, and the quantized one."""
    calibration, held_out = network.calibration(), network.held_out()
    with scratch_folder():
        measured = quantize(network, calibration)
        graphs = {
            "float": load_graph(network.model),
            "folded": import_graph(amct.FloatModel.load(network.model, [network.output]).fuse().graph_def, "fused"),
            "quantized": import_graph(read_graph_def("net_quantized.pb"), "net_quantized.pb"),
        }
        quantized_bytes = Path("net_quantized.pb").stat().st_size
    sessions = {name: tf.compat.v1.Session(graph=graph) for name, graph in graphs.items()}
    outputs = {
        name: np.concatenate([run(session, network, feed) for feed in held_out]) for name, session in sessions.items()
    }
    signals = {name: network.signal(output) for name, output in outputs.items()}
    actions = {name: lambda session=session: run(session, network, held_out[0]) for name, session in sessions.items()}
    seconds = interleaved(actions, ROUNDS)
    return {
        "network": network.name,
        "batch_norms": network.batch_norms,
        "foldable": network.foldable,
        **{name: asdict(contents(graphs[name], [network.output])) for name in ("float", "quantized")},
        "float_bytes": network.model.stat().st_size,
        "quantized_bytes": quantized_bytes,
        "signal_to_noise_db": signal_to_noise(signals["float"], signals["quantized"]),
        "agreement": network.agreement(outputs["float"], outputs["quantized"]),
        "change_by_folding": largest_change(signals["float"], signals["folded"]),
        "time_ratio_to_folded": ratio(seconds, "quantized", "folded"),
        "time_ratio_to_float": ratio(seconds, "quantized", "float"),
        "float_seconds": float(np.median(seconds["float"])),
        **measured,
    }


def quantize(network: Network | Sentences, feed: Feed) -> dict[str, float]:
    """Quantizes a network in the current folder; returns seconds and memory."""
    graph = load_graph(network.model)
    taken: dict[str, float] = {}
    before = peak_memory()
    with timed(taken, "configure"):
        amct.create_quant_config("config.json", graph)
    with timed(taken, "prepare"):
        amct.quantize_model(graph, "config.json", "record.txt", [network.output])
    with timed(taken, "calibration"), tf.compat.v1.Session(graph=graph) as session:
        run(session, network, feed)
    calibrated = peak_memory()
    with timed(taken, "save"):
        amct.save_model(str(network.model), [network.output], "record.txt", "net")
    engine = ("configure", "prepare", "save")
    return {
        "engine_seconds": sum(taken[f"{step}_seconds"] for step in engine),
        "engine_cpu_seconds": sum(taken[f"{step}_cpu_seconds"] for step in engine),
        **taken,
        "before_mb": before,
        "calibrated_mb": calibrated,
        "peak_mb": peak_memory(),
    }


@contextmanager
def timed(taken: dict[str, float], step: str) -> Iterator[None]:
    """Notes the seconds of a block, and those that the processors worked for it."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    taken[f"{step}_seconds"] = time.perf_counter() - wall
    taken[f"{step}_cpu_seconds"] = time.process_time() - cpu


def run(session: tf.compat.v1.Session, network: Network | Sentences, feed: Feed) -> np.ndarray:
    """Returns the output for a batch."""
    output: np.ndarray = session.run(f"{network.output}:0", feed)
    return output


def read_graph_def(path: str) -> tf.compat.v1.GraphDef:
    """Reads a graph, with TensorFlow's own means."""
    return tf.compat.v1.GraphDef.FromString(Path(path).read_bytes())


def signal_to_noise(reference: np.ndarray, other: np.ndarray) -> float:
    """Returns ``10 log10(sum(y^2) / sum((y - y')^2))``, in dB."""
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - other) ** 2)))


def largest_change(reference: np.ndarray, other: np.ndarray) -> float:
    """Returns the largest difference in terms of the largest value."""
    return float(np.max(np.abs(reference - other)) / np.max(np.abs(reference)))


def format_row(row: dict[str, Any]) -> dict[str, str]:
    """Returns the cells of a network."""
    if "remark" in row:
        return {"network": row["network"], "remark": row["remark"]}
    return {column: text(row) for column, text in COLUMNS.items()}


if __name__ == "__main__":
    main()
