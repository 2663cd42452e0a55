"""Steps of weights that serve the bias, and leave sums room in 32 bits."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, tf1
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.quantize.algorithms.activation_factors import INT16_BITS
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.algorithms.weight_steps import adapt_steps, fit_steps, step_for_zeros


def layer_of(weights, bias=None):
    """Returns a fused MatMul of [inputs, outputs] as a convolution, which may have a step per channel."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 1, 1, len(weights)], name="x")
        y = tf.nn.conv2d(x, np.asarray(weights, np.float32)[np.newaxis, np.newaxis], 1, "VALID", name="layer")
        tf.identity(y if bias is None else tf.nn.bias_add(y, np.float32(bias)), name="out")

    return fuse(GraphView(build(make)), keep=["out"]).layers["layer"]


def served(layer, scale_d, channel_wise=True):
    return adapt_steps(layer, scale_d, arq_scales("layer", layer.op_type, layer.weights, channel_wise))


def test_a_layer_whose_sums_fit_keeps_its_steps():
    layer = layer_of([[1.27, -0.127]], [3.0, -4.0])
    steps = served(layer, 0.5)
    np.testing.assert_array_equal(steps.scales, arq_scales("layer", "Conv2D", layer.weights, True))
    assert (steps.remark, steps.failure) == (None, None)


def test_a_nearly_dead_channel_gets_room_for_its_bias():
    """12 / (0.5 * s) is 2**23 units of the bias, to which float32 adds products exactly: s is 24 / 2**23."""
    layer = layer_of([[1.27, 1e-10], [1.27, 0.0]], [3.0, -12.0])
    steps = served(layer, 0.5)
    np.testing.assert_allclose(steps.scales, [0.01, 24 / 2**23], rtol=1e-6)
    assert steps.failure is None
    assert steps.remark is not None and "1 of 2 channels (1)" in steps.remark and "24 bits" in steps.remark


def test_steps_of_a_record_leave_as_much_room_as_32_bits_need():
    """A record may come from elsewhere; of 24 / s = 2**30 units the step is 24 / 2**30."""
    layer = layer_of([[1.27, 1e-10], [1.27, 0.0]], [3.0, -12.0])
    steps = fit_steps(layer, 0.5, np.float32([0.01, 1e-12]))
    np.testing.assert_allclose(steps.scales, [0.01, 24 / 2**30], rtol=1e-6)
    assert steps.remark is not None and "32 bits" in steps.remark


def test_activations_of_16_bits_have_sums_of_64():
    layer = layer_of([[1.27, 1e-10], [1.27, 0.0]], [3.0, -12.0])
    steps = adapt_steps(layer, 0.5, np.float32([0.01, 24 / 2**30]), INT16_BITS)
    np.testing.assert_array_equal(steps.scales, np.float32([0.01, 24 / 2**30]))


def test_products_alone_may_exceed_32_bits_as_well():
    """200,000 weights of 1 each: 255 * 200,000 / s = 2**30, so that 1 becomes 21 steps instead of 127."""
    steps = served(layer_of(np.ones((200_000, 1))), 0.5)
    np.testing.assert_allclose(steps.scales, 255 * 200_000 / 2**30, rtol=1e-6)
    assert np.rint(1 / steps.scales[0]) * 255 * 200_000 < 2**31


@pytest.mark.parametrize(
    ("weights", "bias", "expected"),
    [
        # One like the others, if the bias is 2**16 units then: 0.1 / (0.5 * 2**16) is 3.05e-6.
        ([[1.27, 0.0, 0.0127]], [0, 0.1, 0], 0.1 / 2**15),
        ([[1.27, 0.0, 12.7, 0.127]], [0, 900.0, 0, 0], 0.01),
        ([[1.27, 0.0, 0.0127]], [0, 0, 0], (0.01 + 0.0001) / 2),
        ([[1.27, 0.0, 0.0127]], None, (0.01 + 0.0001) / 2),
        # Where all are dead, the bias alone tells.
        ([[0.0, 0.0, 0.0]], [4.0, 0.1, 8.0], 0.1 / 2**15),
        ([[0.0, 0.0, 0.0]], [4.0, 0.0, 8.0], 8.0 / 2**15),
        ([[0.0, 0.0, 0.0]], None, 2**-12),
    ],
)
def test_a_dead_channel_gets_a_step_that_serves_its_bias(weights, bias, expected):
    steps = served(layer_of(weights, bias), 0.5)
    assert steps.scales[1] == pytest.approx(expected, rel=1e-6)
    assert (steps.remark, steps.failure) == (None, None)


