"""Rounding by second moments: by hand, against the textbook form, and what must hold for any layer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.algorithms import rounding
from amct_tensorflow.quantize.algorithms.rounding import cholesky_by_blocks, round_to_second_moments


def problem(seed, groups=2, inputs=9, outputs=4, mixed=1.0):
    """Weights of a few steps, scales, and the covariance of correlated inputs."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(groups, inputs, outputs)).astype(np.float32)
    scales = np.abs(weights).max(axis=1, keepdims=True) / generator.integers(4, 100, size=(groups, 1, outputs))
    mix = np.eye(inputs) + mixed * generator.normal(size=(groups, inputs, inputs))
    return weights, scales, mix @ mix.transpose(0, 2, 1)


def output_error(weights, scales, covariance, integers):
    errors = weights - integers * scales
    return np.einsum("gkn,gkl,gln->", errors, covariance, errors)


def nearest(weights, scales):
    return np.clip(np.rint(weights / scales), -128, 127)


def gptq(weights, scales, covariance, damping):
    """Frantar et al. 2022, algorithm 1, in the order of falling variance: with the inverse, one group after another."""
    integers = np.empty(weights.shape)
    for group, (w, s, h) in enumerate(zip(weights.astype(np.float64), scales, covariance, strict=True)):
        damped = h + damping * np.diag(h).mean() * np.eye(len(h))
        order = np.argsort(-np.diag(h), kind="stable")
        upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
        left = w[order]
        for k in range(len(left)):
            integers[group, order[k]] = np.clip(np.rint(left[k] / s[0]), -128, 127)
            error = (left[k] - integers[group, order[k]] * s[0]) / upper[k, k]
            left[k + 1 :] -= np.outer(upper[k, k + 1 :], error)
    return integers


def test_by_hand():
    """Two inputs that are nearly the same: the second weight gives back what the first was rounded up by."""
    weights = np.array([[[0.6], [0.6]]], np.float32)
    covariance = np.array([[[1.0, 0.9], [0.9, 0.9]]])
    assert nearest(weights, 1.0).ravel().tolist() == [1, 1]
    # With damping 0.1 * 0.95, A[0, 1] = 0.9 / 0.995; the target of the second is 0.6 + (0.6 - 1) * A[0, 1] = 0.238.
    assert round_to_second_moments(weights, np.ones((1, 1, 1)), covariance).ravel().tolist() == [1, 0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), groups=st.integers(1, 3), inputs=st.integers(1, 12), outputs=st.integers(1, 5))
def test_it_is_gptq(seed, groups, inputs, outputs):
    weights, scales, covariance = problem(seed, groups, inputs, outputs)
    actual = round_to_second_moments(weights, scales, covariance)
    assert actual.dtype == np.int8 and actual.shape == weights.shape
    expected = gptq(weights, scales, covariance, 0.1)
    assert np.mean(actual != expected) < 0.01 or output_error(weights, scales, covariance, actual) == pytest.approx(
        output_error(weights, scales, covariance, expected), rel=0.02
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999))
def test_uncorrelated_inputs_are_rounded_to_the_nearest(seed):
    weights, scales, covariance = problem(seed)
    diagonal = covariance * np.eye(9)
    np.testing.assert_array_equal(round_to_second_moments(weights, scales, diagonal), nearest(weights, scales))


@pytest.mark.parametrize("seed", range(5))
def test_correlated_inputs_lose_less_than_with_the_nearest(seed):
    weights, scales, covariance = problem(seed, groups=3, inputs=40, outputs=20)
    actual = output_error(weights, scales, covariance, round_to_second_moments(weights, scales, covariance))
    assert actual < 0.6 * output_error(weights, scales, covariance, nearest(weights, scales))


def test_blocks_do_not_matter(monkeypatch):
    weights, scales, covariance = problem(6, inputs=50)
    whole = round_to_second_moments(weights, scales, covariance)
    monkeypatch.setattr(rounding, "_BLOCK", 7)
    assert np.mean(round_to_second_moments(weights, scales, covariance) != whole) < 0.02


def test_groups_do_not_see_each_other():
    weights, scales, covariance = problem(7, groups=3)
    together = round_to_second_moments(weights, scales, covariance)
    for group in range(3):
        one = slice(group, group + 1)
        np.testing.assert_array_equal(
            round_to_second_moments(weights[one], scales[one], covariance[one]), together[one]
        )


@pytest.mark.parametrize("covariance", [np.zeros((1, 4, 4)), np.ones((1, 4, 4)), np.diag([1.0, 0, 0, 2])[np.newaxis]])
def test_inputs_that_never_vary_or_always_agree(covariance):
    weights = np.array([[[0.3, 300], [-0.6, -300], [0.4, 1], [0.5, 2]]], np.float32)
    integers = round_to_second_moments(weights, np.ones((1, 1, 1)), covariance)
    assert integers[0, :2, 1].tolist() == [127, -128]
    assert output_error(weights[:, :, :1], 1.0, covariance, integers[:, :, :1]) <= output_error(
        weights[:, :, :1], 1.0, covariance, nearest(weights[:, :, :1], 1.0)
    )


def test_wide_layers_are_factorized_in_float32_with_the_same_result(monkeypatch):
    weights, scales, covariance = problem(8, inputs=60, outputs=30)
    exact = round_to_second_moments(weights, scales, covariance)
    monkeypatch.setattr(rounding, "SINGLE_FROM", 1)
    single = round_to_second_moments(weights, scales, covariance)
    assert np.mean(single != exact) < 0.01


def test_what_float32_cannot_factorize_is_in_float64(monkeypatch):
    monkeypatch.setattr(rounding, "SINGLE_FROM", 1)
    weights, scales, _ = problem(9, groups=1)
    covariance = np.ones((1, 9, 9))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky((covariance + 1e-9 * np.eye(9)).astype(np.float32))
    actual = round_to_second_moments(weights, scales, covariance, 1e-9)
    assert np.abs(actual - weights / scales).max() < 128


def test_damping_may_differ_between_groups():
    weights, scales, covariance = problem(10, groups=2, inputs=30, outputs=10)
    both = round_to_second_moments(weights, scales, covariance, np.array([0.1, 100.0]))
    for group, damping in enumerate((0.1, 100.0)):
        one = slice(group, group + 1)
        expected = round_to_second_moments(weights[one], scales[one], covariance[one], damping)
        np.testing.assert_array_equal(both[one], expected)
    assert np.mean(both[1] != nearest(weights, scales)[1]) < np.mean(both[0] != nearest(weights, scales)[0])


def covariance_of(inputs, dtype):
    rows = np.random.default_rng(inputs).normal(size=(2 * inputs, inputs))
    return (rows.T @ rows / len(rows)).astype(dtype)


@pytest.mark.parametrize("inputs", [1, 63, 64, 65, 200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-14)])
def test_the_factor_by_blocks_is_lapacks(inputs, dtype, tolerance):
    matrix = covariance_of(inputs, dtype)
    factor = cholesky_by_blocks(matrix)
    assert factor.dtype == dtype
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix.astype(np.float64)), 0, tolerance)


@pytest.mark.parametrize("place", [0, 63, 64, 150])
def test_a_pivot_that_is_not_positive_is_refused(place):
    matrix = covariance_of(200, np.float64)
    matrix[place, place] = -1
    with pytest.raises(np.linalg.LinAlgError):
        cholesky_by_blocks(matrix)
