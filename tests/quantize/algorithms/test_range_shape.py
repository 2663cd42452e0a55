"""How values fill their range."""

import numpy as np
import pytest

from amct_tensorflow.quantize.algorithms.distribution import Observation
from amct_tensorflow.quantize.algorithms.range_shape import ChannelPeaks, RangeShape


def shape_of(values, axis=-1):
    observation, peaks = Observation(), ChannelPeaks(axis)
    for batch in values:
        observation.add(batch.astype(np.float32))
        peaks.add(batch.astype(np.float32))
    return RangeShape.of(observation.distribution(), peaks)


def test_mean_and_deviation():
    """Of 1, 2, 3, 6 the mean is 3, and the variance (4 + 1 + 0 + 9) / 4."""
    shape = shape_of([np.array([[1, 2]]), np.array([[3, 6]])])
    assert (shape.count, shape.mean) == (4, 3)
    assert shape.deviation == pytest.approx(3.5**0.5)
    assert shape.channel_spread is None  # of 2 channels


def test_the_channel_that_reaches_farthest_beside_the_median_one():
    """The peaks are 1, 2, 2, 2, 30 whichever batch has them, and whatever their sign."""
    first = np.array([[1, -2, 0, 2, -3]])
    second = np.array([[0, 1, 2, 0, -30], [0, 0, 0, 0, 0]])
    assert shape_of([first, second]).channel_spread == 15
    assert shape_of([first.T[None], np.repeat(second.T[None], 2, 0)[:, :, :1]], axis=1).channel_spread == 15


@pytest.mark.parametrize("values", [[np.zeros((2, 5))], [np.ones(5)], [np.ones((2, 5)), np.ones((2, 6))]])
def test_no_spread_of_zeros_of_one_axis_or_of_lengths_that_vary(values):
    assert shape_of(values).channel_spread is None


def test_a_large_tensor_is_sampled():
    values = np.tile(np.array([1.0, 1, 1, 1, 9]), (1 << 18, 1))
    assert shape_of([values]).channel_spread == 9
