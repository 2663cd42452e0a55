"""How values fill their range."""

import numpy as np
import pytest

from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.algorithms.distribution import Observation
from amct_tensorflow.quantize.algorithms.range_shape import ChannelPeaks, RangeShape, uses_of_channels


def shape_of(values, axis=-1, uses=None):
    observation, peaks = Observation(), ChannelPeaks(axis)
    for batch in values:
        observation.add(batch.astype(np.float32))
        peaks.add(batch.astype(np.float32))
    return RangeShape.of(observation.distribution(), peaks, uses)


def test_mean_and_deviation():
    """Of 1, 2, 3, 6 the mean is 3, and the variance (4 + 1 + 0 + 9) / 4."""
    shape = shape_of([np.array([[1, 2]]), np.array([[3, 6]])])
    assert (shape.count, shape.mean) == (4, 3)
    assert shape.deviation == pytest.approx(3.5**0.5)
    assert shape.channel_spread is None  # of 2 channels


# The peaks are 1, 2, 2, 2, 30 whichever batch has them, and whatever their sign.
FIRST, SECOND = np.array([[1, -2, 0, 2, -3]]), np.array([[0, 1, 2, 0, -30], [0, 0, 0, 0, 0]])


def test_what_one_step_for_all_channels_errs_more_than_one_for_each():
    expected = pytest.approx(30 / ((1 + 4 + 4 + 4 + 900) / 5) ** 0.5)
    assert shape_of([FIRST, SECOND]).channel_spread == expected
    assert shape_of([FIRST.T[None], np.repeat(SECOND.T[None], 2, 0)[:, :, :1]], axis=1).channel_spread == expected


def test_channels_count_as_much_as_they_are_used():
    """Nothing reads the largest channel; the first is read by nine tenths of all squared weights, the second by one."""
    uses = np.array([0.9, 0.1, 0, 0, 0])
    assert shape_of([FIRST, SECOND], uses=uses).channel_spread == pytest.approx(30 / (0.9 + 0.4) ** 0.5)
    assert shape_of([FIRST, SECOND], uses=np.zeros(5)).channel_spread is None
    of_a_group = shape_of([FIRST, SECOND], uses=np.ones(2))
    assert of_a_group.channel_spread == shape_of([FIRST, SECOND]).channel_spread


def test_uses_of_channels():
    """Per input channel, of a depthwise layer with a multiplier of 2, a transposed convolution and a matrix."""
    assert uses_of_channels(OP_TYPES["MatMul"], np.float32([[1, 2], [0, 3]])).tolist() == [5, 9]
    depthwise = np.float32([1, 2, 3, 4]).reshape(1, 1, 2, 2)
    assert uses_of_channels(OP_TYPES["DepthwiseConv2dNative"], depthwise).tolist() == [5, 25]
    transposed = np.float32([[1, 2, 3], [4, 5, 6]]).reshape(1, 1, 2, 3)  # to 2 channels, of 3
    assert uses_of_channels(OP_TYPES["Conv2DBackpropInput"], transposed).tolist() == [17, 29, 45]
    assert uses_of_channels(OP_TYPES["AvgPool"], None) is None


@pytest.mark.parametrize("values", [[np.zeros((2, 5))], [np.ones(5)], [np.ones((2, 5)), np.ones((2, 6))]])
def test_no_spread_of_zeros_of_one_axis_or_of_lengths_that_vary(values):
    assert shape_of(values).channel_spread is None


def test_a_large_tensor_is_sampled():
    values = np.tile(np.array([1.0, 1, 1, 1, 9]), (1 << 18, 1))
    assert shape_of([values]).channel_spread == pytest.approx(9 / ((4 + 81) / 5) ** 0.5)
