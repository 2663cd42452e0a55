"""Factors that TensorFlow's requantizing kernel multiplies by to the bit, and the steps that lead to such."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.ops.clips import NO_CLIP, Clip
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.kernel_factors import has_exact_bytes, limits_of, quotients, settled_steps


def test_quotients_times_255_are_the_factors():
    factors = np.random.default_rng(0).uniform(1e-6, 1e-2, 100_000).astype(np.float32)
    found = quotients(factors)
    has = ~np.isnan(found)
    np.testing.assert_array_equal((found * np.float32(255))[has], factors[has])
    assert 0.995 < has.mean() < 1


def test_a_factor_without_a_quotient_is_the_product_of_no_float():
    factors = (np.arange(2**23, 2**24) / 2**23).astype(np.float32)  # all floats from 1 to 2
    first, last = (np.float32(bound).view(np.int32) for bound in (1 / 256, 2 / 254))
    products = np.arange(first, last, dtype=np.int32).view(np.float32) * np.float32(255)
    reached = np.isin(factors, products)
    np.testing.assert_array_equal(~np.isnan(quotients(factors)), reached)
    assert factors[~reached].min() >= 255 / 128


def grid_of(scale, offset=-128):
    return ActivationFactors(float(np.float32(scale)), offset)


RELU6, RELU = Clip(0.0, 6.0), Clip(0.0, np.inf)


def test_a_sum_that_two_roundings_take_to_another_byte_than_one():
    """8,436 times 0.021514935 is 181.499995: float32 takes it for 181.5, and two products for less."""
    grid = grid_of(0.024)
    near = np.float32(0.021514935) * np.float32(0.024)
    tried = near + np.arange(-40, 40, dtype=np.float32) * np.spacing(near)
    sums = np.float32(8436)
    differs = np.rint(sums * tried * grid.inverse) != np.rint(sums * (tried * grid.inverse))
    assert differs.any() and not has_exact_bytes(tried[differs], grid, RELU6).any()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    clip=st.sampled_from([RELU6, RELU, Clip(0.5, 4.0), NO_CLIP]),
    scale=st.sampled_from([6 / 255, 0.024, 0.03, 0.002]),
)
def test_channels_with_exact_bytes_have_them_for_every_sum(seed, clip, scale):
    generator, grid = np.random.default_rng(seed), grid_of(scale)
    deq_scale = np.exp(generator.uniform(-9, -3, 64)).astype(np.float32)
    sums = np.arange(-1000, 60_000, dtype=np.float32)[:, np.newaxis]
    values = np.clip(sums * deq_scale, np.float32(clip.lowest), np.float32(clip.highest))
    simulated = np.clip(np.rint(values * grid.inverse), 0, 255)
    once = np.clip(np.rint(sums * (deq_scale * grid.inverse)), *limits_of(grid, clip))
    right = (simulated == once).all(axis=0) & ~np.isnan(quotients(deq_scale * grid.inverse))
    found = has_exact_bytes(deq_scale, grid, clip)
    assert (found <= right).all()
    within = 257 / (deq_scale * grid.inverse) < 60_000  # all sums were looked at where bytes change
    np.testing.assert_array_equal(found[within], right[within])


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale_d=st.integers(-20, 3),
    scale=st.integers(-12, 10),
    clip=st.sampled_from([NO_CLIP, RELU, RELU6]),
)
def test_settled_steps_grow_by_next_to_nothing(seed, scale_d, scale, clip):
    """Factors are those of usual layers; where a byte takes millions of sums, no step makes all of them alike."""
    generator = np.random.default_rng(seed)
    read = float(np.float32(generator.uniform(1, 2) * 2.0**scale_d))
    grid = grid_of(generator.uniform(1, 2) * 2.0**scale)
    factors = np.exp(generator.uniform(np.log(1e-3), 0, 200))
    steps = (factors * grid.scale / read).astype(np.float32)
    found = settled_steps(steps, read, grid, clip)
    assert has_exact_bytes(np.float32(read) * found, grid, None if grid.repeats(clip) else clip).all()
    assert (found >= steps).all() and (found / steps - 1).max() <= 2e-5


@pytest.mark.parametrize("step", [2.0**-126, 2.0**126])
def test_steps_that_lead_to_no_factor_stay(step):
    steps = np.array([step], np.float32)
    grid = grid_of(1e3 if step < 1 else 1e-3)
    np.testing.assert_array_equal(settled_steps(steps, 1e-3 if step < 1 else 1e3, grid, NO_CLIP), steps)
