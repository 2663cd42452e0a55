"""The benchmark of accuracy can leave out the rounding of activations, or of weights, or of both."""

from dataclasses import replace

import numpy as np
from conftest import load_script
from graphs import build, normal, run, save, small_net, tf1

import amct_tensorflow as amct
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.schema import NEAREST
from amct_tensorflow.quantize.quantized.builder import quantize_graph

one_sided = load_script("benchmarks/one_sided.py")

OUTPUT = "probabilities"
IMAGES = normal((8, 12, 12, 3), 9)


def logits(graph_def):
    (softmax,) = run(graph_def, [OUTPUT], {"input": IMAGES})
    values = np.log(softmax.astype(np.float64))
    return values - values.mean(axis=1, keepdims=True)


def error(path):
    """Returns the largest error of the logits of the small net, quantized."""
    model = amct.FloatModel.load(save(build(small_net), path), [OUTPUT])
    config = replace(amct.make_quant_config(model), weight_rounding=NEAREST)
    calibrator = Calibrator(model, config, lambda _: None)
    with tf1.Session(graph=model.graph) as session:
        session.run(f"{OUTPUT}:0", {"input:0": IMAGES})
    quantized = quantize_graph(calibrator.check_complete().plan(calibrator.fused, [OUTPUT]))
    return np.max(np.abs(logits(quantized.graph_def) - logits(model.graph_def)))


def test_without_both_roundings_the_model_is_nearly_the_float_one(tmp_path):
    both = error(tmp_path / "net.pb")
    with one_sided.only_weights():
        weights = error(tmp_path / "net.pb")
        with one_sided.only_activations():
            neither = error(tmp_path / "net.pb")
    with one_sided.only_activations():
        activations = error(tmp_path / "net.pb")
    assert neither < 0.02 * both  # what is clipped
    assert 5 * neither < min(weights, activations) < max(weights, activations) < both
    assert error(tmp_path / "net.pb") == both  # nothing of it is left
