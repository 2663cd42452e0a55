"""Batches from raw files, which is how the original's scripts and command line read data."""

import re

import numpy as np
import pytest
from amct_tensorflow.common.cmd_line_utils.data_handler import load_data

from amct_tensorflow.data import RAW_TYPES, RawBatches
from amct_tensorflow.errors import ArgumentTypeError, ArgumentValueError, DatasetError, TooFewFilesError


def write(folder, batches):
    """Writes arrays as raw files, whose names sort in their order but were written in another."""
    folder.mkdir()
    for index, batch in reversed(list(enumerate(batches))):
        (folder / f"batch_{index:02}.bin").write_bytes(np.asarray(batch).tobytes())
    return str(folder)


def test_file_i_of_every_folder_is_batch_i(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(3)]
    lengths = [np.array([index, -index], np.int64) for index in range(3)]
    folders = [write(tmp_path / "images", images), write(tmp_path / "lengths", lengths)]
    batches = list(load_data({"x:0": [2, 3, 4], "n:0": [2]}, folders, ["float32", "int64"], 3))
    assert [list(batch) for batch in batches] == [["x:0", "n:0"]] * 3
    for batch, image, length in zip(batches, images, lengths, strict=True):
        np.testing.assert_array_equal(batch["x:0"], image, strict=True)
        np.testing.assert_array_equal(batch["n:0"], length, strict=True)


@pytest.mark.parametrize("dtype", RAW_TYPES)
def test_every_type(tmp_path, dtype):
    values = np.array([[0, 1], [1, 0]], dtype)
    [batch] = load_data({"x": [2, 2]}, [write(tmp_path / "data", [values])], [dtype])
    np.testing.assert_array_equal(batch["x"], values, strict=True)


def test_only_as_many_batches_as_asked_for(tmp_path):
    folder = write(tmp_path / "data", [np.float32([index]) for index in range(4)])
    assert [batch["x"].item() for batch in load_data({"x": (1,)}, [folder], ["float32"], num=2)] == [0, 1]
    assert len(list(load_data({"x": (1,)}, [folder], ["float32"]))) == 4


def test_a_length_that_each_file_tells(tmp_path):
    folder = write(tmp_path / "data", [np.zeros((2, 3), np.int8), np.zeros((5, 3), np.int8)])
    for unknown in (-1, None):
        assert [batch["x"].shape for batch in load_data({"x": [unknown, 3]}, [folder], ["int8"])] == [(2, 3), (5, 3)]


@pytest.mark.parametrize(
    ("shape", "size", "told"),
    [([3], 16, "has 16 bytes; a batch of input 'x', float32 [3], takes 12."),
     ([3], 13, "has 13 bytes; a batch of input 'x', float32 [3], takes 12."),
     ([-1, 3], 16, "has 16 bytes; a batch of input 'x', float32 [-1, 3], takes a multiple of 12.")],
)  # fmt: skip
def test_a_file_of_another_size_is_named(tmp_path, shape, size, told):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "one.bin").write_bytes(bytes(size))
    with pytest.raises(DatasetError, match=re.escape(f"File {folder / 'one.bin'} {told}")):
        list(load_data({"x": shape}, [str(folder)], ["float32"]))


def test_the_originals_errors(tmp_path):
    folder = write(tmp_path / "data", [np.float32([0])])
    with pytest.raises(RuntimeError, match=r"2 batches are asked for, but .* holds 1 files") as raised:
        load_data({"x": [1]}, [folder], ["float32"], 2)
    assert isinstance(raised.value, TooFewFilesError)
    with pytest.raises(TypeError, match="The type of input 'x' is 'complex64'; give one of float16") as raised:
        load_data({"x": [1]}, [folder], ["complex64"], 1)
    assert isinstance(raised.value, ArgumentTypeError)


@pytest.mark.parametrize(
    ("inputs", "num", "error", "told"),
    [({}, 1, ArgumentValueError, "0 inputs, 1 data_paths and 1 data_types"),
     ({"x": [1], "y": [1]}, 1, ArgumentValueError, "2 inputs, 1 data_paths and 1 data_types"),
     ({"x": [-1, -1]}, 1, ArgumentValueError, "The shape [-1, -1] of input 'x'"),
     ({"x": [0]}, 1, ArgumentValueError, "The shape [0] of input 'x'"),
     ({"x": ["1"]}, 1, ArgumentTypeError, "The shape of input 'x' must hold int, not str"),
     ({"x": 1}, 1, ArgumentTypeError, "The shape of input 'x' must be list or tuple, not int"),
     ({"x": [1]}, 0, ArgumentValueError, "The number of batches is 0"),
     ({"x": [1]}, True, ArgumentTypeError, "The number of batches must be int, not bool")],
)  # fmt: skip
def test_wrong_arguments(tmp_path, inputs, num, error, told):
    folder = write(tmp_path / "data", [np.float32([0])])
    with pytest.raises(error, match=re.escape(told)):
        load_data(inputs, [folder], ["float32"], num)


def test_folders_that_do_not_hold_equally_many(tmp_path):
    folders = [write(tmp_path / name, [np.float32([0])] * count) for name, count in (("a", 1), ("b", 2))]
    inputs, types = {"x": [1], "y": [1]}, ["float32"] * 2
    with pytest.raises(DatasetError, match=r"Each file is a batch, but .*a holds 1, .*b holds 2"):
        load_data(inputs, folders, types)
    assert len(RawBatches(inputs, folders, types, 1)) == 1


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_data({"x": [1]}, [str(tmp_path / "none")], ["float32"])
