"""What is kept of a layer's input for people: every value counted, in its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.quantize.algorithms.distribution import EXACT_LIMIT, Distribution, Observation
from amct_tensorflow.quantize.calibration.observers import BINS


def test_a_histogram_by_hand():
    """From 0 to 8 in four parts: 0 and 1; nothing; 4 and 5; and 8, which belongs to the last."""
    seen = Distribution(np.array([0.0, 1.0, 4.0, 5.0, 8.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 0.0, 8.0, 0.0)
    assert seen.histogram(4).tolist() == [3.0, 0.0, 7.0, 5.0]


def test_a_constant():
    seen = Distribution(np.array([2.0]), np.array([7.0]), 2.0, 2.0, 0.0)
    assert seen.histogram(3).tolist() == [0.0, 0.0, 7.0]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
def test_nothing_is_lost(values):
    observation = Observation()
    assert observation.add(np.array(values, np.float32))
    found = observation.distribution()
    counts = found.histogram(BINS)
    assert counts.shape == (BINS,) and counts.sum() == len(values)
    assert (found.lowest, found.highest) == (min(values), max(values))


def test_many_values_are_counted_within_a_bin():
    """Those beyond the exact limit are on a grid of their own, 65,536 bins wide."""
    values = np.random.default_rng(0).normal(size=2 * EXACT_LIMIT).astype(np.float32)
    observation = Observation()
    observation.add(values)
    counts = observation.distribution().histogram(BINS)
    expected, _ = np.histogram(values, BINS, (values.min(), values.max()))
    assert counts.sum() == values.size
    np.testing.assert_allclose(counts, expected, atol=0.002 * values.size)
    assert counts.argmax() == pytest.approx(expected.argmax(), abs=3)
