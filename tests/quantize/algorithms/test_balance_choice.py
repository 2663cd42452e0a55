"""When balancing pays, and by which factors."""

import numpy as np
import pytest
from graphs import normal, rng
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, range_factors
from amct_tensorflow.quantize.algorithms.balance_choice import Reader, ReadTensor, Rows, choose_factors
from amct_tensorflow.quantize.algorithms.range_refinement import refine_range

SIZES = 4.0 ** -np.arange(8)


def search(distribution):
    return refine_range(distribution, range_factors(distribution.lowest, distribution.highest, True), True)


def dense(weights, channel_wise=True):
    return Reader(OP_TYPES["MatMul"], np.asarray(weights, np.float32), channel_wise)


def seen(*samples):
    """Returns halves of which every row is kept."""
    return tuple(Rows(np.float32(sample), np.abs(np.float32(sample)).max(axis=0)) for sample in samples)


def tensor(first, second, *readers, **options):
    return ReadTensor(seen(first, second), readers, search, **options)


def even(sizes, seed, rows=256):
    """Returns two halves of evenly distributed channels of sizes."""
    return [rng(each).uniform(-1, 1, (rows, len(sizes))) * sizes for each in (seed, seed + 1)]


def gains(found, factors):
    """Returns per reader by what the sum of its errors falls."""
    values = np.asarray(factors, np.float64)
    pairs = [(found.errors(half, np.ones(len(values))), found.errors(half, values)) for half in (0, 1)]
    return [
        sum(float(before[i].sum()) for before, _ in pairs) / sum(float(after[i].sum()) for _, after in pairs)
        for i in range(len(found.readers))
    ]


def test_the_error_of_a_dense_output_by_hand():
    """Channels are multiplied by 3 and 1, then by 0 and 2; steps of weights are max(3 * 0.5, 1 * 2) and 2 * 2 / 127."""
    reader = dense([[3.0, 0.0], [1.0, 2.0]])
    of_inputs, variances, factors = np.array([0.25, 0.5]), np.array([4.0, 9.0]), np.array([0.5, 2.0])
    shared = 4 / 0.5**2 + 9 / 2**2
    expected = [9 * 0.25 + 0.5 + (2 / 127) ** 2 / 12 * shared, 4 * 0.5 + (4 / 127) ** 2 / 12 * shared]
    np.testing.assert_allclose(reader.errors(of_inputs, variances, factors), expected, rtol=1e-12)


def test_one_scale_for_all_outputs_has_the_largest_step():
    reader = dense([[3.0, 0.0], [1.0, 2.0]], channel_wise=False)
    found = reader.errors(np.zeros(2), np.array([4.0, 9.0]), np.ones(2))
    np.testing.assert_allclose(found, np.full(2, (3 / 127) ** 2 / 12 * 13), rtol=1e-12)


def test_every_place_of_a_window_counts():
    weights = np.zeros((3, 3, 2, 1), np.float32)
    weights[0, 0, 0, 0], weights[2, 2, 0, 0], weights[1, 1, 1, 0] = 3, 4, 2
    reader = Reader(OP_TYPES["Conv2D"], weights, True)
    found = reader.errors(np.array([1.0, 10.0]), np.array([1.0, 2.0]), np.ones(2))
    np.testing.assert_allclose(found, [25 + 40 + (4 / 127) ** 2 / 12 * 9 * 3], rtol=1e-12)


def test_a_depthwise_reader_has_a_scale_per_channel_whatever_it_is_multiplied_by():
    weights = np.zeros((1, 2, 2, 1), np.float32)
    weights[0, :, 0, 0], weights[0, :, 1, 0] = (3, -4), (1, 2)
    reader = Reader(OP_TYPES["DepthwiseConv2dNative"], weights, True)
    of_inputs, variances = np.array([1.0, 10.0]), np.array([5.0, 7.0])
    expected = [25 + (4 / 127) ** 2 / 12 * 2 * 5, 50 + (2 / 127) ** 2 / 12 * 2 * 7]
    for factors in ([1.0, 1.0], [8.0, 0.25]):
        np.testing.assert_allclose(reader.errors(of_inputs, variances, np.array(factors)), expected, rtol=1e-12)