def test_one_step_for_all_channels_serves_the_largest_bias():
    layer = layer_of([[1e-6, 2e-7]] * 4, [0.0, -8.0])
    steps = served(layer, 0.5, channel_wise=False)
    np.testing.assert_allclose(steps.scales, (16 + 255 * 8e-7) / 2**30, rtol=1e-6)  # 1e-6 / 127 is half as much
    assert steps.remark is not None
    assert steps.failure is None


def test_a_bias_that_leaves_nothing_of_its_own_weights_is_kept_all_the_same():
    """2**31 - 1, which float32 takes for 2**31, is 2**23 units of 256."""
    steps = served(layer_of(np.ones((3, 2)), [2147483647.0, 0.0]), 1.0)
    np.testing.assert_allclose(steps.scales, [256.0, 1 / 127], rtol=1e-5)
    assert steps.failure is None


def test_a_layer_that_loses_its_weights_stays_in_float():
    layer = layer_of([[1e-6, 1e-8]] * 4, [0.0, -1000.0])
    steps = served(layer, 0.5, channel_wise=False)  # 2000 / 2**30 is 1.9e-6, twice the largest weight
    assert steps.failure is not None and "32 bits" in steps.failure
    assert served(layer, 0.5).failure is None  # with a step per channel the first one keeps its weights


def test_units_below_the_smallest_float32_are_widened():
    steps = served(layer_of([[1.27, 1.27e-20]]), 1e-30)
    np.testing.assert_allclose(steps.scales, [0.01, 2.0**-126 / 1e-30], rtol=1e-6)
    assert float(np.float32(1e-30) * steps.scales[1]) >= 2.0**-126


def test_units_beyond_the_largest_float32_have_no_remedy():
    assert served(layer_of([[1.27e30]]), 1e20).failure is not None


@settings(deadline=None, max_examples=50)
@given(
    exponents=st.lists(st.integers(-60, 20), min_size=3, max_size=3),
    biases=st.lists(st.integers(-40, 40), min_size=3, max_size=3),
    scale_d=st.integers(-60, 20),
)
def test_what_was_widened_once_fits(exponents, biases, scale_d):
    weights = np.random.default_rng(0).normal(size=(5, 3)) * 2.0 ** np.array(exponents)
    layer = layer_of(weights, 2.0 ** np.array(biases))
    steps = served(layer, 2.0**scale_d)
    if steps.failure is None:
        again = fit_steps(layer, 2.0**scale_d, steps.scales)
        assert (again.scales == steps.scales).all() and not len(again.widened)
        sums = 255 * np.abs(layer.weights[0, 0]).sum(0) + 2.0 ** np.array(biases) / 2.0**scale_d
        assert (sums / steps.scales <= 2**30).all()


@pytest.mark.parametrize("channel_wise", [True, False])
@pytest.mark.parametrize(
    ("weights", "bias", "expected"),
    [
        ([[1.27, 127.0]], [0.5, -4.0], 2.0**-10),  # 2**-10 * 1 is 2**-12 of 4
        ([[0.0, 127.0]], [4.0, 0.0], 2.0**-10),
        ([[1.27, 0.127]], [0.5, -4.0], 2.0**-8),
        ([[1.27, 127.0]], [0.0, 0.0], 2.0**-8),
        ([[1.27, 127.0]], None, 2.0**-8),
        ([[0.0, 0.0]], [1e-30, 0.0], 2.0**-8),
        ([[1.27, 127.0]], [0.0, 1e-38], 2.0**-126),
    ],
)
def test_the_step_of_an_input_that_is_always_0_serves_the_bias(weights, bias, expected, channel_wise):
    layer = layer_of(weights, bias)
    scales = arq_scales("layer", layer.op_type, layer.weights, channel_wise)
    assert step_for_zeros(layer, scales) == pytest.approx(expected, rel=1e-6)


def test_a_bias_is_all_that_comes_of_a_layer_of_large_weights_whose_input_is_always_0(workdir):
    """Units of 2**-8 * 100 would make 0.3 to 0.39, and those of 2**-12 of 0.3 change it by half of one at most."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 4], name="x")
        weights = np.linspace(-12700, 12700, 12).reshape(4, 3).astype(np.float32)
        tf.nn.bias_add(tf.matmul(tf.nn.relu(-tf.abs(x)), weights), [0.3, -0.2, 0.01], name="out")

    x = normal((16, 4))
    (constant,) = run(calibrate_and_save(build(make), x), ["out"], {"x": x})
    np.testing.assert_allclose(constant, np.tile([0.3, -0.2, 0.01], (16, 1)), rtol=0, atol=0.3 * 2**-13 * 1.001)
