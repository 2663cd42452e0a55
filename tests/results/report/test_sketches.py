"""Small pictures of layers, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import activation

from amct_tensorflow.results.report.document import Activation, Histogram, Weights
from amct_tensorflow.results.report.plots import HEIGHT, WIDTH, sketch_histogram, sketch_ranges


def test_histogram():
    """Two bins over 0 to 4, of which the clip takes 1 to 3: 384 units are 4, so the clip is at 96 and 288."""
    drawn = sketch_histogram(Activation(1.0, 0, (1.0, 3.0), Histogram(0.0, 4.0, (1.0, 3.0)), 0.0))
    # log1p(1) is half of log1p(3).
    assert drawn.path == "M0 96V48H192V0H384V96Z"
    assert drawn.clip == (96, 288) and (drawn.low, drawn.high) == (0.0, 4.0)


def test_the_clip_may_lie_outside():
    drawn = sketch_histogram(Activation(1.0, 0, (-2.0, 6.0), Histogram(0.0, 4.0, (1.0,)), 0.0))
    assert drawn.path == "M96 96V0H288V96Z" and drawn.clip == (0, 384)


def test_nothing_is_drawn_of_nothing():
    assert sketch_histogram(Activation(1.0, 0, (0.0, 1.0), None, None)) is None
    assert sketch_ranges(Weights((1,), (1.0,), (), ())) is None


def test_ranges():
    """Two channels, -1 to 1 and 0 to 3: 96 units are 4, so zero stands 24 above the bottom."""
    drawn = sketch_ranges(Weights((1, 2), (1.0,), (-1.0, 0.0), (1.0, 3.0)))
    assert drawn.path == "M0 96V48H192V0H384V72H192V96H0Z"
    assert drawn.zero == 72 and (drawn.low, drawn.high) == (-1.0, 3.0)


def test_many_channels_share_columns():
    drawn = sketch_ranges(Weights((1, 4096), (1.0,), (-1.0,) * 4096, (1.0,) * 4096))
    assert drawn.path.count("H") == 2 * 128 and len(drawn.path) < 3000


FINITE = st.floats(-1e30, 1e30)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=8), FINITE, FINITE, FINITE, FINITE)
def test_histograms_stay_inside(counts, a, b, c, e):
    seen = Histogram(min(a, b), max(a, b), tuple(counts))
    drawn = sketch_histogram(Activation(1.0, 0, (min(c, e), max(c, e)), seen, 0.0))
    numbers = [
        int(part) for part in drawn.path.replace("M", " ").replace("V", " ").replace("H", " ").strip("Z ").split()
    ]
    assert all(0 <= each <= max(WIDTH, HEIGHT) for each in numbers) and all(0 <= each <= WIDTH for each in drawn.clip)


def test_the_example_of_other_tests():
    assert math.isclose(activation().clip[1], 0.00625 * (127 + 64)) and activation().clipped == pytest.approx(3 / 16)
