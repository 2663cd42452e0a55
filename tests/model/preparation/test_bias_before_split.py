"""A bias behind a Reshape that splits the channels is added before it, and taken in by the layer."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, prepared, run, signal_to_noise, tf1

from amct_tensorflow.model.preparation.bias_before_split import bias_before_split

X = normal((4, 5, 12), 1)


def split(target, bias, constant_first=False):
    def make():
        y = tf.matmul(tf1.placeholder(tf.float32, [None, 5, 12], name="x"), normal((12, 24), 2), name="layer")
        y = tf.reshape(y, target, name="split")
        y = tf.add(bias, y, name="bias") if constant_first else tf.add(y, bias, name="bias")
        tf.nn.relu(y, name="out")

    return build(make)


@pytest.mark.parametrize("constant_first", [True, False])
@pytest.mark.parametrize(
    ("target", "shape"),
    [([-1, 5, 4, 6], (4, 6)), ([-1, 5, 2, 3, 4], (2, 3, 4)), ([-1, 5, 4, 6], (4, 1)), ([-1, 5, 4, 6], (1, 1, 4, 6)),
     ([-1, 5, 4, 6], (6,)), ([-1, 4, 6], (4, 6))],
)  # fmt: skip
def test_a_bias_per_head_is_taken_in(target, shape, constant_first):
    graph_def = split(target, normal(shape, 3, 4.0), constant_first)
    rewritten, added = prepared(graph_def, bias_before_split)
    new = ("bias/before_split", "bias/before_split/y")
    assert added == {**dict.fromkeys(new, ("bias",)), "bias": ("split", "bias")}
    quantized = calibrate_and_save(graph_def, X)
    expected, same, actual = (run(each, ["out"], {"x": X})[0] for each in (graph_def, rewritten, quantized))
    np.testing.assert_allclose(same, expected, rtol=1e-5, atol=1e-5)
    assert signal_to_noise(expected, actual) > 30
    assert not {"Add", "AddV2"} & {node.op for node in quantized.node}


@pytest.mark.parametrize(
    ("target", "shape"),
    [([-1, 5, 4, 6], (5, 4, 6)), ([-1, 5, 24], (24,)), ([-1, 120], (120,)), ([-1, 6], (6,)), ([-1, 10, 12], (12,))],
)
def test_what_is_not_per_channel_stays(target, shape):
    graph_def = split(target, normal(shape, 3))
    rewritten, added = prepared(graph_def, bias_before_split)
    assert added == {} and rewritten == graph_def


@pytest.mark.parametrize("constant_first", [True, False])
@pytest.mark.parametrize(
    ("target", "shape"),
    [([-1, 24, 1], (5,)), ([-1, 24, 1], (24, 5)), ([-1, 1, 24], (7, 24)), ([-1, 1, 24], (7, 1)),
     ([-1, 1, 24], (3, 1, 24)), ([-1, 4, 6, 1], (6, 2)), ([-1, 4, 1, 6], (4, 3, 6)), ([-1, 24, 1], (2, 1, 24, 1))],
)  # fmt: skip
def test_what_gives_the_sum_another_shape_stays(target, shape, constant_first):
    graph_def = split(target, normal(shape, 3), constant_first)
    rewritten, added = prepared(graph_def, bias_before_split)
    assert added == {} and rewritten == graph_def


def test_what_broadcasts_is_calibrated_and_saved():
    graph_def = split([-1, 24, 1], normal((5,), 3))
    expected, actual = (run(each, ["out"], {"x": X})[0] for each in (graph_def, calibrate_and_save(graph_def, X)))
    assert signal_to_noise(expected, actual) > 30


def test_a_split_that_is_requested_stays():
    graph_def = split([-1, 5, 4, 6], normal((4, 6), 3))
    _, added = prepared(graph_def, bias_before_split, ["out", "split"])
    assert added == {}
