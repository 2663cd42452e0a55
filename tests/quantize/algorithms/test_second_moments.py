"""Second moments against NumPy's covariance, however the rows come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.algorithms import rounding
from amct_tensorflow.quantize.algorithms.rounding import SecondMoments


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
    monkeypatch.setattr(rounding, "LARGEST_BLOCK", 3)
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
