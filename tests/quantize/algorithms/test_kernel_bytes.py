"""Where the integer kernel yields the bytes of the simulation, and the steps that lead to such bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.ops.clips import NO_CLIP, Clip
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.kernel_bytes import (
    ByteForm,
    KernelSums,
    float_biases,
    kernel_bytes,
    kernel_numbers,
    settled_steps,
    weight_ranges,
)

RELU6, RELU = Clip(0.0, 6.0), Clip(0.0, np.inf)


def grid_of(scale, offset=-128):
    return ActivationFactors(float(np.float32(scale)), offset)


def sums_of(weights, offset=-128, bias=None):
    return KernelSums.of(grid_of(1, offset), np.int8(weights), bias)


@pytest.mark.parametrize(
    ("offset", "signed", "zero_point"),
    [(-128, False, 0), (-77, False, 51), (-64, False, 64), (-63, True, -63), (0, True, 0), (127, True, 127)],
)
def test_the_smaller_zero_point_is_taken(offset, signed, zero_point):
    assert ByteForm.of(grid_of(1, offset)) == sums_of([[1]], offset).form == ByteForm(signed, zero_point)


def test_the_limits_of_clipped_values():
    """In steps of 1/16, 6 is 96 above the zero point."""
    for offset, lowest, highest in ((-128, 0, 96), (-100, 28, 124), (10, 10, 106), (100, 100, 127)):
        grid = grid_of(1 / 16, offset)
        assert ByteForm.of(grid).limits(grid, RELU6) == (lowest, highest)
        assert ByteForm.of(grid).limits(grid, None) == ((-128, 127) if offset >= 0 else (0, 255))


def test_the_sums_of_a_layer_by_hand():
    """Data from 0 to 255 with zero point 51 is worth -51 to 204; weights are 3 above 0 and 2 below, bias 10 and -7."""
    sums = sums_of([[3, -2, 0], [-128, 0, 127]], -77, np.array([10.0, -7.0], np.float32))
    assert sums.lowest.tolist() == [10 - 3 * 51 - 2 * 204, -7 - 127 * 51 - 128 * 204]
    assert sums.highest.tolist() == [10 + 3 * 204 + 2 * 51, -7 + 127 * 204 + 128 * 51]
    assert sums.bias.tolist() == [10 - 51 * (3 - 2), -7 - 51 * (127 - 128)]
    assert sums.largest.tolist() == [10 + 3 * 204 + 2 * 51, 7 + 127 * 51 + 128 * 204]
    other = sums.of_channels(np.array([1, 1]), np.array([0.0, 5.0]))
    assert other.lowest.tolist() == [-127 * 51 - 128 * 204, 5 - 127 * 51 - 128 * 204]
    assert sums.of_channels(np.array([0]), None).highest.tolist() == [10 + 3 * 204 + 2 * 51]


def test_kernels_multiply_by_the_factor_itself_where_a_range_tells_them_to():
    factors = np.random.default_rng(0).uniform(1e-6, 1e-2, 100_000).astype(np.float32)
    found = weight_ranges(factors) / np.float32(127)
    assert 0.98 < (found == factors).mean() < 1
    np.testing.assert_allclose(found, factors, rtol=2.0**-23)


def test_the_bytes_of_the_kernel_by_hand():
    """In steps of 1/8 nothing is rounded before it is a byte; ties are, to even."""
    ranges, products = np.float32([127 / 8]), np.array([-9, 3, 4, 5, 12, 20, 2036, 2040, 9000])
    found = kernel_bytes(products, ranges, np.float32([0]), ByteForm(False, 0))
    assert found.tolist() == [0, 0, 0, 1, 2, 2, 254, 255, 255]
    biases = float_biases(np.float32([1 / 8]), np.array([-800]), 5)
    assert biases == np.float32(-95)
    found = kernel_bytes(products, ranges, biases, ByteForm(True, 5))
    assert found.tolist() == [-96, -95, -94, -94, -94, -92, 127, 127, 127]


def simulated_bytes(sums, deq_scale, grid, clip):
    """Returns what the nodes of the quantized model make of sums."""
    form = ByteForm.of(grid)
    if clip is None:
        values = np.float32(sums) * (deq_scale * grid.inverse)
    else:
        values = np.clip(np.float32(sums) * deq_scale, np.float32(clip.lowest), np.float32(clip.highest)) * grid.inverse
    return np.clip(np.rint(values) + form.zero_point, form.lowest, form.highest)


def alike(deq_scale, sums, grid, clip, numbers=None):
    """Tells per channel whether all sums that it reaches become the same bytes, one by one.

    The kernel is told some numbers, or by default those that would serve if nothing were rounded.
    """
    tried = np.arange(sums.lowest.min(), sums.highest.max() + 1)[:, np.newaxis]
    form, factors = ByteForm.of(grid), deq_scale * grid.inverse
    told = (weight_ranges(factors), float_biases(factors, sums.bias, form.zero_point))
    found = kernel_bytes(tried - sums.bias, *(told if numbers is None else (numbers.ranges, numbers.biases)), form)
    found = np.clip(found, *form.limits(grid, clip))
    reached = (tried >= sums.lowest) & (tried <= sums.highest)
    return (~reached | (found == simulated_bytes(tried, deq_scale, grid, clip))).all(axis=0)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    clip=st.sampled_from([None, RELU6, RELU, Clip(0.5, 4.0), NO_CLIP]),
    scale=st.sampled_from([6 / 255, 0.024, 0.03, 0.002]),
    offset=st.sampled_from([-128, -90, -5, 60]),
    reader=st.sampled_from([-128, -100, -3, 90]),
    bias=st.sampled_from([0, 100, 10_000, 1_000_000]),
)
def test_channels_with_exact_bytes_are_those_that_have_them_for_every_sum(seed, clip, scale, offset, reader, bias):
    generator, grid = np.random.default_rng(seed), grid_of(scale, reader)
    deq_scale = np.exp(generator.uniform(-11, -3, 64)).astype(np.float32)
    sums = sums_of(generator.integers(-20, 21, (64, 9)), offset, generator.integers(-bias, bias + 1, 64) // 50)
    found = kernel_numbers(deq_scale, sums, grid, clip)
    assert alike(deq_scale, sums, grid, clip, found)[found.exact].all()
    plain = alike(deq_scale, sums, grid, clip)
    assert found.exact[plain].all()  # nothing is moved there
    np.testing.assert_array_equal(found.ranges[plain], weight_ranges(deq_scale * grid.inverse)[plain])
    assert not alike(deq_scale, sums, grid, clip, found)[~found.exact].any()


def test_a_channel_that_never_reaches_another_byte_needs_no_step_of_its_own():
    """A byte would take 40,000 sums, of which it has 254; its bias is far beyond what would be exact."""
    sums = sums_of([[1]], -127, np.array([2**22]))
    factor = np.float32(1 / 39_999.7)
    assert alike(factor[np.newaxis], sums, grid_of(1), None)
    assert kernel_numbers(factor[np.newaxis], sums, grid_of(1), None).exact
    assert kernel_numbers(np.float32([1e-9]), sums_of([[1]]), grid_of(1), None).exact


def exactness(sums, read, grid, clip):
    """Returns what tells ``settled_steps`` of a layer's steps whether they are exact."""

    def is_exact(steps, channels):
        return kernel_numbers(np.float32(read) * steps, sums.of_channels(channels, None), grid, clip).exact

    return is_exact


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale_d=st.integers(-20, 3),
    scale=st.integers(-12, 10),
    clip=st.sampled_from([None, RELU, RELU6]),
)
def test_settled_steps_grow_by_next_to_nothing(seed, scale_d, scale, clip):
    generator = np.random.default_rng(seed)
    read = float(np.float32(generator.uniform(1, 2) * 2.0**scale_d))
    grid = grid_of(generator.uniform(1, 2) * 2.0**scale)
    factors = np.exp(generator.uniform(np.log(3e-3), np.log(3e-2), 100))
    steps = (factors * grid.scale / read).astype(np.float32)
    sums = sums_of(generator.integers(-127, 128, (100, 32)), -128, generator.integers(-3000, 3000, 100))
    is_exact = exactness(sums, read, grid, clip)
    found = settled_steps(steps, is_exact)
    settled = is_exact(found, np.arange(100))
    assert settled.mean() > 0.97
    np.testing.assert_array_equal(found[~settled], steps[~settled])
    assert (found >= steps).all() and (found / steps - 1).max() <= 2e-5