def test_errors_are_those_of_one_half_in_the_range_of_the_other_by_hand():
    """The range of the first half ends at 2, in steps of 1: 3 is clipped. Its own errors, 0.25 and -0.25, cancel."""
    halves = seen([[0.25], [1.75]], [[3.0], [0.5], [1.0], [1.0]])
    found = ReadTensor(halves, [dense([[2.0]])], lambda _: ActivationFactors(1.0, 125), makes_up=False)
    variance = np.var([0.25, 1.75, 3, 0.5, 1, 1])
    mean_square = (1 + 0.25) / 4  # 3 becomes 2, 0.5 becomes 0
    expected = 4 * mean_square + (2 / 127) ** 2 / 12 * variance
    np.testing.assert_allclose(found.errors(0, np.ones(1)), [[expected]], rtol=1e-6)


def test_bias_correction_takes_what_the_other_half_shows():
    """Values of the first half lose 0.25 each, so that a loss of 0.25 is none."""
    halves = seen([[1.25], [2.25]], [[3.25], [3.25]])
    found = ReadTensor(halves, [dense([[0.0]])], lambda _: ActivationFactors(1.0, 0), makes_up=False)
    assert found.errors(0, np.ones(1))[0] == 0
    halves = seen([[1.0], [2.0]], [[3.25], [3.25]])
    found = ReadTensor(halves, [dense([[1.0]])], lambda _: ActivationFactors(1.0, 0), makes_up=False)
    np.testing.assert_allclose(found.errors(0, np.ones(1))[0], 0.25**2 + (1 / 127) ** 2 / 12 * found.variances)


def test_what_a_channel_shares_with_smaller_ones_rounding_makes_up_for():
    """A channel is twice another; a third is on its own. Of each variance a tenth is not trusted."""
    one, other = (np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1]))
    rows = np.stack([2 * one, one, other], axis=1)
    found = tensor(rows, rows, dense(np.ones((3, 1))))
    alone = 1.1
    np.testing.assert_allclose(found.variances, [4 * 1.1 - 4 / alone, alone, alone], rtol=1e-5)
    assert tensor(rows, rows, dense(np.ones((3, 1))), makes_up=False).variances.tolist() == [4, 1, 1]


@pytest.mark.parametrize("channel_wise", [True, False])
def test_channels_of_one_size_are_left_alone(channel_wise):
    assert choose_factors([tensor(*even(np.ones(8), 1), dense(normal((8, 16), 3), channel_wise))], 1.2) is None


def test_channels_that_one_scale_loses_are_balanced():
    found = tensor(*even(SIZES, 1), dense(normal((8, 16), 3) / SIZES[:, np.newaxis]))
    factors = choose_factors([found], 2.0)
    assert gains(found, factors)[0] > 1e4
    np.testing.assert_allclose(np.log2(np.asarray(factors) / factors[0] / SIZES), 0, atol=2)


def test_a_few_large_channels_are_balanced_as_those_of_transformers():
    """Weights do not make up for them; a strength in between does best."""
    sizes = np.where(np.arange(64) % 16, 1.0, 20.0)
    found = tensor(*even(sizes, 1), dense(normal((64, 32), 3)))
    factors = choose_factors([found], 2.0)
    assert gains(found, factors)[0] > 4
    assert 2 < np.max(factors) / np.median(factors) < 20


def test_a_small_channel_of_a_depthwise_reader_counts():
    reader = Reader(OP_TYPES["DepthwiseConv2dNative"], normal((3, 3, 8, 2), 3), True)
    found = tensor(*even(SIZES, 1), reader)
    factors = np.asarray(choose_factors([found], 1.2), np.float64)
    before, after = (found.errors(0, each)[0] for each in (np.ones(8), factors))
    assert (before / after)[-2:].min() > 10


