"""What is done to a concatenation of layers is done to each of them."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, check_same_values, nchw_on_cpu, node_of, normal, ops_of, prepared, run, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.preparation.affine_before_concat import affine_before_concat

X = normal((2, 5, 5, 4), 1)


def layers(dtype=tf.float32, outputs=(3, 5), data_format="NHWC"):
    shape = [None, 5, 5, 4] if data_format == "NHWC" else [None, 4, 5, 5]
    x = tf1.placeholder(tf.float32, shape, name="x")
    parts = tf.split(tf.cast(x, dtype) if dtype != tf.float32 else x, 2, 3 if data_format == "NHWC" else 1)
    for index, (part, out) in enumerate(zip(parts, outputs, strict=True)):
        weights = tf.constant(normal((3, 3, 2, out), index + 2), dtype)
        yield tf.raw_ops.Conv2D(
            input=part, filter=weights, strides=[1] * 4, padding="SAME", data_format=data_format, name=f"conv{index}"
        )


def check_moved(make, new, options=None, x=X):
    graph_def = build(make)
    rewritten, origins = prepared(graph_def, affine_before_concat)
    if options is None:
        check_same_values(graph_def, rewritten, {"x": x})
    expected, actual = (run(each, ["out"], {"x": x}, options) for each in (graph_def, rewritten))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert {node.op for node in rewritten.node if node.name in origins} - {"Const", "ConcatV2"} == set(new)
    return rewritten, origins


def check_stays(make, keep=("out",)):
    graph_def = build(make)
    assert prepared(graph_def, affine_before_concat, keep)[0] == graph_def


def test_a_batch_norm():
    def make():
        tf.nn.relu(batch_norm(tf.concat(list(layers()), 3, name="all"), 8, "bn"), name="out")

    rewritten, origins = check_moved(make, ["Mul", "AddV2"])
    assert node_of(rewritten, "bn").op == "ConcatV2" and origins["bn"] == ("all", "bn")
    assert {names for name, names in origins.items() if name != "bn"} == {("bn",)}
    fused = fuse(GraphView(rewritten))
    assert set(fused.layers["conv0"].absorbed) >= {"bn/branch_0/Mul", "bn/branch_0/AddV2"}
    check_same_values(
        rewritten, tf1.graph_util.extract_sub_graph(fused.graph_def, ["out"]), {"x": X}, ["conv0", "conv1"]
    )


def test_a_bias_and_what_follows_move_one_after_the_other():
    def make():
        y = tf.nn.bias_add(tf.concat(list(layers()), -1), normal((8,), 5), name="bias")
        tf.nn.relu(tf.multiply(y, normal((8,), 6), name="scaled"), name="out")

    def twice(graph):
        return affine_before_concat(affine_before_concat(graph))

    graph_def = build(make)
    rewritten, origins = prepared(graph_def, twice)
    assert ops_of(rewritten, "Identity") == sorted(["Conv2D", "AddV2", "Mul"] * 2 + ["ConcatV2", "Relu", "Split"])
    check_same_values(graph_def, rewritten, {"x": X})
    assert origins["scaled"] == ("concat", "bias", "scaled")


@pytest.mark.parametrize("constant", [np.array(0.5, np.float32), normal((8,), 6), normal((1, 1, 1, 8), 6)])
def test_constants_of_any_shape_along_the_channels(constant):
    check_moved(lambda: tf.nn.relu(tf.multiply(tf.concat(list(layers()), 3), constant), name="out"), ["Mul"])


def test_channels_first():
    def make():
        y = tf.concat(list(layers(data_format="NCHW")), 1)
        tf.nn.relu(tf.add(y, normal((8, 1, 1), 6)), name="out")

    check_moved(make, ["AddV2"], nchw_on_cpu(), X.transpose(0, 3, 1, 2))


def test_layers_that_are_concatenated_along_another_axis_stay():
    check_stays(lambda: tf.nn.relu(tf.concat(list(layers(outputs=(4, 4))), 2) * normal((4,), 6), name="out"))


def test_what_is_done_to_each_position_stays():
    check_stays(lambda: tf.nn.relu(tf.concat(list(layers()), 3) * normal((5, 1, 1), 6), name="out"))


def test_a_part_that_is_no_layer():
    def make():
        first, second = layers()
        tf.nn.relu(tf.concat([first, tf.nn.relu(second)], 3) * normal((8,), 6), name="out")

    check_stays(make)


def test_a_layer_that_cannot_take_it_in():
    """The constants would not be of the layer's type either."""
    check_stays(lambda: tf.nn.relu(tf.concat(list(layers(tf.float64)), 3) * np.float64(2.0), name="out"))


def test_other_readers():
    def concatenation():
        y = tf.concat(list(layers()), 3, name="all")
        tf.add(tf.nn.relu(y * normal((8,), 6)), y, name="out")

    def layer():
        first, second = layers()
        y = tf.nn.relu(tf.concat([first, second], 3) * normal((8,), 6))
        tf.concat([y, first], 3, name="out")

    check_stays(concatenation)
    check_stays(layer)


def test_what_is_asked_for():
    def make():
        tf.nn.relu(tf.multiply(tf.concat(list(layers()), 3, name="all"), normal((8,), 6), name="scaled"), name="out")

    check_stays(make, ["all", "out"])
    graph_def = build(make)
    rewritten, _ = prepared(graph_def, affine_before_concat, ["scaled", "out"])
    assert node_of(rewritten, "scaled").op == "ConcatV2"
    check_same_values(graph_def, rewritten, {"x": X})


def test_what_waits_for_something_stays():
    def make():
        y, factors = tf.concat(list(layers()), 3), tf.constant(normal((8,), 6))
        with tf.control_dependencies([tf.random.uniform([])]):
            y = y * factors
        tf.nn.relu(y, name="out")

    check_stays(make)


def test_factors_that_are_not_finite_stay():
    check_stays(lambda: tf.nn.relu(tf.concat(list(layers()), 3) / np.zeros(8, np.float32), name="out"))
