"""When balancing pays, and by which factors."""

import numpy as np
import pytest
from graphs import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.algorithms.dmq import Reader, choose_factors

SIZES = 4.0 ** -np.arange(8)


def dense(weights, channel_wise=True):
    return Reader(OP_TYPES["MatMul"], np.asarray(weights, np.float32), channel_wise)


def test_the_error_of_a_channel_by_hand():
    """Steps of x are 2/255 and of w 3/127; channel 0 is finer than that, and can only be lost as a whole."""
    reader = dense([[3.0], [1.0]])
    mean_squares, highest = np.array([1e-6, 1.0]), np.array([2e-3, 2.0])
    step, of_weights = (2 / 255) ** 2 / 12, (3 / 127) ** 2 / 12
    lost = 9 * 1e-6 + 1 * step + of_weights * 1e-6 + of_weights * 1
    np.testing.assert_allclose(reader.errors(mean_squares, highest, np.ones(2)), [lost / (9e-6 + 1)], rtol=1e-12)


def test_factors_scale_steps_of_both_sides():
    reader, factors = dense([[3.0, 0.0], [1.0, 0.0]]), np.array([0.5, 2.0])
    mean_squares, highest = np.array([4.0, 1.0]), np.array([4.0, 2.0])
    steps = np.array([8 / 255 * 0.5, 8 / 255 * 2]) ** 2 / 12  # max(4 / 0.5, 2 / 2) = 8
    of_weights = np.array([2 / 127 / 0.5, 2 / 127 / 2]) ** 2 / 12  # max(3 * 0.5, 1 * 2) = 2
    lost = 9 * steps[0] + steps[1] + of_weights @ mean_squares
    errors = reader.errors(mean_squares, highest, factors)
    np.testing.assert_allclose(errors, [lost / (9 * 4 + 1)], rtol=1e-12)  # the channel that is always 0 is left out


@pytest.mark.parametrize("channel_wise", [True, False])
def test_channels_of_one_size_are_left_alone(channel_wise):
    reader = dense(normal((8, 16), 1), channel_wise)
    assert choose_factors([reader], np.ones(8), np.full(8, 4.0)) is None


def test_channels_that_one_scale_loses_are_balanced():
    weights = normal((8, 16), 1) / SIZES[:, np.newaxis]
    factors = choose_factors([dense(weights)], SIZES**2, 4 * SIZES)
    errors = [dense(weights).errors(SIZES**2, 4 * SIZES, np.asarray(each)).mean() for each in (np.ones(8), factors)]
    assert errors[0] > 0.3 and errors[1] < 1e-3
    np.testing.assert_allclose(np.log2(np.asarray(factors) / factors[0] / SIZES), 0, atol=2)


def test_a_depthwise_reader_has_a_scale_per_channel_whatever_it_is_multiplied_by():
    """Its weights lose nothing by factors, so that every channel of what it reads can be as large as the largest."""
    reader = Reader(OP_TYPES["DepthwiseConv2dNative"], normal((3, 3, 8, 2), 1), True)
    factors = choose_factors([reader], SIZES**2, 4 * SIZES)
    balanced = reader.errors(SIZES**2, 4 * SIZES, np.asarray(factors))
    assert balanced.shape == (16,) and balanced.max() < 1e-2
    assert reader.errors(SIZES**2, 4 * SIZES, np.ones(8)).max() > 0.9


def test_without_a_signal_nothing_is_balanced():
    assert choose_factors([dense(np.zeros((3, 2)))], np.ones(3), np.ones(3)) is None
    assert choose_factors([dense(np.ones((3, 2)))], np.zeros(3), np.zeros(3)) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=2, max_size=6), st.integers(0, 9))
def test_what_is_chosen_leaves_a_hundredth_of_the_error_at_most(exponents, seed):
    sizes = np.exp2(np.array(exponents))
    readers = [dense(normal((len(sizes), 5), seed)), dense(normal((len(sizes), 3), seed + 1), False)]
    factors = choose_factors(readers, sizes**2, 3 * sizes)
    if factors is not None:
        before, after = (
            np.log(np.concatenate([each.errors(sizes**2, 3 * sizes, np.asarray(values)) for each in readers])).mean()
            for values in (np.ones(len(sizes)), factors)
        )
        assert after < before - np.log(100) and np.isfinite(factors).all() and min(factors) > 0


def test_no_reader_may_lose_by_what_another_gains():
    """The weights of one are as its data, so that one scale serves both; those of the other are the reverse."""
    loses, gains = dense(np.abs(normal((8, 1), 2)) * SIZES[:, np.newaxis]), dense(normal((8, 16), 1) / SIZES[:, None])
    assert choose_factors([gains], SIZES**2, 4 * SIZES) is not None
    assert choose_factors([loses, gains], SIZES**2, 4 * SIZES) is None