def test_what_some_images_promise_and_others_do_not_keep_is_not_believed():
    """Half of the channels are large in the first images, and the others in those that follow."""
    sizes = np.where(np.arange(8) < 4, 1.0, 1 / 64)
    (first, _), (_, second) = even(sizes, 1), even(sizes[::-1], 3)
    reader = dense(normal((8, 16), 5))
    assert choose_factors([tensor(first, second, reader)], 1.0) is None
    assert choose_factors([tensor(*even(sizes, 1), dense(reader.weights / sizes[:, None]))], 2.0) is not None


def test_no_reader_may_lose_by_what_another_gains():
    """The weights of one are as its data, so that one scale serves both; those of the other are the reverse."""
    loses, gains_ = dense(np.abs(normal((8, 1), 2)) * SIZES[:, np.newaxis]), dense(normal((8, 16), 1) / SIZES[:, None])
    assert choose_factors([tensor(*even(SIZES, 3), gains_)], 1.2) is not None
    assert choose_factors([tensor(*even(SIZES, 3), loses, gains_)], 1.2) is None
    assert choose_factors([tensor(*even(SIZES, 3), gains_), tensor(*even(SIZES, 5), loses)], 1.2) is None


def test_tensors_that_share_factors_share_what_is_largest():
    """What is large in one of them only must not be clipped there."""
    large, small = even(SIZES, 1), even(SIZES / 4, 3)
    reader = dense(normal((8, 16), 5) / SIZES[:, np.newaxis])
    together = choose_factors([tensor(*large, reader), tensor(*small, reader)], 1.2)
    assert together == choose_factors([tensor(*small, reader), tensor(*large, reader)], 1.2) is not None


def test_without_a_signal_nothing_is_balanced():
    rows = np.ones((8, 3))
    assert choose_factors([tensor(rows, rows, dense(np.zeros((3, 2))))], 1.0) is None
    assert choose_factors([tensor(0 * rows, 0 * rows, dense(np.ones((3, 2))))], 1.0) is None


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_tell_nothing(rows):
    assert choose_factors([tensor(*even(SIZES, 1, 4), dense(np.ones((8, 2))))], 0.0) is not None
    halves = (Rows(np.zeros((rows, 8), np.float32), np.zeros(8, np.float32)),) * 2
    assert choose_factors([ReadTensor(halves, [dense(np.ones((8, 2)))], search)], 0.0) is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=2, max_size=6), st.integers(0, 9), st.floats(1, 4))
def test_what_is_chosen_gains_for_every_reader(exponents, seed, least_gain):
    """Where both halves show the same, the factors are those that were judged."""
    sizes = np.exp2(np.array(exponents))
    readers = [dense(normal((len(sizes), 5), seed)), dense(normal((len(sizes), 3), seed + 1), False)]
    rows, _ = even(sizes, seed + 2, 64)
    factors = choose_factors([tensor(rows, rows, *readers)], least_gain)
    assume(factors is not None)
    assert min(gains(tensor(rows, rows, *readers), factors)) > 0.999 * least_gain
    assert np.isfinite(factors).all() and min(factors) > 0


@settings(max_examples=10, deadline=None)
@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(0, 9))
@example(-19, 18, 0)  # every factor is about 2**-19, and some would be below the smallest
@example(20, -20, 0)
def test_units_of_data_and_weights_do_not_matter(data, weights, seed):
    sizes = np.exp2(rng(seed).uniform(-6, 6, 6))
    first, second = even(sizes, seed + 1, 64)
    matrix = normal((6, 4), seed)
    one, other = (
        choose_factors([tensor(first * 2.0**a, second * 2.0**a, dense(matrix * 2.0**b))], 1.2)
        for a, b in ((0, 0), (data, weights))
    )
    assert (one is None) == (other is None)
    if one is not None:
        ratios = np.asarray(other) / np.asarray(one)
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)
