"""A table in int8: by hand, and what holds for any table."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.quantized.table_nodes import quantize_rows


def test_by_hand():
    table = np.array([[127, -63.4, 0.5], [0, 0, 0], [-2.54, 1.27, 0.01], [0.25, 0.25, -0.25]], np.float32)
    integers, scales = quantize_rows(table)
    assert integers.tolist() == [[127, -63, 0], [0, 0, 0], [-127, 64, 0], [127, 127, -127]]
    np.testing.assert_array_equal(scales, np.array([[1], [1], [np.float32(2.54) / 127], [0.25 / 127]], np.float32))


def test_rows_of_any_rank_have_one_scale():
    table = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    integers, scales = quantize_rows(table)
    assert (integers.shape, scales.shape) == ((2, 3, 4), (2, 1, 1))
    np.testing.assert_array_equal(scales.ravel(), (np.array([11, 23]) / 127).astype(np.float32))
    assert integers.max(axis=(1, 2)).tolist() == [127, 127]


def test_numbers_too_small_for_a_scale_become_zeros():
    table = np.array([[1e-40, -1e-41], [1e-35, -1e-35]], np.float32)
    integers, scales = quantize_rows(table)
    assert integers.tolist() == [[0, 0], [127, -127]] and scales[0] == 1


def test_a_large_table_is_quantized_in_parts_alike():
    table = np.random.default_rng(0).normal(size=(4100, 1024)).astype(np.float32)
    integers, scales = quantize_rows(table)
    part = quantize_rows(table[1000:1010])
    np.testing.assert_array_equal(integers[1000:1010], part[0])
    np.testing.assert_array_equal(scales[1000:1010], part[1])


floats = st.floats(-(2.0**60), 2.0**60, width=32)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=floats))
def test_no_value_is_off_by_more_than_half_a_step(table):
    integers, scales = quantize_rows(table)
    largest = np.abs(table).max(axis=1, keepdims=True).astype(np.float64)
    error = np.abs(integers * scales.astype(np.float64) - table)
    # A scale is rounded to float32, which moves the integer 127 by 127 * 2**-24 steps at most.
    assert np.all(error <= np.where(largest / 127 >= np.finfo(np.float32).tiny, largest / 254 * (1 + 2**-15), largest))
    assert integers.min(initial=0) >= -127
    negated = quantize_rows(-table)
    np.testing.assert_array_equal(negated[0], -integers)
    np.testing.assert_array_equal(negated[1], scales)
