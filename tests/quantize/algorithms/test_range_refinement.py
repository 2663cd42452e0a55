"""Both ends of a range are moved to where quantization loses least."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, range_factors
from amct_tensorflow.quantize.algorithms.distribution import Observation
from amct_tensorflow.quantize.algorithms.hfmg import Hfmg
from amct_tensorflow.quantize.algorithms.ifmr import Ifmr
from amct_tensorflow.quantize.algorithms.range_refinement import SquaredErrors, refine_range


def observed(values):
    observation = Observation()
    assert observation.add(np.asarray(values, np.float32))
    return observation.distribution()


def squared_error(values, factors):
    """What the quantizer of the saved model does to the values; what it clips counts twice."""
    x = np.asarray(values, np.float32).astype(np.float64)
    steps = np.clip(np.rint(x / factors.scale) + factors.offset, -128, 127) - factors.offset
    clipped = np.clip(x, (-128 - factors.offset) * factors.scale, (127 - factors.offset) * factors.scale)
    return float(np.sum((steps * factors.scale - x) ** 2) + np.sum((clipped - x) ** 2))


def best_of_a_grid(values, factors, ratios):
    ends = [(-128 - factors.offset) * factors.scale, (127 - factors.offset) * factors.scale]
    grid = [range_factors(low * ends[0], high * ends[1], asymmetric=True) for low in ratios for high in ratios]
    return min(squared_error(values, each) for each in grid)


def with_an_outlier_below():
    return np.append(np.random.default_rng(1).normal(size=5000), -40.0)


def test_an_outlier_below_is_cut_off_where_ifmr_keeps_it():
    values = np.concatenate([np.random.default_rng(1).normal(size=500_000), [-12.0]])
    start = Ifmr().search(observed(values), True)
    assert (-128 - start.offset) * start.scale == pytest.approx(-12, abs=0.05)
    found = refine_range(observed(values), start, True)
    assert -11 < (-128 - found.offset) * found.scale < -4
    assert squared_error(values, found) < 0.9 * squared_error(values, start)


def test_an_outlier_that_costs_more_cut_off_than_kept_is_kept():
    values = with_an_outlier_below()
    found = refine_range(observed(values), Ifmr().search(observed(values), True), True)
    assert (-128 - found.offset) * found.scale < -38


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_near_the_best_of_a_grid(seed):
    generator = np.random.default_rng(seed)
    values = generator.laplace(size=20_000) * np.where(generator.random(20_000) < 0.5, 1.0, 3.0) + generator.normal()
    start = Ifmr().search(observed(values), True)
    best = best_of_a_grid(values, start, np.arange(0.3, 1.2, 0.02))
    assert squared_error(values, refine_range(observed(values), start, True)) <= 1.02 * best


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200),
    st.booleans(),
    st.sampled_from([Ifmr(), Hfmg()]),
)
def test_it_never_loses_more_than_where_it_starts(values, asymmetric, algorithm):
    distribution = observed(values)
    start = algorithm.search(distribution, asymmetric)
    found = refine_range(distribution, start, asymmetric)
    slack = 1e-9 * float(np.sum(np.square(values, dtype=np.float64)))
    assert squared_error(values, found) <= squared_error(values, start) + slack
    assert found.scale > 0 and found.scale == float(np.float32(found.scale)) and -128 <= found.offset <= 127
    assert asymmetric or found.offset == 0


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50), st.floats(-120, 120), st.floats(0, 100))
def test_the_error_of_clipping(values, lower, length):
    x = np.asarray(values, np.float32).astype(np.float64)
    found = SquaredErrors(observed(values)).of_clipping(np.array([lower]), np.array([lower + length]))
    assert found == pytest.approx([np.sum((np.clip(x, lower, lower + length) - x) ** 2)], rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("sign, offset", [(1, -128), (-1, 127)])
def test_an_end_that_is_0_stays_there(sign, offset):
    values = sign * np.abs(np.random.default_rng(3).normal(size=3000))
    found = refine_range(observed(values), Ifmr().search(observed(values), True), True)
    assert found.offset == offset


@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-7])
def test_next_to_nothing_stays_as_it_was(value, asymmetric):
    distribution = observed([value] * 5)
    start = Ifmr().search(distribution, asymmetric)
    assert refine_range(distribution, start, asymmetric) == start


def test_without_a_zero_point_only_the_scale_changes():
    values = np.append(np.random.default_rng(4).normal(size=50_000), 30.0)
    start = ActivationFactors(30 / 127, 0)
    found = refine_range(observed(values), start, False)
    assert found.offset == 0 and 0.1 < found.scale / start.scale < 0.95
    assert squared_error(values, found) < squared_error(values, start)


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_it_goes_as_far_as_there_is_something_to_gain(factor):
    values = np.random.default_rng(3).normal(size=20_000)
    start = range_factors(factor * values.min(), factor * values.max(), asymmetric=True)
    best = best_of_a_grid(values, start, np.arange(0.2, 3, 0.04))
    assert squared_error(values, refine_range(observed(values), start, True)) <= 1.02 * best
