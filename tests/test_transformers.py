"""Small transformers of many kinds through all stages: every dense layer in int8, and every file computes the same."""

from pathlib import Path

import numpy as np
import pytest
from graphs import run, save, tf1
from transformers import TRANSFORMERS

import amct_tensorflow as amct
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.model.inspection import inspect_model
from amct_tensorflow.model.model_file import load_graph
from amct_tensorflow.quantize.quantized.quantized_layer import read_quantized_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

# Said of the products of attention, which are no layers by default.
LEFT_OUT = "the configuration leaves it in float"
LENGTHS = (9, 7, 8)  # of the sequences of three batches


class Batches(AutoCalibrationEvaluatorBase):
    """Runs batches of several lengths, or of one, through all outputs."""

    def __init__(self, transformer, lengths):
        self.calibrating = [transformer.feeds(seed, length) for seed, length in enumerate(lengths)]
        self.judging = [transformer.feeds(100 + seed, length) for seed, length in enumerate(lengths)]

    def calibration(self, graph, outputs):
        self._run(graph, outputs, self.calibrating)

    def evaluate(self, graph, outputs):
        return float(sum(np.abs(value).sum() for value in self._run(graph, outputs, self.judging)))

    def _run(self, graph, outputs, batches):
        with tf1.Session(graph=graph) as session:
            return [
                value
                for batch in batches
                for value in session.run([f"{name}:0" for name in outputs], {f"{k}:0": v for k, v in batch.items()})
            ]


def quantize(transformer, lengths):
    """Takes a transformer through the public steps, with every default; returns its evaluator and float graph."""
    evaluator, graph_def = Batches(transformer, lengths), transformer.graph_def()
    model = save(graph_def, Path("float.pb"))
    graph, outputs = load_graph(Path(model)), list(transformer.outputs)
    amct.create_quant_config("config.json", graph, batch_num=len(lengths))
    amct.quantize_model(graph, "config.json", "record.txt", outputs)
    evaluator.calibration(graph, outputs)
    amct.save_model(model, outputs, "record.txt", "results/net")
    return evaluator, graph_def


def signal_to_noise(references, others):
    signal, noise = (
        sum(float(np.sum(np.square(each, dtype=np.float64))) for each in values)
        for values in (references, [a - b for a, b in zip(references, others, strict=True)])
    )
    return 10 * np.log10(signal / noise)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_dense_layer_is_in_int8_with_a_scale_per_channel(name, messages):
    transformer = TRANSFORMERS[name]
    evaluator, graph_def = quantize(transformer, LENGTHS)
    layers = read_quantized_model(Path("results/net_quantized.pb")).layers
    of_weights = [layer for layer in layers if layer.weights is not None]
    assert len(of_weights) == transformer.layers
    for layer in of_weights:
        assert layer.weight_scale.size == layer.channels, layer.name
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    values = [
        [value for batch in evaluator.judging for value in run(each, transformer.outputs, batch)]
        for each in (graph_def, quantized)
    ]
    assert all(np.isfinite(value).all() for value in values[1])
    assert signal_to_noise(*values) > transformer.decibels
    said = [each for each in messages if each.startswith(("WARNING", "ERROR")) and LEFT_OUT not in each]
    assert not said or transformer.has_others


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_inspection_says_of_every_product_what_becomes_of_it(name):
    transformer = TRANSFORMERS[name]
    model = amct.FloatModel.load(save(transformer.graph_def(), Path("float.pb")), list(transformer.outputs))
    layers = inspect_model(model).layers
    of_weights = [layer for layer in layers if layer.weights_shape is not None]
    assert sum(layer.reason is None for layer in of_weights) == transformer.layers
    assert any(layer.reason is not None for layer in of_weights) == transformer.has_others


@pytest.mark.campaign
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_files_compute_what_the_simulation_does(name, target):
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    transformer = TRANSFORMERS[name]
    evaluator, _ = quantize(transformer, (9,) if target == "tflite" else LENGTHS)
    document = export_model(
        Path("results/net_quantized.pb"), [], TARGETS[target], CheckedEvaluator(evaluator), Path("results/net"), 0.02
    )
    assert document["within_limit"], document
    # OpenVINO computes floats in bfloat16 on processors that have it, which errs as much as 8 bits do.
    most = 6 if target == "openvino" else 3
    assert max(output["lost_db"] for output in document["outputs"]) < most
    quantized = {layer.key for layer in read_quantized_model(Path("results/net_quantized.pb")).layers}
    in_float = {each["name"]: each["reason"] for each in document["layers"] if not each["int8"]}
    assert not quantized & in_float.keys(), in_float
