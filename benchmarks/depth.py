"""Do calibration, ranking and search take time and memory in proportion to the layers of a network?

Networks of one kind, each twice as deep as the one before, are calibrated, ranked, and searched with a target so strict
that layers have to stay in float; and so is NASNetMobile. Each has a process of its own, for the sake of its peak
memory. The unit of the ranking is what one run of the float model takes per layer ranked, as the runs themselves take
longer the deeper a network is.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from measuring import RESULTS, mean_kl, peak_memory, predict, publish, report, scratch_folder, smooth_images

import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from networks import SEED, SIGNED, Network, find_network, freeze, randomize
from processes import run_apart

import amct_tensorflow as amct
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.search.sensitivity.layer_scores import LayerScores
from amct_tensorflow.search.sensitivity.measures import OutputDivergenceSensitivity

# Residual blocks of two layers each, behind a first convolution and in front of a dense layer.
BLOCKS = {f"{blocks} blocks": blocks for blocks in (25, 50, 100)}
REAL = "NASNetMobile"
SIZE, CHANNELS, CLASSES = 64, 32, 100
IMAGES = 8
# So much is allowed of the KL divergence that quantizing all layers leads to.
STRICT = 0.25


class Strict(AutoCalibrationEvaluatorBase):
    """The KL divergence to the float model, which has to stay below a limit; it keeps the time that it takes."""

    def __init__(self, network: Network) -> None:
        """Draws images."""
        self._network = network
        self._images = network.images(IMAGES, SEED)
        self._reference: np.ndarray | None = None
        self.limit = np.inf
        self.cpu_seconds = 0.0

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs one batch."""
        self.run(graph, outputs[0])

    def run(self, graph: tf.Graph, output: str) -> np.ndarray:
        """Returns the softmax of the images."""
        start = time.process_time()
        result = predict(graph, self._images, f"{self._network.input}:0", output)
        self.cpu_seconds += time.process_time() - start
        scores = np.exp(self._network.logits(result))
        softmax: np.ndarray = scores / scores.sum(axis=-1, keepdims=True)
        return softmax

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Returns the divergence."""
        softmax = self.run(graph, outputs[0])
        self._reference = softmax if self._reference is None else self._reference
        return mean_kl(self._reference, softmax)

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Compares the divergence with the limit."""
        return new_metric < self.limit, new_metric - original_metric


def main() -> None:
    """Measures each network in a process of its own."""
    parser = argparse.ArgumentParser(description="time and memory of calibration, ranking and search by layers")
    parser.add_argument("--cache", type=Path, default=RESULTS / "networks", help="folder of frozen models, kept")
    parser.add_argument("--measure", choices=[*BLOCKS, REAL], help="measure one in this process, print one JSON line")
    arguments = parser.parse_args()
    amct.set_logging_level(print_level="error", save_level="error")
    cache = arguments.cache.resolve()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, cache)))
        return
    rows = [run_apart(name, __file__, "--measure", name, "--cache", str(cache)) for name in (*BLOCKS, REAL)]
    report("depth", rows, f"{IMAGES} images to calibrate, rank and evaluate with. Seconds are those of the processor.")
    publish("depth.py", rows)


def measure(name: str, cache: Path) -> dict[str, Any]:
    """Calibrates, ranks and searches."""
    with scratch_folder() as folder:
        network = find_network(REAL, cache) if name == REAL else make(BLOCKS[name], folder)
        evaluator = Strict(network)
        model = FloatModel.load(network.model, [network.output])
        config = amct.make_quant_config(model)
        layers = len(config.enabled_layers())
        before = peak_memory()
        evaluator.evaluate(import_graph(model.graph_def, name), [network.output])  # the reference
        one_run = evaluator.cpu_seconds
        start = time.process_time()
        calibrator = Calibrator(model, config, lambda _: None, for_search=True)
        evaluator.calibration(model.graph, [network.output])
        calibration = calibrator.check_complete()
        calibrated = time.process_time()
        plan = calibration.plan(calibrator.fused, model.outputs)
        LayerScores(model.outline, plan, calibration).ranking(OutputDivergenceSensitivity())
        ranked = time.process_time()
        quantized = evaluator.evaluate(import_graph(quantize_graph(plan).graph_def, name), [network.output])
        evaluator.limit, evaluator.cpu_seconds = STRICT * quantized, 0.0
        begun = time.process_time()
        result = amct.accuracy_based_auto_calibration(
            str(network.model), [network.output], "record.txt", "config.json", "net", evaluator,
            "PredictiveSearch", "OutputDivergence", config=config,
        )  # fmt: skip
        searched = time.process_time() - begun - evaluator.cpu_seconds
    return {
        "network": name,
        "layers": layers,
        "one run s": one_run,
        "calibration s": calibrated - start,
        "per layer ms": 1000 * (calibrated - start) / layers,
        "ranking s": ranked - calibrated,
        "runs per layer": (ranked - calibrated) / layers / one_run,
        "whole search s": searched,
        "met": result.target_met,
        "evaluations": result.evaluations,
        "float layers": sum(not quantized for quantized in result.roll_back_config.values()),
        "peak MB": peak_memory(),
        "of that per layer": (peak_memory() - before) / layers,
    }


def make(blocks: int, folder: Path) -> Network:
    """Makes and freezes a network of residual blocks in a folder."""
    tf.keras.utils.set_random_seed(SEED)
    layers = tf.keras.layers
    images = tf.keras.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization()(layers.Conv2D(CHANNELS, 3, 2, "same", use_bias=False)(images))
    for _ in range(blocks):
        y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
        y = layers.Conv2D(CHANNELS, 1, use_bias=False)(layers.ReLU(6.0)(y))
        x = layers.Add()([x, layers.BatchNormalization()(y)])
    scores = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    model = tf.keras.Model(images, scores)
    randomize(model, smooth_images(IMAGES, SIZE, *SIGNED, SEED))
    graph, output = freeze(model, SIZE)
    path = folder / "float.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    norms = 2 * blocks + 1
    return Network("residual blocks", path, "images", output, False, SIZE, *SIGNED, norms, norms)


if __name__ == "__main__":
    main()
