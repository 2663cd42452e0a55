"""Factors that TensorFlow's requantizing kernel multiplies by to the bit, and the steps that lead to such."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.algorithms.kernel_factors import quotients, settled_steps


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


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), scale_d=st.integers(-20, 3), inverse=st.integers(-10, 12))
def test_settled_steps_grow_by_next_to_nothing(seed, scale_d, inverse):
    generator = np.random.default_rng(seed)
    steps = np.exp(generator.uniform(-12, 0, 500)).astype(np.float32)
    read, behind = (np.float32(generator.uniform(1, 2) * 2.0**power) for power in (scale_d, inverse))
    found = settled_steps(steps, read, behind)
    assert not np.isnan(quotients(read * found * behind)).any()
    assert (found >= steps).all() and (found / steps - 1).max() <= 2e-5
    assert (found != steps).mean() < 0.02


@pytest.mark.parametrize(("step", "inverse"), [(2.0**-126, 1e-3), (2.0**126, 1e4)])
def test_steps_that_lead_to_no_factor_stay(step, inverse):
    steps = np.array([step], np.float32)
    np.testing.assert_array_equal(settled_steps(steps, 1e-3, np.float32(inverse)), steps)
    np.testing.assert_array_equal(settled_steps(steps, 1e3, np.float32(inverse)), steps)
