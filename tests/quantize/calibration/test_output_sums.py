"""The sums from which similarities follow, against the definition, however the images come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.calibration.output_comparison import OutputSums


def outputs(seed, rows, channels, error):
    generator = np.random.default_rng(seed)
    original = generator.normal(size=(rows, channels)).astype(np.float32)
    bias = generator.normal(size=channels)
    quantized = original - error * (generator.normal(size=original.shape) + bias)
    return original, quantized.astype(np.float32)


def deficit(original, quantized):
    """1 - similarity by its definition, in float64."""
    a, b = original.astype(np.float64), quantized.astype(np.float64)
    return 0.5 * (1 - np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    channels=st.integers(1, 6),
    axis=st.sampled_from([-1, 1]),
    weights=st.lists(st.sampled_from([1.0, 4.0]), min_size=1, max_size=4),
)
def test_noise_with_and_without_what_was_added_to_the_channels(seed, channels, axis, weights):
    generator = np.random.default_rng(seed)
    shape = (3, channels, 5) if axis == 1 else (3, 5, channels)
    shift = generator.normal(size=channels)
    along = shift[:, np.newaxis] if axis == 1 else shift
    sums, signal, noise, without = OutputSums(axis), 0.0, 0.0, 0.0
    for weight in weights:
        original = generator.normal(size=shape).astype(np.float32)
        quantized = (original + 0.1 * generator.normal(size=shape)).astype(np.float32)
        sums.add(original, quantized, weight)
        difference = original.astype(np.float64) - quantized
        signal += weight * np.sum(original.astype(np.float64) ** 2)
        noise += weight * np.sum(difference**2)
        without += weight * np.sum((difference + along) ** 2)
    assert sums.noise == pytest.approx(noise / signal, rel=1e-4)
    assert sums.noise_without(shift) == pytest.approx(without / signal, rel=1e-4)


def test_without_a_signal_there_is_no_noise_to_it():
    sums = OutputSums(-1)
    sums.add(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))
    assert sums.noise is None and sums.noise_without(np.ones(3)) is None


@pytest.mark.parametrize("magnitude", [1e-30, 1e-22, 1e-12, 1e12, 3e19, 1e30, 5e37])
def test_it_does_not_matter_how_large_values_are(magnitude):
    """Squares of such values are infinite, or 0, in float32."""
    original, quantized = outputs(1, 5000, 3, 0.1)
    sums, scaled = OutputSums(-1), OutputSums(-1)
    sums.add(original, quantized)
    scaled.add(original * np.float32(magnitude), quantized * np.float32(magnitude))
    assert scaled.similarity == pytest.approx(sums.similarity, rel=1e-6)
    assert scaled.noise == pytest.approx(sums.noise, rel=1e-4)
    shift = np.ones(3) * 0.01
    assert scaled.noise_without(shift * magnitude) == pytest.approx(sums.noise_without(shift), rel=1e-4)


@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_an_output_that_breaks_is_as_unlike_as_can_be_and_one_that_was_broken_tells_nothing(broken):
    original, quantized = outputs(2, 50, 3, 0.1)
    other = quantized.copy()
    other[3, 1] = broken
    sums, told = OutputSums(), OutputSums()
    sums.add(original, other)
    assert sums.similarity <= 0.75 and np.isfinite(sums.noise)
    lost = original.copy()
    lost[3, 1] = broken
    told.add(lost, other)
    assert told.similarity > 0.99


def test_layers_whose_outputs_are_beyond_float32_keep_their_order():
    """NaN, which no order knows, would have come out for the second."""
    found = []
    for error, magnitude in ((0.01, 1.0), (0.1, 1e20), (0.5, 1.0)):
        sums = OutputSums()
        sums.add(*(each * np.float32(magnitude) for each in outputs(3, 5000, 2, error)))
        found.append(sums.similarity)
    assert found == sorted(found, reverse=True) and np.isfinite(found).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 400),
    channels=st.integers(1, 40),
    error=st.sampled_from([1e-3, 1e-2, 0.3, 3.0]),
    cuts=st.lists(st.integers(1, 399), max_size=6),
)
def test_it_is_the_definition_for_any_cut(seed, rows, channels, error, cuts):
    original, quantized = outputs(seed, rows, channels, error)
    sums = OutputSums()
    for a, b in zip(np.split(original, sorted(cuts)), np.split(quantized, sorted(cuts)), strict=True):
        sums.add(a, b)
    assert 1 - sums.similarity == pytest.approx(deficit(original, quantized), rel=2e-3, abs=1e-10)


def test_a_weight_is_that_many_repetitions():
    a, b = (outputs(seed, 30, 4, 0.1) for seed in (1, 2))
    weighted, repeated = OutputSums(), OutputSums()
    weighted.add(*a, 3.0)
    weighted.add(*b)
    for part in (a, a, a, b):
        repeated.add(*part)
    assert weighted.similarity == pytest.approx(repeated.similarity, abs=1e-9)


@pytest.mark.parametrize(
    ("original", "quantized", "expected"),
    [([0, 0], [1, 2], 1), ([1, 2], [0, 0], 0), ([1, 2], [2, 4], 1), ([1, 2], [-1, -2], 0), ([1, 0], [0, 1], 0.5)],
)
def test_special_cases_of_the_specification(original, quantized, expected):
    sums = OutputSums()
    sums.add(np.array(original, np.float32), np.array(quantized, np.float32))
    assert sums.similarity == pytest.approx(expected, abs=1e-7)
