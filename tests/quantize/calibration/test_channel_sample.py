"""A bounded sample of a tensor's channels, the same in any split into batches."""

import numpy as np
import pytest
from graphs import rng
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.quantize.calibration import channel_sample
from amct_tensorflow.quantize.calibration.channel_sample import ChannelSample


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(channel_sample, "_MOST_ROWS", 16)
    monkeypatch.setattr(channel_sample, "_MOST_BLOCKS", 4)


def sample(values, axis=-1):
    """Returns the halves of what is kept of batches."""
    found = ChannelSample(axis, values[0].shape[axis])
    for value in values:
        found.add(value)
    return found.halves()


def test_few_rows_are_all_kept_in_two_halves():
    rows = rng(1).normal(size=(4, 3)).astype(np.float32)
    first, second = sample([rows])
    np.testing.assert_array_equal(first.sample, rows[:2])
    np.testing.assert_array_equal(second.sample, rows[2:])
    np.testing.assert_array_equal(first.highest, np.abs(rows[:2]).max(axis=0))
    np.testing.assert_array_equal(second.highest, np.abs(rows[2:]).max(axis=0))


def test_the_largest_values_are_those_of_all_rows():
    rows = np.zeros((1000, 2), np.float32)
    rows[3, 0], rows[990, 1] = -7, 5
    first, second = sample([rows])
    assert len(first.sample) + len(second.sample) <= 16
    assert first.highest.tolist() == [7, 0] and second.highest.tolist() == [0, 5]


def test_rows_are_spread_over_a_grid():
    """Of 32 x 32 positions rows and columns are kept alike, whatever the powers of two."""
    places = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), axis=-1).astype(np.float32)
    kept = np.concatenate([half.sample for half in sample([places[np.newaxis]])])
    assert 8 <= len(kept) <= 16
    assert all(len(np.unique(kept[:, axis] // 8)) == 4 for axis in (0, 1))


def test_channels_may_stand_in_front():
    value = rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)
    for one, other in zip(sample([value]), sample([np.moveaxis(value, -1, 1)], -3), strict=True):
        np.testing.assert_array_equal(one.sample, other.sample)
        np.testing.assert_array_equal(one.highest, other.highest)


def test_wide_tensors_keep_fewer_rows(monkeypatch):
    monkeypatch.setattr(channel_sample, "_LARGEST_SAMPLE", 64)
    assert sum(len(half.sample) for half in sample([np.ones((99, 8), np.float32)])) <= 8


def test_nothing_was_seen():
    first, second = sample([np.zeros((0, 3), np.float32)])
    assert first.sample.shape == second.sample.shape == (0, 3)
    assert first.highest.tolist() == second.highest.tolist() == [0, 0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_the_split_into_batches_does_not_matter(lengths):
    rows = rng(1).normal(size=(sum(lengths), 2)).astype(np.float32)
    whole, parts = sample([rows]), sample(np.split(rows, np.cumsum(lengths)[:-1]))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.sample, other.sample)
        np.testing.assert_array_equal(one.highest, other.highest)


@pytest.mark.parametrize("channels", [1, 3, 700, 2000])
@pytest.mark.parametrize("rows", [1, 2, 3, 5000])
def test_the_largest_values_of_few_and_of_many_channels(rows, channels):
    values = rng(rows).normal(size=(min(rows, 2_000_000 // channels), channels)).astype(np.float32)
    found = np.maximum(*(half.highest for half in sample([values])))
    np.testing.assert_array_equal(found, np.abs(values).max(axis=0))
