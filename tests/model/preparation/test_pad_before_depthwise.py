"""Depthwise convolutions pad by SAME or VALID, whatever the original's numbers, and compute the same."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, prepared, run, signal_to_noise, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.preparation.pad_before_depthwise import pad_before_depthwise
from amct_tensorflow.model.preparation.prepare import prepare

X = normal((2, 9, 8, 6), 1)


def depthwise(paddings, stride=1, size=3, shape=(None, 9, 8, 6)):
    def make():
        x = tf1.placeholder(tf.float32, shape, name="x")
        explicit = [[0, 0], *paddings, [0, 0]]
        y = tf.nn.depthwise_conv2d(x, normal((size, size, 6, 1), 2), [1, stride, stride, 1], explicit, name="layer")
        tf.identity(y, name="out")

    return build(make)


def ops(graph_def):
    return [node.op for node in graph_def.node if node.op not in ("Const", "Placeholder", "Identity")]


@pytest.mark.parametrize(
    ("paddings", "stride", "size", "expected"),
    [
        ([[1, 1], [1, 1]], 1, 3, "SAME"),
        ([[2, 2], [2, 2]], 1, 5, "SAME"),
        ([[0, 1], [0, 1]], 1, 2, "SAME"),
        ([[1, 1], [0, 1]], 2, 3, "SAME"),  # as TensorFlow pads 9 and 8
        ([[1, 1], [1, 1]], 2, 3, "Pad"),  # as others pad 8
        ([[1, 2], [0, 3]], 1, 3, "Pad"),
        ([[1, 0], [1, 0]], 1, 2, "Pad"),
        ([[0, 0], [0, 0]], 1, 3, "VALID"),
    ],
)
def test_paddings_that_are_stated_number_by_number(paddings, stride, size, expected):
    graph_def = depthwise(paddings, stride, size)
    rewritten, added = prepared(graph_def, pad_before_depthwise)
    (node,) = [node for node in rewritten.node if node.name == "layer"]
    assert node.attr["padding"].s == (b"SAME" if expected == "SAME" else b"VALID")
    assert "explicit_paddings" not in node.attr
    assert sorted(ops(rewritten)) == ["DepthwiseConv2dNative", *(["Pad"] if expected == "Pad" else [])]
    assert set(added.values()) <= {("layer",)} and len(added) == (2 if expected == "Pad" else 0)
    (before,), (after,) = (run(each, ["out"], {"x": X}) for each in (graph_def, rewritten))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "expected"), [(1, []), (2, ["Pad"])])
def test_sizes_that_are_not_known(stride, expected):
    """With a stride of 1, SAME pads any of them alike."""
    rewritten, _ = prepared(depthwise([[1, 1], [1, 1]], stride, shape=(None, None, None, 6)), pad_before_depthwise)
    assert sorted(ops(rewritten)) == ["DepthwiseConv2dNative", *expected]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("is_grouped", [False, True])
def test_such_layers_are_quantized_with_a_bias(stride, is_grouped):
    """The optimizer of TensorFlow with oneDNN bears them then."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 9, 8, 6], name="x")
        explicit = [[0, 0], [1, 1], [1, 1], [0, 0]]
        if is_grouped:
            y = tf.nn.conv2d(x, normal((3, 3, 1, 6), 2), stride, explicit, name="layer")
        else:
            y = tf.nn.depthwise_conv2d(x, normal((3, 3, 6, 1), 2), [1, stride, stride, 1], explicit, name="layer")
        # Not a BiasAdd, which the original could not have.
        tf.identity(tf.nn.relu(y * normal((6,), 3) + normal((6,), 4)), name="out")

    graph_def = build(make)
    ready = prepare(GraphView(graph_def), ["out"], "the test's").view.graph_def
    assert not any(node.attr["padding"].s == b"EXPLICIT" for node in ready.node)
    quantized = calibrate_and_save(graph_def, X)
    assert "BiasAdd" in ops(quantized)
    (expected,), (actual,) = (run(each, ["out"], {"x": X}) for each in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 25
