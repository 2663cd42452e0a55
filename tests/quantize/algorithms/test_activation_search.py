"""Observation, IFMR, HFMG and ARQ against the formulas of the specification."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.quantize.algorithms import distribution as observation
from amct_tensorflow.quantize.algorithms import hfmg
from amct_tensorflow.quantize.algorithms.activation_factors import range_factors, round_through_float16
from amct_tensorflow.quantize.algorithms.distribution import Distribution, Observation, grid_exponent
from amct_tensorflow.quantize.algorithms.hfmg import Hfmg
from amct_tensorflow.quantize.algorithms.ifmr import Ifmr
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.quantized.quantization_plan import nearest_integers

DEFAULTS = Ifmr()


def observed(*batches):
    observation_ = Observation()
    for batch in batches:
        assert observation_.add(np.asarray(batch, np.float32))
    return observation_.distribution()


def naive_ifmr(x, asymmetric):
    """The formula of the specification, value by value."""
    x = np.asarray(x, np.float32).astype(np.float64)
    highest, lowest = max(x.max(), 0.0), min(x.min(), 0.0)
    best = None
    for ratio in np.round(0.7 + 0.01 * np.arange(61), 9):
        if asymmetric:
            low, high = lowest, ratio * highest
            scale = (high - low) / 255
        else:
            high = ratio * max(highest, -lowest)
            low = -high
            scale = high / (128 if highest < -lowest else 127)
        scale = float(np.float32(scale))
        loss = np.mean((np.rint(np.clip(x, low, high) / scale) * scale - x) ** 2)
        if best is None or loss < best[0] * (1 - 1e-9):
            best = (loss, scale)
    offset = int(-np.rint(np.float32(lowest) / np.float32(best[1]))) - 128 if asymmetric else 0
    return best[1], offset


def test_61_ratios_by_default():
    ratios = DEFAULTS.ratios()
    assert len(ratios) == 61
    assert ratios[0] == 0.7 and ratios[30] == 1.0 and ratios[-1] == 1.3


@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("shape", ["normal", "relu", "negative", "laplace", "constant"])
def test_ifmr_equals_the_naive_search(asymmetric, shape):
    generator = np.random.default_rng(5)
    x = {
        "normal": generator.normal(size=3000),
        "relu": np.maximum(generator.normal(size=3000), 0),
        "negative": -np.abs(generator.normal(size=3000)),
        "laplace": generator.laplace(size=3000) * 7,
        "constant": np.full(3000, 2.5),
    }[shape].astype(np.float32)
    factors = DEFAULTS.search(observed(x), asymmetric)
    scale, offset = naive_ifmr(x, asymmetric)
    assert factors.scale == pytest.approx(scale, rel=1e-6)
    assert factors.offset == offset


def test_ifmr_on_a_histogram_is_as_good_as_exact():
    x = np.random.default_rng(6).laplace(size=400_000).astype(np.float32)
    factors = DEFAULTS.search(observed(x), True)

    def loss(scale, offset):
        q = np.clip(np.rint(x / np.float32(scale)) + offset, -128, 127) - offset
        return np.mean((q * scale - x) ** 2)

    assert loss(factors.scale, factors.offset) <= 1.01 * loss(*naive_ifmr(x, True))


def test_first_layer_of_the_original_record():
    # Images scaled by /128 - 1: the example of spec section 12.1.
    x = np.linspace(-1, 0.9921875, 256, dtype=np.float32)
    params = Ifmr(search_range=(0.999, 1.001), search_step=0.001)
    factors = params.search(observed(x), True)
    assert factors.scale == pytest.approx(0.0078125)
    assert factors.offset == 0


@pytest.mark.parametrize(("asymmetric", "offset"), [(True, -128), (False, 0)])
def test_all_zero_input(asymmetric, offset):
    factors = DEFAULTS.search(observed(np.zeros(50)), asymmetric)
    assert (factors.scale, factors.offset) == (2**-8, offset)


@pytest.mark.parametrize("algorithm", [DEFAULTS, Hfmg()])
@pytest.mark.parametrize("unit", [1e-5, 1e-12, 1e-30])
def test_small_values_are_no_zeros(algorithm, unit):
    """Values in small units get the scale of the same values in large ones, in these units."""
    x = np.random.default_rng(3).normal(size=2000).astype(np.float32)
    small, large = (algorithm.search(observed((x * each).astype(np.float32)), True) for each in (unit, 1.0))
    assert small.scale == pytest.approx(unit * large.scale, rel=1e-3)
    assert small.offset == large.offset


def test_values_beyond_the_percentiles_count_where_all_others_are_zeros():
    x = np.zeros(100, np.float32)
    x[7] = 3e-6
    params = Ifmr(max_percentile=0.9, search_range=(0.999, 1.001), search_step=0.001)
    assert params.search(observed(x), True).scale == pytest.approx(3e-6 / 255)


def test_percentiles_leave_out_the_extremes():
    x = np.concatenate([np.linspace(0, 1, 998), [50, 100]])
    params = Ifmr(max_percentile=0.998, search_range=(0.999, 1.001), search_step=0.01)
    # L - int(0.998 * 1000) = 2: the second largest value.
    assert params.search(observed(x), True).scale == pytest.approx(0.999 * 50 / 255)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 99), st.floats(1e-3, 1e3))
def test_the_cut_into_batches_does_not_matter(sizes, seed, scale):
    x = (np.random.default_rng(seed).normal(size=sum(sizes)) * scale).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "EXACT_LIMIT", 100)
        together = observed(x)
        apart = observed(*np.split(x, np.cumsum(sizes)[:-1]))
    np.testing.assert_array_equal(together.values, apart.values)
    np.testing.assert_array_equal(together.counts, apart.counts)
    assert (together.lowest, together.highest) == (apart.lowest, apart.highest)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.floats(1e-30, 1e30))
def test_histogram_values_stand_for_what_was_seen(seed, scale):
    x = (np.random.default_rng(seed).normal(size=500) * scale).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "EXACT_LIMIT", 10)
        distribution = observed(x)
    assert distribution.total == 500
    closest = np.abs(distribution.values[:, None] - np.sort(x.astype(np.float64))).min(axis=0)
    assert closest.max() <= distribution.half_width * (1 + 1e-6)
    for k in (1, 2, 17, 500):
        assert distribution.kth_largest(k) == pytest.approx(np.sort(x)[-k], abs=2.1 * distribution.half_width)
        assert distribution.kth_smallest(k) == pytest.approx(np.sort(x)[k - 1], abs=2.1 * distribution.half_width)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_noticed(value):
    batch = np.zeros((4, 5), np.float32)
    batch[2, 3] = value
    assert not Observation().add(batch)


@given(st.floats(1e-40, 1e38))
def test_grid_exponent(bound):
    exponent = grid_exponent(-bound, bound / 2)
    assert bound <= 2.0**exponent < 2 * bound * (1 + 1e-12)


def test_large_tensors_are_sampled_over_all_channels():
    x = np.zeros((1, 600, 1000, 4), np.float32)
    x[..., 3] = 1
    distribution = observed(x)
    ones = distribution.counts[distribution.values > 0.5].sum()
    assert ones / distribution.total == pytest.approx(0.25, rel=0.01)


def test_hfmg_cuts_outliers_and_keeps_what_is_dense():
    values = np.append(np.linspace(0, 1, 1000), 4.0)
    counts = np.append(np.full(1000, 2000.0), 1.0)
    outlier = Distribution(values, counts, lowest=0.0, highest=4.0, half_width=0.0)
    factors = Hfmg(4096).search(outlier, True)
    assert 0.95 < (127 - factors.offset) * factors.scale < 2.0
    generator = np.random.default_rng(8)
    uniform = Hfmg(1024).search(observed(generator.uniform(-1, 1, 100_000)), False)
    assert uniform.offset == 0
    assert uniform.scale == pytest.approx(1 / 127, rel=0.03)


def hfmg_error(counts, left, right):
    """The error of a range by its definition: stretch by stretch between the edges of source and destination bins."""
    width = (right + 1 - left) / 256
    edges = np.unique(np.concatenate([np.arange(counts.size + 1.0), left + width * np.arange(1, 256)]))
    total = 0.0
    for start, end in itertools.pairwise(edges):
        density = counts[int((start + end) / 2)]
        centre = left + (min(max(math.floor(((start + end) / 2 - left) / width), 0), 255) + 0.5) * width
        total += density * ((end - centre) ** 3 - (start - centre) ** 3) / 3
    return total


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 3, 7]), st.data())
def test_hfmg_errors_by_their_definition(seed, power, data):
    generator = np.random.default_rng(seed)
    counts = np.histogram(generator.normal(size=5000) ** power, bins=1024)[0].astype(np.float64)
    lefts = data.draw(st.lists(st.integers(0, 600), min_size=1, max_size=3))
    ranges = [(left, data.draw(st.integers(left + 256, 1023))) for left in lefts]
    expected = [hfmg_error(counts, *each) for each in ranges]
    np.testing.assert_allclose(hfmg._range_errors(counts, ranges), expected, rtol=1e-6)


TINY = np.float32(1e-45)
HUGE = np.float32(3e38)


@settings(max_examples=60, deadline=None)
@given(
    exponents=st.lists(st.integers(-149, 127), min_size=1, max_size=3),
    size=st.sampled_from([50, 70_000]),
    asymmetric=st.booleans(),
    algorithm=st.sampled_from(["ifmr", "hfmg"]),
)
def test_values_of_any_magnitude_get_factors(exponents, size, asymmetric, algorithm):
    """Batches of denormals, of the largest floats, and of both, one after the other."""
    observation = Observation()
    for seed, exponent in enumerate(exponents):
        values = np.random.default_rng(seed).uniform(-1, 1, size)
        assert observation.add((values * 2.0**exponent).astype(np.float32))
    distribution = observation.distribution()
    assert distribution.total == size * len(exponents)
    assert np.isfinite(distribution.values).all()
    if algorithm == "ifmr":
        factors = Ifmr().search(distribution, asymmetric)
    else:
        factors = Hfmg(1024).search(distribution, asymmetric)
    assert np.isfinite(factors.scale) and factors.scale >= 2.0**-126
    assert -128 <= factors.offset <= 127


@pytest.mark.parametrize("value", [TINY, np.float32(1e-38), np.float32(1e-35), np.float32(1e-20), HUGE])
def test_a_batch_of_one_magnitude(value):
    observation = observed(np.full(70_000, value, np.float32), np.zeros(70_000, np.float32))
    assert observation.total == 140_000 and observation.highest == value


def test_range_factors_of_the_specification():
    factors = range_factors(-1.0, 3.0, True)
    assert factors.scale == pytest.approx(4 / 255)
    assert factors.offset == -64  # round(-128 + 63.75)
    assert range_factors(0.0, 0.0, True).offset == -128
    assert range_factors(0.0, 6.0, True).offset == -128
    assert range_factors(-3.0, 1.0, False).scale == pytest.approx(3 / 128)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.27, -0.5], 0.01),  # the positive side is larger: 127 steps
        ([0.5, -1.28], 0.01),  # the negative side is larger: 128 steps
        ([1.279, -1.28], 1.28 / 127),  # 128 steps would clip the positive side
        ([0.0, 0.0], 1.0),  # dead channel
        ([1e-9, -1e-9], 1e-9 / 127),  # small is not dead
        ([1e-45, 0.0], 2.0**-126),  # nothing is smaller
    ],
)
def test_arq_scale_rule(weights, expected):
    scale = arq_scales("layer", "MatMul", np.array([weights], np.float32).T, channel_wise=False)
    assert scale.shape == (1,)
    assert scale[0] == pytest.approx(expected, rel=1e-6)


def test_arq_channels_of_each_layout():
    w = np.random.default_rng(9).normal(size=(3, 3, 4, 5)).astype(np.float32)
    assert arq_scales("l", "Conv2D", w, True).shape == (5,)
    assert arq_scales("l", "Conv2DBackpropInput", w, True).shape == (4,)
    depthwise = arq_scales("l", "DepthwiseConv2dNative", w, True)
    assert depthwise.shape == (20,)
    one = arq_scales("l", "MatMul", w[:, :, 2, 3].reshape(-1, 1), False)
    assert depthwise[2 * 5 + 3] == one[0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.floats(1e-4, 1e4))
def test_quantized_weights_are_within_half_a_step(seed, scale):
    w = (np.random.default_rng(seed).normal(size=(3, 3, 2, 4)) * scale).astype(np.float32)
    scales = arq_scales("l", "Conv2D", w, True)
    q = nearest_integers("Conv2D", w, scales)
    assert q.dtype == np.int8
    error = np.abs(q * scales - w) / scales
    # The larger side may lose half a step to clipping on the smaller one.
    assert error.max() <= 0.5 + 1e-3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_name_the_layer(value):
    with pytest.raises(CalibrationError, match="'the/layer'"):
        arq_scales("the/layer", "MatMul", np.array([[1.0, value]], np.float32), False)


@given(st.floats(2**-28, 2**26, width=32))
def test_float16_scales(scale):
    rounded = round_through_float16(scale)
    assert rounded == pytest.approx(scale, rel=3e-3)


@pytest.mark.parametrize("scale", [2.0**-29, 2.0**-60, 2.0**33])
def test_scales_of_which_float16_does_not_even_hold_the_square_root(scale):
    assert round_through_float16(scale) is None
