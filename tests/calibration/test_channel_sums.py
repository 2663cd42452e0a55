"""The sums from which corrections and similarities follow, against the definition, however the images come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.calibration.channel_sums import ChannelSums


def outputs(seed, rows, channels, error):
    generator = np.random.default_rng(seed)
    original = generator.normal(size=(rows, channels)).astype(np.float32)
    bias = generator.normal(size=channels)
    quantized = original - error * (generator.normal(size=original.shape) + bias)
    return original, quantized.astype(np.float32)


def deficit(original, quantized, corrected):
    """1 - similarity by its definition, in float64."""
    a, b = original.astype(np.float64), quantized.astype(np.float64)
    if corrected:
        b = b + (a - b).mean(axis=0)
    return 0.5 * (1 - np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 400),
    channels=st.integers(1, 40),
    error=st.sampled_from([1e-3, 1e-2, 0.3, 3.0]),
    corrected=st.booleans(),
    cuts=st.lists(st.integers(1, 399), max_size=6),
)
def test_it_is_the_definition_for_any_cut(seed, rows, channels, error, corrected, cuts):
    original, quantized = outputs(seed, rows, channels, error)
    sums = ChannelSums(channels)
    for a, b in zip(np.split(original, sorted(cuts)), np.split(quantized, sorted(cuts)), strict=True):
        sums.add(a, b, 1.0)
    mean = (original.astype(np.float64) - quantized).mean(axis=0)
    found = sums.correction(gain=False, shift=corrected)
    np.testing.assert_allclose(found.shift, mean if corrected else 0 * mean, atol=1e-6 * max(error, 1e-3) + 1e-7)
    expected = deficit(original, quantized, corrected)
    assert 1 - sums.similarity(found) == pytest.approx(expected, rel=2e-3, abs=1e-10)


def test_a_weight_is_that_many_repetitions():
    a, b = (outputs(seed, 30, 4, 0.1) for seed in (1, 2))
    weighted, repeated = ChannelSums(4), ChannelSums(4)
    weighted.add(*a, 3.0)
    weighted.add(*b, 1.0)
    for part in (a, a, a, b):
        repeated.add(*part, 1.0)
    one, other = (sums.correction(gain=True, shift=True) for sums in (weighted, repeated))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    assert weighted.similarity(one) == pytest.approx(repeated.similarity(other), abs=1e-9)


@pytest.mark.parametrize(
    ("original", "quantized", "expected"),
    [([0, 0], [1, 2], 1), ([1, 2], [0, 0], 0), ([1, 2], [2, 4], 1), ([1, 2], [-1, -2], 0), ([1, 0], [0, 1], 0.5)],
)
def test_special_cases_of_the_specification(original, quantized, expected):
    sums = ChannelSums(1)
    sums.add(np.array(original, np.float32), np.array(quantized, np.float32), 1.0)
    assert sums.similarity(sums.correction(gain=False, shift=False)) == pytest.approx(expected, abs=1e-7)


def test_an_error_that_a_correction_removes_is_none():
    original = outputs(5, 50, 3, 0)[0]
    sums = ChannelSums(3)
    sums.add(original, original - np.array([0.5, -0.25, 1], np.float32), 1.0)
    correction = sums.correction(gain=False, shift=True)
    np.testing.assert_allclose(correction.shift, [0.5, -0.25, 1], rtol=1e-6)
    assert 1 - sums.similarity(correction) < 1e-7
    assert 1 - sums.similarity(sums.correction(gain=False, shift=False)) > 1e-2


@pytest.mark.parametrize("shift", [False, True])
def test_gain_and_shift_are_those_of_least_squares(shift):
    original, quantized = outputs(7, 500, 4, 0.05)
    quantized = (1.1 * quantized).astype(np.float32)
    sums = ChannelSums(4)
    sums.add(original, quantized, 1.0)
    found = sums.correction(gain=True, shift=shift)
    for channel in range(4):
        columns = [quantized[:, channel], np.ones(500)] if shift else [quantized[:, channel]]
        solution, *_ = np.linalg.lstsq(np.stack(columns, 1).astype(np.float64), original[:, channel], rcond=None)
        expected = [*solution, 0.0][:2]
        np.testing.assert_allclose([found.gain[channel], found.shift[channel]], expected, rtol=1e-6, atol=1e-7)
    corrected = found.gain * quantized + found.shift
    assert 1 - sums.similarity(found) == pytest.approx(deficit(original, corrected, corrected=False), rel=1e-6)


def test_no_gain_is_told_by_a_channel_that_hardly_varies_or_has_nothing_to_do_with_it():
    generator = np.random.default_rng(3)
    original = np.stack([np.full(50, 3.0), generator.normal(size=50)], 1).astype(np.float32)
    quantized = np.stack([original[:, 0] - 0.5, generator.normal(size=50).astype(np.float32)], 1)
    sums = ChannelSums(2)
    sums.add(original, quantized, 1.0)
    found = sums.correction(gain=True, shift=True)
    np.testing.assert_array_equal(found.gain, 1)
    np.testing.assert_allclose(found.shift, (original - quantized).mean(axis=0), rtol=1e-6)
