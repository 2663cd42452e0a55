"""What does calibration cost, in float runs of the batch that it is given, and what memory?

``create_quant_config``, ``quantize_model`` and the run in a session of its own, with the defaults; then the float model
runs the same batch several times in one session. Processor seconds are counted, those of all threads, as others may use
the machine. A session optimizes its graph when it first runs, with layers to calibrate or not; what that takes is part
of the cost, and stands beside it. The peak is that of the process before the float model runs.

Each network (``sentences.py``, ``networks.py``) has a process of its own.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import peak_memory, publish, report, scratch_folder

import numpy as np
import tensorflow as tf
from models import measure_networks, network_arguments, run
from networks import Network
from processes import is_complete
from sentences import MINILM, Sentences

import amct_tensorflow as amct
from amct_tensorflow.model.model_file import load_graph

NAMES = [MINILM.name, "ViTTiny"]
RUNS = 5


def main() -> None:
    """Measures each network in a process of its own."""
    arguments = network_arguments("processor seconds and memory of calibration", NAMES)
    rows = measure_networks("calibration", __file__, arguments, measure)
    report("calibration", rows)
    if is_complete(rows, NAMES):
        publish(Path(__file__).name, rows)


def measure(network: Network | Sentences) -> dict[str, Any]:
    """Returns what the steps cost."""
    feed, graph = network.calibration(), load_graph(network.model)

    def calibrate() -> None:
        with tf.compat.v1.Session(graph=graph) as session:
            run(session, network, feed)

    with scratch_folder():
        configure = seconds(lambda: amct.create_quant_config("config.json", graph))
        prepare = seconds(lambda: amct.quantize_model(graph, "config.json", "record.txt", [network.output]))
        calibrating = seconds(calibrate)
    peak = peak_memory()
    with tf.compat.v1.Session(graph=load_graph(network.model)) as session:
        first, *others = [seconds(lambda: run(session, network, feed)) for _ in range(RUNS + 1)]
    one_run = float(np.median(others))
    whole = configure + prepare + calibrating
    return {
        "network": network.name,
        "one run s": round(one_run, 2),
        "first run of a session s": round(first, 2),
        "create_quant_config s": round(configure, 2),
        "quantize_model s": round(prepare, 2),
        "calibrating run s": round(calibrating, 2),
        "whole in runs": round(whole / one_run, 1),
        "peak MB": round(peak),
    }


def seconds(action: Callable[[], Any]) -> float:
    """Returns how many processor seconds an action takes."""
    start = time.process_time()
    action()
    return time.process_time() - start


if __name__ == "__main__":
    main()
