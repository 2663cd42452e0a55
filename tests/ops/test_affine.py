"""What nodes do per channel, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, tf1
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops.channels import Channels
from amct_tensorflow.ops.effects import as_affine

NUMPY = {"Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide}


def of_node(graph_def, channels):
    view = GraphView(graph_def)
    return as_affine(view, view.nodes["y"], "x", channels)


def binary(op, constant, channels, constant_first=False):
    graph_def = tf1.GraphDef()
    graph_def.node.append(make_node("x", "Placeholder", (), dtype=tf.float32))
    graph_def.node.append(make_const("constant", constant))
    inputs = ["constant", "x"] if constant_first else ["x", "constant"]
    graph_def.node.append(make_node("y", op, inputs, T=tf.float32))
    return of_node(graph_def, channels)


def along(values, axis):
    return values.reshape([-1] + [1] * (-1 - axis))


@given(st.data())
def test_what_is_taken_for_an_affine_map_is_one_and_no_other_is_overlooked(data):
    rank = data.draw(st.integers(1, 4))
    shape = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    axis = data.draw(st.integers(-rank, -1))
    ndim = data.draw(st.integers(0, rank + 1))
    lengths = [data.draw(st.sampled_from([1, *shape[each - ndim + rank :][:1]])) for each in range(ndim)]
    constant = np.random.default_rng(0).uniform(0.5, 2, lengths).astype(np.float32)
    op, constant_first = data.draw(st.sampled_from(list(NUMPY))), data.draw(st.booleans())
    affine = binary(op, constant, Channels(shape[axis], axis, rank), constant_first)
    per_channel = ndim <= rank and all(length == 1 for each, length in enumerate(lengths) if each - ndim != axis)
    assert (affine is not None) == (per_channel and not (op == "RealDiv" and constant_first))
    if affine is not None:
        x = normal(shape, 1)
        expected = NUMPY[op](constant, x) if constant_first else NUMPY[op](x, constant)
        actual = x * along(affine.scale, axis) + along(affine.shift, axis)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
        assert affine.scale.shape == affine.shift.shape == (shape[axis],)


def test_of_a_tensor_whose_rank_is_not_known_only_its_last_axes_are_sure():
    channels = Channels(3, -1, None)
    assert binary("Add", normal((3,), 1), channels) is not None
    assert binary("Add", normal((1, 3), 1), channels) is None


def test_a_product_of_a_tensor_with_itself_or_with_a_computed_one_is_none():
    def make():
        x = tf1.placeholder(tf.float32, [None, 3], name="x")
        tf.multiply(x, x, name="y")

    assert of_node(build(make), Channels(3, -1, 2)) is None

    def make_other():
        x = tf1.placeholder(tf.float32, [None, 3], name="x")
        tf.multiply(x, tf1.placeholder(tf.float32, [3]), name="y")

    assert of_node(build(make_other), Channels(3, -1, 2)) is None


@pytest.mark.parametrize("divisor", [0.0, np.nan])
def test_what_is_not_finite_says_so(divisor):
    assert not binary("RealDiv", np.float32([1, divisor]), Channels(2, -1, 2)).is_finite()


@pytest.mark.parametrize(("data_format", "axis"), [("NHWC", -1), ("NCHW", -3), ("NCHW", -1), ("NHWC", -3)])
def test_a_bias_is_added_to_the_channels_of_its_data_format(data_format, axis):
    def make():
        x = tf1.placeholder(tf.float32, [2, 3, 3, 3], name="x")
        tf.raw_ops.BiasAdd(value=x, bias=normal((3,), 1), data_format=data_format, name="y")

    affine = of_node(build(make), Channels(3, axis, 4))
    if (data_format == "NCHW") != (axis == -3):
        assert affine is None
    else:
        np.testing.assert_array_equal(affine.shift, normal((3,), 1))


def test_a_bias_of_old_form():
    """It has no data format: its channels are the last axis."""

    def make():
        x = tf1.placeholder(tf.float32, [2, 3, 3, 3], name="x")
        tf.raw_ops.BiasAddV1(value=x, bias=normal((3,), 1), name="y")

    np.testing.assert_array_equal(of_node(build(make), Channels(3, -1, 4)).shift, normal((3,), 1))
    assert of_node(build(make), Channels(3, -3, 4)) is None


@pytest.mark.parametrize("op", ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
@pytest.mark.parametrize("epsilon", [0.001, 0.5])
def test_batch_norm(op, epsilon):
    statistics = {"scale": [2.0, -1.0], "offset": [0.5, 1.0], "mean": [1.0, 3.0], "variance": [4.0, 0.25]}

    def make():
        x = tf1.placeholder(tf.float32, [None, 1, 1, 2], name="x")
        getattr(tf.raw_ops, op)(x=x, epsilon=epsilon, is_training=False, name="y", **statistics)

    graph_def, x = build(make), normal((3, 1, 1, 2), 1)
    affine = of_node(graph_def, Channels(2, -1, 4))
    np.testing.assert_allclose(x * affine.scale + affine.shift, run(graph_def, ["y"], {"x": x})[0], rtol=1e-5)
    assert of_node(graph_def, Channels(2, -3, 4)) is None


def test_a_batch_norm_whose_statistics_are_read_stays():
    def make():
        x = tf1.placeholder(tf.float32, [None, 1, 1, 1], name="x")
        y = tf.raw_ops.FusedBatchNormV3(x=x, scale=[1.0], offset=[0.0], mean=[0.0], variance=[1.0], is_training=False,
                                        name="y")  # fmt: skip
        tf.identity(y.batch_mean, name="mean")

    assert of_node(build(make), Channels(1, -1, 4)) is None
