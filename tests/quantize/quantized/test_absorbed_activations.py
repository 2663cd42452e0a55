"""Activations that a quantizer repeats are left out, and nothing changes but the number of passes over memory."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import LayerFactors

X = normal((2, 5, 5, 3), 1, 6.0)


def clipped(lowest, highest):
    def activation(y, name):
        return tf.maximum(tf.minimum(y, np.float32(highest)), np.float32(lowest), name=name)

    return activation


def two_layers(activation, between=None):
    """conv, activation, conv; ``between`` adds to the graph, given the activation's output."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 5, 5, 3], name="x")
        y = tf.nn.conv2d(x, normal((1, 1, 3, 4), 2), 1, "SAME", name="first")
        y = tf.nn.bias_add(y, normal((4,), 3), name="bias")
        y = activation(y, name="activation")
        if between is not None:
            y = between(y)
        tf.nn.conv2d(y, normal((1, 1, 4, 2), 4), 1, "SAME", name="second")

    return build(make)


def quantize(graph_def, scale_d, offset_d=-128, outputs=("second",)):
    factors = {
        "first": LayerFactors(0.15, 3, (0.02,)),
        "second": LayerFactors(scale_d, offset_d, (0.02,)),
    }
    return quantize_graph(QuantizationPlan(fuse(GraphView(graph_def), keep=outputs), factors, {}, outputs))


def ops(quantized):
    return [node.op for node in quantized.graph_def.node]


@pytest.mark.parametrize(
    ("activation", "scale_d", "offset_d", "is_absorbed"),
    [
        (tf.nn.relu6, 6 / 255, -128, True),
        (tf.nn.relu6, 4 / 255, -128, True),
        (tf.nn.relu6, 6 / 254.6, -128, True),  # 254.6 rounds to 255
        (tf.nn.relu6, 6 / 254.4, -128, False),  # 6 becomes 254, and 255 stands for more than 6
        (tf.nn.relu6, 6 / 255, -127, False),  # the quantizer lets -1 pass
        (tf.nn.relu, 6 / 255, -128, True),
        (tf.nn.relu, 0.5, -128, True),
        (tf.nn.relu, 6 / 255, 0, False),
        (tf.nn.elu, 6 / 255, -128, False),
        (clipped(0, 4), 4 / 255, -128, True),
        (clipped(0, 4), 4 / 255, -127, False),
        (clipped(-3, 4), 3 / 128, 0, True),
        (clipped(-3, 4), 4 / 127, 0, False),  # -128 stands for less than -3
    ],
)
def test_only_what_the_quantizer_repeats_is_left_out(activation, scale_d, offset_d, is_absorbed):
    graph_def = two_layers(activation)
    quantized = quantize(graph_def, scale_d, offset_d)
    assert ("activation" not in {node.name for node in quantized.graph_def.node}) == is_absorbed
    plain = quantize(graph_def, scale_d, offset_d, outputs=("second", "activation"))
    expected, value = run(plain.graph_def, ["second", "activation"], {"x": X})
    (actual,) = run(quantized.graph_def, ["second"], {"x": X})
    assert value.max() > 3
    # One step of the integers would be 0.02 * scale_d.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-3 * 0.02 * scale_d)


def test_an_activation_that_others_read_stays():
    graph_def = two_layers(tf.nn.relu6, lambda y: (tf.reduce_max(y, name="other"), y)[1])
    assert "Relu6" in ops(quantize(graph_def, 6 / 255, outputs=("second", "other")))
    assert "Relu6" not in ops(quantize(graph_def, 6 / 255))


def test_an_activation_is_found_behind_identities():
    graph_def = two_layers(tf.nn.relu6, lambda y: tf.identity(tf.identity(y, name="one"), name="two"))
    assert "Relu6" not in ops(quantize(graph_def, 6 / 255))
    assert "Relu6" in ops(quantize(graph_def, 6 / 255, outputs=("second", "one")))


def test_every_clip_that_a_quantizer_repeats_is_left_out():
    graph_def = two_layers(lambda y, name: tf.minimum(tf.nn.relu(y), 4.0, name=name))
    quantized = quantize(graph_def, 4 / 255)
    assert not {"Relu", "Minimum"} & set(ops(quantized))
    assert ("Relu", "activation") in quantized.origins.values()


def test_node_map_knows_what_the_quantizer_stands_for():
    quantized = quantize(two_layers(tf.nn.relu6), 6 / 255)
    assert ("activation",) in quantized.origins.values()
