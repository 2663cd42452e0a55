"""Small values and nearly dead channels, through all steps: what they are in float they are in int8."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, calibrate_and_save, normal, run, save, tf1

import amct_tensorflow as amct
from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.quantize.record.record_file import read_record

# Balancing divides what the first layer yields, and thereby its weights and its bias.
UNBALANCED = "input_balancing: false"
WEIGHTS, LAST = normal((3, 3, 3, 4), 1, 0.3), normal((1, 1, 4, 4), 2)


def conv(x, weights, name):
    return tf.nn.conv2d(x, np.float32(weights), 1, "VALID", name=f"{name}/Conv2D")


def net(first=WEIGHTS, bias=None, scale=None):
    """Returns the graph of two layers on images that are divided by ``scale``."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = conv(x if scale is None else x / np.float32(scale), first, "first")
        y = y if bias is None else tf.nn.bias_add(y, np.float32(bias))
        tf.identity(conv(tf.nn.relu(y), LAST, "last"), name="out")

    return build(make)


def decibels(graph_def, x, simplified=""):
    """Returns the signal-to-noise ratio of the quantized model; variation alone is signal."""
    quantized = calibrate_and_save(graph_def, x, simplified=simplified)
    (expected,), (actual,) = (run(each, ["out"], {"x": x}) for each in (graph_def, quantized))
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    return 10 * np.log10(np.sum((expected - expected.mean()) ** 2) / np.sum((expected - actual) ** 2))


@pytest.mark.parametrize("unit", [1e-5, 1e-10, 1e-20])
def test_data_in_small_units(workdir, unit):
    assert decibels(net(), normal((16, 8, 8, 3), 3) * np.float32(unit)) > 30


@pytest.mark.parametrize(("largest", "scale"), [(65535, 65535), (32768, 1e9), (1e-5, 1e5)])
def test_what_divides_the_data_makes_small_weights(workdir, largest, scale):
    x = np.abs(normal((16, 8, 8, 3), 3)) * np.float32(largest / 3)
    assert decibels(net(scale=scale), x) > 30
    assert decibels(net(scale=scale), x, UNBALANCED) > 30
    assert max(read_record("record.txt")["first/Conv2D"].scale_w) < 2**-23


def test_a_batch_norm_behind_makes_small_weights(workdir):
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = batch_norm(conv(x, WEIGHTS, "first") * np.float32(1e-8), 4, "bn")
        tf.identity(conv(tf.nn.relu(y), LAST, "last"), name="out")

    assert decibels(build(make), normal((16, 8, 8, 3), 3)) > 30


@pytest.mark.parametrize("size", [1e-4, 1e-20])
def test_one_nearly_dead_channel_is_widened(workdir, messages, size):
    first = WEIGHTS.copy()
    first[..., 2] *= size
    x = np.abs(normal((16, 8, 8, 3), 3))
    assert decibels(net(first, [0.1, -0.1, 12, 0.2]), x) > 30
    (line,) = [text for text in messages if "24 bits" in text]
    assert line.startswith("INFO Layer first/Conv2D: ") and "1 of 4 channels (2)" in line
    assert decibels(net(first, [0.1, -0.1, 12, 0.2]), x, UNBALANCED) > 30
    factors = read_record("record.txt")["first/Conv2D"]
    units = 12 / (factors.scale_d * np.array(factors.scale_w)[2])
    assert units == pytest.approx(2**23, rel=1e-3)


def test_a_constant_channel_keeps_its_value(workdir):
    """A scale of 1 would round it to steps of scale_d, 1 of 255 here."""
    first = WEIGHTS.copy()
    first[..., 2] = 0
    graph_def = net(first, [0.1, -0.1, 0.1, 0.2])
    x = np.abs(normal((16, 8, 8, 3), 3)) * 80
    quantized = calibrate_and_save(graph_def, x)
    (value,) = run(quantized, ["first/dequant/AscendDequant"], {"x": x})
    np.testing.assert_allclose(value[..., 2], 0.1, rtol=1e-4)


def test_a_layer_without_weights_keeps_its_constants(workdir):
    bias = np.float32([0.1, -0.1, 0.003, 0])
    quantized = calibrate_and_save(net(0 * WEIGHTS, bias), normal((16, 8, 8, 3), 3) * 80)
    (value,) = run(quantized, ["first/dequant/AscendDequant"], {"x": normal((16, 8, 8, 3), 3)})
    np.testing.assert_allclose(value[0, 0, 0], bias, rtol=1e-4)


def test_a_layer_that_only_ever_reads_zeros_keeps_its_bias(workdir):
    """With a scale_d of 1 its bias would be rounded to steps of its weights, 0.1 or so."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = tf.nn.relu(conv(x, WEIGHTS, "first") - np.float32(1000))
        tf.nn.bias_add(conv(y, 9 * LAST, "last"), np.float32([0.1, -0.1, 0.3, 0.2]), name="out")

    quantized = calibrate_and_save(build(make), normal((16, 8, 8, 3), 3))
    (value,) = run(quantized, ["out"], {"x": normal((16, 8, 8, 3), 3)})
    np.testing.assert_allclose(value[0, 0, 0], [0.1, -0.1, 0.3, 0.2], atol=0.5 * 9 * 3 / 127 / 256)


def test_factors_of_a_dequantizer_are_normal_numbers(workdir):
    first = WEIGHTS.copy()
    first[..., 2] *= 1e-20
    quantized = calibrate_and_save(net(first), normal((16, 8, 8, 3), 3) * np.float32(1e-18))
    factors = next(layer.deq_scale for layer in read_layers(GraphView(quantized)) if layer.name.startswith("first"))
    assert factors.min() == pytest.approx(2.0**-126, rel=1e-6)


def one_step_for_all(layer):
    content = json.loads(Path("config.json").read_text())
    content[layer]["weight_quant_params"]["channel_wise"] = False
    Path("config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("layers", [2, 1])
def test_a_layer_that_no_steps_serve_stays_in_float(workdir, messages, layers):
    first, bias = WEIGHTS * 1e-8, [0, 0, 1e4, 0]
    graph_def = net(first, bias)
    x = np.abs(normal((16, 8, 8, 3), 3))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    amct.create_quant_config("config.json", graph, skip_layers=["last/Conv2D"] if layers == 1 else [])
    one_step_for_all("first/Conv2D")
    amct.quantize_model(graph, "config.json", "record.txt", ["out"])
    with tf1.Session(graph=graph) as session:
        if layers == 1:
            with pytest.raises((CalibrationError, tf.errors.UnknownError), match="No layer can be quantized"):
                session.run("out:0", {"x:0": x})
            return
        session.run("out:0", {"x:0": x})
    (line,) = [text for text in messages if "stays in float" in text]
    assert line.startswith("WARNING Layer first/Conv2D stays in float: the steps that its bias and sums need")
    assert read_record("record.txt").keys() == {"last/Conv2D"}
    amct.save_model(save(graph_def, Path("float.pb")), ["out"], "record.txt", "results/net")
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    assert [node.op for node in quantized.node].count("AscendQuant") == 1
