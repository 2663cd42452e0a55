"""What does it gain to evaluate quantized models in integers?

For each network: the time of the simulation and of the execution graph against that of the float model, all three in
one process on the same batch in turn; and in how many values of the softmax of all images the latter two differ. If all
networks are there, the table in docs/integers.md is written.
"""

import argparse
import time
from functools import partial
from pathlib import Path

from measuring import BATCH, ROOT, interleaved, mean_kl, measured_on, predict, ratio, report, table

import numpy as np
import tensorflow as tf
from classifiers import CLASSIFIERS, Classifier
from pages import write_section

from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantization import make_quant_config
from amct_tensorflow.quantize.calibration.calibrate import prepare_calibration
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.record.factors import unfused_layers
from amct_tensorflow.search.integers.integer_execution import IntegerExecution

ROUNDS = 20
PAGE = ROOT / "docs" / "integers.md"


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS))
    found = [CLASSIFIERS[name] for name in parser.parse_args().networks if CLASSIFIERS[name].missing() is None]
    rows = [measure(classifier) for classifier in found]
    note = f"Batches of {BATCH}, {ROUNDS} rounds; medians of ratios within one process."
    report("execution", rows, note)
    if len(rows) == len(CLASSIFIERS):
        write_section(PAGE, Path(__file__).name, ["", *table(rows), "", f"{note} {measured_on()}", ""])


def measure(classifier: Classifier) -> dict[str, object]:
    """Returns the row of a network."""
    images, classes = classifier.data
    graphs, check_seconds, _execution = models(classifier)
    softmax = {
        name: predict(graph, images, classifier.placeholder, classifier.output) for name, graph in graphs.items()
    }
    top1 = {name: 100 * float(np.mean(values.argmax(axis=1) == classes)) for name, values in softmax.items()}
    seconds = interleaved({name: runner(classifier, graph, images[:BATCH]) for name, graph in graphs.items()}, ROUNDS)
    return {
        "network": classifier.name,
        "float ms": 1000 * float(np.median(seconds["float"])),
        "simulated / float": ratio(seconds, "simulated", "float"),
        "integers / float": ratio(seconds, "integers", "float"),
        "check s": check_seconds,
        "images": len(images),
        "differing values": int(np.count_nonzero(softmax["simulated"] != softmax["integers"])),
        "top-1 float": top1["float"],
        "top-1 quantized": top1["integers"],
        "KL": mean_kl(softmax["float"], softmax["integers"]),
    }


def models(classifier: Classifier) -> tuple[dict[str, tf.Graph], float, IntegerExecution]:
    """Returns the three models, the seconds to make and check the execution graph, and what it runs with."""
    model = FloatModel.load(str(classifier.inputs.model), [classifier.output])
    calibrating = partial(calibrate_with, classifier)
    prepared = prepare_calibration(model, make_quant_config(model), calibrating, for_search=True)
    prepared.run()
    calibration = prepared.result()
    plan = calibration.plan(model.fuse(unfused_layers(calibration.factors), calibration.balance), model.outputs)
    quantized = quantize_graph(plan)
    start = time.perf_counter()
    execution = IntegerExecution(model.outputs, calibration.batches, in_process=True)
    integers = execution.model_of(quantized)
    seconds = time.perf_counter() - start
    if integers is None:
        raise SystemExit("Nothing runs in integers here; the log says why.")
    made = {
        "float": model.graph_def,
        "simulated": quantized.graph_def,
        "integers": tf.compat.v1.GraphDef.FromString(integers),
    }
    return {name: import_graph(graph_def, name) for name, graph_def in made.items()}, seconds, execution


def calibrate_with(classifier: Classifier, graph: tf.Graph, outputs: list[str]) -> None:
    """Runs the first batch."""
    predict(graph, classifier.data[0][:BATCH], classifier.placeholder, outputs[0])


def runner(classifier: Classifier, graph: tf.Graph, batch: np.ndarray) -> object:
    """Returns what runs a batch in a session of its own."""
    session = tf.compat.v1.Session(graph=graph)
    return lambda: session.run(f"{classifier.output}:0", {classifier.placeholder: batch})


if __name__ == "__main__":
    main()
