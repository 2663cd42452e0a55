"""Second moments against NumPy's covariance, however the rows come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.algorithms import second_moments
from amct_tensorflow.quantize.algorithms.second_moments import SecondMoments


def rows_of(seed, groups=2, rows=60, inputs=5, mean=3.0):
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(groups, inputs, inputs))
    return (generator.normal(size=(groups, rows, inputs)) @ mix + mean).astype(np.float32)


def expected(rows):
    return np.stack([np.cov(group.astype(np.float64), rowvar=False, bias=True) for group in rows])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), cuts=st.lists(st.integers(1, 59), max_size=4, unique=True))
def test_the_cut_into_batches_does_not_matter(seed, cuts):
    rows = rows_of(seed)
    moments = SecondMoments()
    for part in np.split(rows, sorted(cuts), axis=1):
        moments.add(part)
    ((block, covariance, _),) = moments.covariances()
    assert block == slice(0, 5) and moments.groups == 2
    np.testing.assert_allclose(moments.mean, rows.mean(axis=1, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(covariance, expected(rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups, inputs", [(2, 1), (7, 9), (3, 25)])
def test_groups_that_lie_side_by_side_have_the_moments_of_others(groups, inputs):
    rows = rows_of(4, groups, rows=200, inputs=inputs, mean=-40.0)
    beside = np.ascontiguousarray(rows.transpose(2, 1, 0)).transpose(2, 1, 0)
    moments, others = SecondMoments(), SecondMoments()
    for part in (slice(0, 130), slice(130, 200)):
        moments.add(beside[:, part])
        others.add(rows[:, part])
    ((_, covariance, damping),) = moments.covariances()
    np.testing.assert_allclose(covariance, expected(rows).reshape(covariance.shape), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(damping, next(others.covariances()).damping, rtol=1e-3)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=1, dtype=np.float64), rtol=1e-6)


def test_a_large_mean_takes_no_digits_from_the_covariance():
    rows = rows_of(1, mean=0.0) / 8
    moments = SecondMoments()
    for part in np.split(np.float32(1000) + rows, 3, axis=1):
        moments.add(part)
    ((_, covariance, _),) = moments.covariances()
    np.testing.assert_allclose(covariance, expected(np.float32(1000) + rows), rtol=1e-3, atol=1e-3)


def test_an_input_that_never_varies_has_no_variance():
    rows = rows_of(2)
    rows[:, :, 3] = 0.1
    moments = SecondMoments()
    moments.add(rows)
    ((_, covariance, _),) = moments.covariances()
    assert not covariance[:, 3].any() and not covariance[:, :, 3].any()


@pytest.mark.parametrize("inputs", [6, 7, 8])
def test_many_inputs_are_cut_into_blocks(monkeypatch, inputs):
    monkeypatch.setattr(second_moments, "LARGEST_BLOCK", 3)
    rows = rows_of(3, inputs=inputs)
    moments = SecondMoments()
    for part in np.split(rows, 2, axis=1):
        moments.add(part)
    covered = np.zeros(inputs, int)
    for block, covariance, _ in moments.covariances():
        covered[block] += 1
        assert covariance.shape[1] <= 3
        np.testing.assert_allclose(covariance, expected(rows)[:, block, block], rtol=1e-4, atol=1e-4)
    assert (covered == 1).all()


def test_many_rows_are_trusted_and_few_as_far_as_their_noise_allows():
    """Independent inputs of variance 1: what the covariance of n rows has beside the diagonal is noise alone."""
    generator = np.random.default_rng(0)
    found = {}
    for rows in (2000, 20, 4):
        moments = SecondMoments()
        moments.add(generator.normal(size=(1, rows, 30)).astype(np.float32))
        ((_, _, found[rows]),) = moments.covariances()
    # |x @ x.T - I|**2 is p * (p + 1) on average, and |H - I|**2 a part of 1 / n of that: r is nearly 1. Of 4 rows, from
    # which a mean is taken, |x|**2 is 22.5, |H|**2 is 169 and r (126 - 42) / (169 - 17) on average.
    assert found[2000] > 5 and found[20] > 1 and found[4] > 0.8

    mix = generator.normal(size=(30, 3))
    moments = SecondMoments()
    moments.add((generator.normal(size=(1, 2000, 3)) @ mix.T).astype(np.float32))
    ((_, _, damping),) = moments.covariances()
    assert damping == [second_moments.DAMPING]


@pytest.mark.parametrize("cut", [2, 6, 11])
def test_shrinkage_is_that_of_ledoit_and_wolf_however_the_rows_come(cut):
    rows = rows_of(5, groups=2, rows=12, inputs=6)
    moments = SecondMoments()
    for part in np.split(rows, [cut], axis=1):
        moments.add(part)
    ((_, _, damping),) = moments.covariances()
    for group, found in zip(rows.astype(np.float64), damping, strict=True):
        centred = group - group.mean(axis=0)
        covariance = centred.T @ centred / len(centred)
        target = np.trace(covariance) / 6 * np.eye(6)
        noise = sum(np.square(np.outer(row, row) - covariance).sum() for row in centred) / len(centred) ** 2
        shrinkage = min(noise / np.square(covariance - target).sum(), 1)
        assert found == pytest.approx(max(second_moments.DAMPING, shrinkage / (1 - shrinkage)), rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 8), scale=st.floats(1e-3, 1e3))
def test_damping_does_not_depend_on_the_unit_and_is_bounded(seed, rows, scale):
    values = rows_of(seed, rows=rows)
    found = []
    for each in (values, np.float32(scale) * values):
        moments = SecondMoments()
        moments.add(each)
        ((_, _, damping),) = moments.covariances()
        assert np.all((damping >= second_moments.DAMPING) & (damping <= 100))
        found.append(damping)
    np.testing.assert_allclose(*found, rtol=0.01)


def test_one_row_has_no_covariance_and_constant_ones_neither():
    for rows in (np.ones((1, 1, 4)), np.ones((1, 9, 4))):
        moments = SecondMoments()
        moments.add(rows.astype(np.float32))
        ((_, covariance, damping),) = moments.covariances()
        assert not covariance.any() and damping == [second_moments.DAMPING]
