"""How far outputs move: values worked out by hand, and that it does not matter how images are split into parts."""

import math

import numpy as np
import pytest
from amct_tensorflow.common.auto_calibration import OutputDivergenceSensitivity
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amct_tensorflow.search.sensitivity.divergence import Divergence


def divergence(*pairs):
    result = Divergence(len(pairs))
    result.add([np.asarray(reference) for reference, _ in pairs], [np.asarray(value) for _, value in pairs])
    return result.value


def test_probabilities_by_kl_divergence():
    p, q = [[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]]
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence((p, q)) == pytest.approx((first + math.log(2)) / 2)


def test_other_floats_by_normalised_squared_error():
    assert divergence(([[1.0, 2.0]], [[1.0, 4.0]])) == pytest.approx(4 / 5)
    assert divergence(([0.0], [0.0])) == 0
    assert divergence(([0.0], [1.0])) == 1


def test_classes_by_the_share_that_differ():
    assert divergence((np.array([3, 4, 5, 6]), np.array([3, 4, 0, 6]))) == 0.25
    assert divergence((np.array([b"cat", b"dog"]), np.array([b"cat", b"cow"]))) == 0.5


def test_several_outputs_are_averaged():
    assert divergence(([2.0], [3.0]), (np.array([1, 1]), np.array([1, 2]))) == pytest.approx((0.25 + 0.5) / 2)


def test_another_shape_is_wholly_different():
    assert divergence((np.zeros((3, 4), np.int32), np.zeros((2, 4), np.int32))) == 1


def test_values_that_are_not_finite():
    assert divergence(([1.0, 2.0], [1.0, np.nan])) == np.inf
    assert divergence(([[0.5, 0.5]], [[np.nan, 0.5]])) == np.inf
    assert divergence(([1.0, np.inf], [1.0, np.inf])) == 0
    assert math.isnan(Divergence(0).value)


@given(
    values=hnp.arrays(np.float32, (2, 7, 5), elements=st.floats(0.125, 8, width=32)),
    cut=st.integers(1, 6),
    normalise=st.booleans(),
)
def test_parts_add_up(values, cut, normalise):
    reference, other = values / values.sum(axis=-1, keepdims=True) if normalise else values
    parts = Divergence(1)
    for part in (slice(None, cut), slice(cut, None)):
        parts.add([reference[part]], [other[part]])
    assert parts.value == pytest.approx(divergence((reference, other)), rel=1e-9, abs=1e-12)


def test_similarity_is_1_for_equal_outputs_and_falls():
    sensitivity = OutputDivergenceSensitivity()
    p = np.array([[0.5, 0.5]], np.float32)
    near, far = np.array([[0.4, 0.6]], np.float32), np.array([[0.1, 0.9]], np.float32)
    assert sensitivity.compare(p, p) == 1
    assert 1 > sensitivity.compare(p, near) > sensitivity.compare(p, far) > 0