def test_steps_of_layers_with_many_products_are_settled():
    """Of a thousand products and more, as in a ResNet; a byte takes some 2,500 sums."""
    generator, grid = np.random.default_rng(0), grid_of(0.05)
    steps = (np.exp(generator.uniform(np.log(3e-4), np.log(6e-4), 200)) * grid.scale / 0.03).astype(np.float32)
    sums = sums_of(generator.integers(-127, 128, (200, 1152)), -128, generator.integers(-90_000, 90_000, 200))
    is_exact = exactness(sums, 0.03, grid, None)
    assert is_exact(steps, np.arange(200)).mean() < 0.5
    assert is_exact(settled_steps(steps, is_exact), np.arange(200)).all()


def test_the_first_exact_step_is_taken():
    steps = np.float32([1, 2, 3])
    wanted = {0: 0, 1: 5, 2: 200}  # moves
    seen = []

    def is_exact(tried, indices):
        seen.extend(zip(tried.tolist(), indices.tolist(), strict=True))
        return np.array(
            [step - steps[i] >= wanted[i] * np.spacing(steps[i]) for step, i in zip(tried, indices, strict=True)]
        )

    found = settled_steps(steps, is_exact)
    assert found.tolist() == [1, 2 + 5 * float(np.spacing(np.float32(2))), 3]
    assert len(set(seen)) == len(seen)


def test_many_steps_are_tried_a_few_at_a_time():
    """Where none of thousands is exact, memory does not grow with the moves."""
    tried = []

    def is_exact(steps, channels):
        tried.append(len(steps))
        return np.zeros(len(steps), bool)

    settled_steps(np.ones(3000, np.float32), is_exact)
    assert max(tried) == 3000 and sum(tried) == 127 * 3000


@pytest.mark.parametrize("step", [2.0**-126, 2.0**126])
def test_steps_that_lead_to_no_factor_stay(step):
    steps = np.array([step], np.float32)
    grid = grid_of(1e3 if step < 1 else 1e-3)
    is_exact = exactness(sums_of([[1, 2]]), 1e-3 if step < 1 else 1e3, grid, None)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(settled_steps(steps, is_exact), steps)
