"""DMQ balancing: the formula and its special cases (spec section 7.6), by hand."""

import numpy as np
import pytest

from amct_tensorflow.quantize.algorithms.dmq import balance_factors


def factors(activations, weights, strength=0.5):
    return balance_factors(np.array(activations, float), np.array(weights, float), strength)


@pytest.mark.parametrize(
    ("activations", "weights", "strength", "expected"),
    [
        ([4, 9], [1, 1], 0.5, [2, 3]),
        ([4, 4], [1, 16], 0.5, [2, 0.5]),
        ([32], [32], 0.2, [2**-3]),  # 32^0.2 / 32^0.8
        ([32], [32], 0.8, [2**3]),
        ([4, 0], [1, 0], 0.5, [2, 1]),  # zeros on both sides
        ([4, 0], [1, 8], 0.5, [2, 0.25]),  # the largest balanced weight is 2
        ([4, 6], [1, 0], 0.5, [2, 3]),  # the largest balanced activation is 2
        ([5, 0], [0, 7], 0.5, [1, 1]),  # no channel tells what is large
    ],
)
def test_factors_by_hand(activations, weights, strength, expected):
    assert factors(activations, weights, strength) == pytest.approx(expected, rel=1e-6)


def test_factors_can_be_divided_by_and_stand_in_a_record():
    smallest = np.finfo(np.float32).eps
    assert factors([1e-30, 1e30], [1e30, 1e-30]) == (smallest, 1 / smallest)


def test_what_is_small_as_a_whole_is_not_limited():
    """They would be 2**-25 and 2**-23, one of them below the smallest; their ratio is what matters."""
    assert factors([2.0**-25, 2.0**-21], [2.0**25, 2.0**25]) == (0.5, 2.0)
