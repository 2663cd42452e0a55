"""Factors that a user computed, with steps that serve the layers."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, save, tf1

import amct_tensorflow as amct
from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.quantize.record.factors import LayerFactors
from amct_tensorflow.quantize.record.record_file import write_record

WEIGHTS = normal((4, 3), 1)
STEPS = np.abs(WEIGHTS).max(axis=0) / 127


def convert(weights, bias, scale_d, scale_w):
    """Returns the quantized model of a pointwise convolution, and what it multiplies sums by."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 1, 1, 4], name="x")
        y = tf.nn.conv2d(x, np.float32(weights)[np.newaxis, np.newaxis], 1, "VALID", name="layer/Conv2D")
        tf.nn.bias_add(y, np.float32(bias), name="out")

    write_record("record.txt", {"layer/Conv2D": LayerFactors(scale_d, -128, tuple(map(float, np.float32(scale_w))))})
    amct.convert_model(save(build(make), Path("net.pb")), ["out"], "record.txt", "net")
    quantized = tf1.GraphDef.FromString(Path("net_quantized.pb").read_bytes())
    (layer,) = read_layers(GraphView(quantized))
    return quantized, layer.deq_scale


def test_scales_that_serve_are_taken_as_they_are(workdir, messages):
    _, factors = convert(WEIGHTS, [0.1, 0.2, 0.3], 0.5, 1.1 * STEPS)
    np.testing.assert_array_equal(factors, np.float32(0.5) * np.float32(1.1 * STEPS))
    assert not [text for text in messages if "scale_w" in text or "32 bits" in text]


def test_a_one_for_a_dead_channel_is_not_taken_literally(workdir, messages):
    """As a step it would round a bias of 0.1 to a multiple of 0.5."""
    weights = WEIGHTS * np.float32([1, 0, 1])
    quantized, factors = convert(weights, [0.1, 0.1, 0.3], 0.5, [STEPS[0], 1, STEPS[2]])
    assert factors[1] == pytest.approx(0.1 / 2**16, rel=1e-6)
    (value,) = run(quantized, ["out"], {"x": np.ones((1, 1, 1, 4), np.float32)})
    assert value[0, 0, 0, 1] == pytest.approx(0.1, rel=1e-4)
    assert len([text for text in messages if "1 of 3 scale_w are 1" in text]) == 1


def test_a_one_for_small_weights_is_not_taken_literally(workdir):
    """The original toolkit says 1 of steps below 2**-23, and rounds all such weights to 0."""
    weights = WEIGHTS * np.float32([1, 1e-6, 1])
    quantized, factors = convert(weights, [0, 0, 0], 0.5, [STEPS[0], 1, STEPS[2]])
    assert factors[1] == pytest.approx(0.5e-6 * STEPS[1], rel=1e-5)
    (value,) = run(quantized, ["out"], {"x": np.ones((1, 1, 1, 4), np.float32)})
    np.testing.assert_allclose(value[0, 0, 0], weights.sum(axis=0), atol=0.02)
    assert value[0, 0, 0, 1] == pytest.approx(weights.sum(axis=0)[1], rel=0.02)


def test_a_bias_beyond_32_bits_widens_the_step_of_its_channel(workdir, messages):
    weights = WEIGHTS * np.float32([1, 1e-8, 1])
    quantized, factors = convert(weights, [0.1, 12, 0.3], 0.5, STEPS * [1, 1e-8, 1])
    np.testing.assert_allclose(factors, [0.5 * STEPS[0], 12 / 2**30, 0.5 * STEPS[2]], rtol=1e-5)
    (value,) = run(quantized, ["out"], {"x": np.ones((1, 1, 1, 4), np.float32)})
    assert value[0, 0, 0, 1] == pytest.approx(12, rel=1e-6)
    (warning,) = [text for text in messages if "32 bits" in text]
    assert warning.startswith("WARNING Layer layer/Conv2D: ") and "1 of 3 channels (1)" in warning


def test_a_layer_that_no_steps_serve_is_refused(workdir):
    with pytest.raises(RecordError, match=r"'layer/Conv2D'.*32 bits.*Delete the layer from the record"):
        convert(WEIGHTS * 1e-8, [0.1, 12, 0.3], 0.5, STEPS.max(keepdims=True) * 1e-8)
