"""Op types of the first years of TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, calibrate_and_save, node_of, normal, prepared, run, signal_to_noise, tf1

from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection import inspect_model
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.model.preparation.retired_ops import replace_retired_ops

X = normal((8, 6, 6, 4), 1)


def behind(x, padding="VALID"):
    return batch_norm(tf.nn.conv2d(x, normal((3, 3, 4, 4), 2, 0.4), 1, padding, name="conv"), 4, "bn", 3)


def in_front(x, padding="VALID"):
    return tf.nn.conv2d(batch_norm(tf.nn.relu(x), 4, "bn", 3), normal((3, 3, 4, 4), 2, 0.4), 1, padding, name="conv")


def old(make_layers, scales=True, **attributes):
    """A graph as it was written before TensorFlow 0.9, which alone may hold the op; and what it computes, newly."""
    graph_def = build(
        lambda: tf.nn.relu(make_layers(tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x")), name="out")
    )
    node = node_of(graph_def, "bn")
    data, gamma, beta, mean, variance = node.input
    if not scales:
        node_of(graph_def, gamma).attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.ones(4, np.float32)))
    expected = run(graph_def, ["out"], {"x": X})[0]
    if not scales:
        node_of(graph_def, gamma).attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.full(4, 7, np.float32)))
    inputs = [data, mean, variance, beta, gamma]
    kind = "BatchNormWithGlobalNormalization"
    epsilon = attributes.get("epsilon", 0.001)
    node.CopyFrom(
        make_node("bn", kind, inputs, T=tf.float32, variance_epsilon=epsilon, scale_after_normalization=scales)
    )
    graph_def.versions.producer = 8
    return graph_def, expected


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("make_layers", [behind, in_front])
def test_an_old_batch_norm_is_folded(make_layers, scales):
    graph_def, expected = old(make_layers, scales)
    np.testing.assert_allclose(run(graph_def, ["out"], {"x": X})[0], expected, rtol=1e-4, atol=1e-5)
    fused = FloatModel.of_graph(import_graph(graph_def, "test"), ["out"]).fuse()
    assert fused.layers["conv"].absorbed == ("bn",)
    np.testing.assert_allclose(run(fused.graph_def, ["out"], {"x": X})[0], expected, rtol=1e-4, atol=1e-4)
    quantized = calibrate_and_save(graph_def, X)
    assert signal_to_noise(expected, run(quantized, ["out"], {"x": X})[0]) > 30


def test_an_old_batch_norm_that_stays_is_listed():
    graph_def, expected = old(lambda x: in_front(x, "SAME"))
    model = FloatModel.of_graph(import_graph(graph_def, "test"), ["out"])
    (scaling,) = inspect_model(model).float_scalings
    assert scaling.name == "bn" and scaling.reason.startswith("the layer behind it pads with zeros")
    assert signal_to_noise(expected, run(calibrate_and_save(graph_def, X), ["out"], {"x": X})[0]) > 30


def test_an_old_quotient_is_folded():
    def make():
        y = tf.nn.conv2d(tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x"), normal((1, 1, 4, 3), 2), 1, "SAME")
        y = tf.raw_ops.Div(x=y, y=np.float32([2, 3, 4]), name="quotient")
        halves = tf.raw_ops.Div(x=tf.shape(y), y=2, name="halves")
        tf.concat([tf.reshape(y, [-1]), tf.cast(halves, tf.float32)], 0, name="out")

    graph_def = build(make)
    rewritten, added = prepared(graph_def, replace_retired_ops)
    assert added == {}
    assert (node_of(rewritten, "quotient").op, node_of(rewritten, "halves").op) == ("RealDiv", "Div")
    (layer,) = FloatModel.of_graph(import_graph(graph_def, "test"), ["out"]).fuse().layers.values()
    assert layer.absorbed == ("quotient",)
