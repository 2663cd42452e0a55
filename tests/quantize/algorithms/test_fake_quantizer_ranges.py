"""The ranges of TensorFlow's fake quantizers, against TensorFlow itself."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.algorithms.fake_quantizer_ranges import fake_quantizer_range

ENDS = st.floats(-1e4, 1e4, width=32).map(np.float32)


def levels(values, nudged, channel=0):
    """Returns the levels of values that a fake quantizer has made."""
    exact = values.astype(np.float64) / nudged.scale[channel] + nudged.zero_point[channel]
    assert np.abs(exact - np.rint(exact)).max() < 1e-2  # multiples of the scale, up to float32
    return np.rint(exact)


def inputs(nudged, channel=0):
    """Returns values far from the middle between two levels, inside and outside of the range; and their levels."""
    rng = np.random.default_rng(0)
    span = nudged.highest - nudged.lowest
    expected = rng.integers(nudged.lowest - span, nudged.highest + span, 50)
    exact = expected - nudged.zero_point[channel] + rng.uniform(-0.4, 0.4, 50)
    return (exact * nudged.scale[channel]).astype(np.float32), np.clip(expected, nudged.lowest, nudged.highest)


@settings(deadline=None, max_examples=150)
@given(low=ENDS, high=ENDS, num_bits=st.integers(2, 16), narrow_range=st.booleans())
def test_values_are_those_of_tensorflow(low, high, num_bits, narrow_range):
    low, high = min(low, high), max(low, high)
    nudged = fake_quantizer_range(low, high, num_bits, narrow_range)
    if nudged.scale[0] < 1e-6 * max(abs(low), abs(high), 1e-30):
        return  # a range that is narrow beyond what float32 tells apart
    x, expected = inputs(nudged)
    actual = tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits, narrow_range).numpy()
    np.testing.assert_array_equal(levels(actual, nudged), expected)
    np.testing.assert_allclose(actual, (expected - nudged.zero_point) * nudged.scale.astype(np.float64), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=5), st.booleans())
def test_every_channel_has_its_own_range(ends, narrow_range):
    low, high = np.sort(np.array(ends, np.float32), axis=1).T
    nudged = fake_quantizer_range(low, high, 8, narrow_range)
    if np.any(nudged.scale < 1e-6 * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-30)):
        return
    x, expected = zip(*(inputs(nudged, channel) for channel in range(len(ends))), strict=True)
    actual = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        np.stack(x, axis=1), low, high, 8, narrow_range
    ).numpy()
    for channel in range(len(ends)):
        np.testing.assert_array_equal(levels(actual[:, channel], nudged, channel), expected[channel])


@pytest.mark.parametrize(
    ("low", "high", "narrow_range", "scale", "zero_point"),
    [(0.0, 25.5, False, 0.1, 0),
     (-12.8, 12.7, False, 0.1, 128),
     (-12.7, 12.7, True, 0.1, 128),
     (-1.0, 254.0, False, 1.0, 1),
     (-0.4, 254.6, False, 1.0, 0),  # moved to [0, 255]
     (-0.5, 254.5, False, 1.0, 1),  # a tie goes up
     (100.0, 355.0, False, 1.0, 0),  # 0 is always among the values
     (-355.0, -100.0, False, 1.0, 255)],
)  # fmt: skip
def test_by_hand(low, high, narrow_range, scale, zero_point):
    nudged = fake_quantizer_range(np.float32(low), np.float32(high), 8, narrow_range)
    np.testing.assert_allclose(nudged.scale, [scale], rtol=1e-6)
    assert nudged.zero_point.tolist() == [zero_point]
    assert (nudged.lowest, nudged.highest, nudged.is_int8) == (int(narrow_range), 255, not narrow_range)


def test_an_empty_range_has_no_step():
    assert fake_quantizer_range(np.float32([0, -1]), np.float32([0, 1]), 8, False).scale[0] == 0
