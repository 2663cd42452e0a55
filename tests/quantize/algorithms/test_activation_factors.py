"""The grid of an activation: its inverse, its ends, and the clips that it makes superfluous."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.ops.clips import NO_CLIP, Clip
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors

scales = st.floats(min_value=2.0**-120, max_value=2.0**120, width=32)
values = st.floats(min_value=-20, max_value=20, width=32)


def grid(scale, offset):
    return ActivationFactors(float(np.float32(scale)), offset)


@given(scales)
def test_the_inverse_survives_being_read_back(scale):
    """A quantizer holds ``1 / scale``; whoever takes the scale from there gets the same inverse again."""
    stored = ActivationFactors(scale, 0).inverse
    assert ActivationFactors(float(np.float32(1) / stored), 0).inverse == stored


def test_limits_are_the_values_of_the_least_and_the_greatest_integer():
    assert grid(0.5, -128).limits == (0, 127.5)
    assert grid(0.25, 28).limits == (-39, 24.75)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 28), (1, 32), (0.3, 29), (-39.2, -128), (np.inf, 127), (-np.inf, -128)]
)
def test_the_integer_of_a_value(value, expected):
    assert grid(0.25, 28).integer_of(value) == expected


@pytest.mark.parametrize(
    ("clip", "scale", "offset", "expected"),
    [
        (NO_CLIP, 0.1, 5, True),
        (Clip(0, np.inf), 0.1, -128, True),
        (Clip(0, np.inf), 0.1, -127, False),  # -0.1 is a value of the grid
        (Clip(0, 6), 6 / 255, -128, True),
        (Clip(0, 6), 6 / 254.6, -128, True),  # 254.6 rounds to 255
        (Clip(0, 6), 6 / 254.4, -128, False),  # 6 becomes 254, and 255 stands for more than 6
        (Clip(0, 6), 6.1 / 255, -128, False),
        (Clip(0, 6), 5 / 255, -128, True),
        (Clip(0, 6), 5 / 255, -100, False),
        (Clip(0, 4), 4 / 255, -128, True),
        (Clip(0, 4), 5 / 255, -128, False),
        (Clip(0.01, 4), 4 / 255, -128, False),  # 0.01 becomes 1
        (Clip(-1, 1), 1 / 128, 0, True),
        (Clip(-1, 1), 1 / 127, 0, False),
    ],
)
def test_clips_that_a_grid_makes_superfluous(clip, scale, offset, expected):
    assert grid(scale, offset).repeats(clip) == expected


@given(st.floats(min_value=0.01, max_value=0.1), st.integers(-128, 127), st.tuples(values, values), values)
def test_a_superfluous_clip_changes_no_integer(scale, offset, bounds, value):
    clip, factors = Clip(*sorted(bounds)), grid(scale, offset)
    seen = (value, -np.inf, np.inf)
    is_same = all(factors.integer_of(each) == factors.integer_of(np.clip(each, *clip)) for each in seen)
    assert is_same == factors.repeats(clip)
