"""Datasets of TFRecord files: their order, and what is said about those that cannot be used."""

import functools
import operator
import os
import struct
from pathlib import Path

import pytest
import tensorflow as tf
from tfrecords import assert_names, example, level_png, write, write_labels

from amct_tensorflow.data import DatasetError, Feature, find_fault, find_files, parse_records, scan_records
from amct_tensorflow.errors import AmctError
from amct_tensorflow.log import printable

IMAGE, LABEL = "image/encoded", "image/class/label"
FEATURES = (
    Feature(IMAGE, tf.string, "the bytes of one image"),
    Feature(LABEL, tf.int64, "one integer, at least 0", minimum=0),
)


def scan(folder, *arguments, keyword=""):
    return scan_records(find_files(str(folder), keyword), FEATURES, *arguments)


def labels_of(dataset, batch_size=4):
    return [labels.numpy().tolist() for labels in dataset.batches(lambda features: features[LABEL], batch_size)]


# ---------------------------------------------------------------------------------------------------- Records


def test_every_image_once_and_a_partial_last_batch(tmp_path):
    write_labels(tmp_path, a=range(1, 6), b=range(6, 8), c=[], d=range(8, 19))
    dataset = scan(tmp_path)
    assert dict(dataset.counts) == {
        str(tmp_path / name): count for name, count in zip("abcd", (5, 2, 0, 11), strict=False)
    }
    assert (dataset.num_records, dataset.largest[LABEL]) == (18, 18)
    batches = labels_of(dataset, 4)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2]
    assert sorted(functools.reduce(operator.iadd, batches, [])) == list(range(1, 19))


def test_order_follows_the_sorted_names_and_not_the_number_of_readers(tmp_path):
    lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]  # more files than are read in turn
    for number, length in enumerate(lengths):
        write_labels(tmp_path, **{f"part-{number:02}": [100 * number + index for index in range(length)]})
    orders = [functools.reduce(operator.iadd, labels_of(scan(tmp_path, None, readers)), []) for readers in (1, 2, 4, 7)]
    assert all(order == orders[0] for order in orders[1:])
    assert len(set(orders[0])) == sum(lengths)
    assert orders[0][:16] == [100 * number for number in range(16)]
    for number, length in enumerate(lengths):
        assert [label % 100 for label in orders[0] if label // 100 == number] == list(range(length))


@pytest.mark.parametrize("num_images", [1, 4, 7, 10, 99])
def test_num_images_takes_the_first(tmp_path, num_images):
    write_labels(tmp_path, a=range(4), b=range(4, 10))
    everything = functools.reduce(operator.iadd, labels_of(scan(tmp_path)), [])
    dataset = scan(tmp_path, num_images)
    assert dataset.num_records == min(num_images, 10)
    assert functools.reduce(operator.iadd, labels_of(dataset), []) == everything[:num_images]
    assert dataset.largest[LABEL] == max(everything[:num_images])


def test_keyword_chooses_files(tmp_path):
    write_labels(tmp_path, **{"validation-0": [1], "validation-1": [2], "train-0": [3]})
    (tmp_path / ".hidden-validation").write_bytes(b"not a record")
    (tmp_path / "validation-folder").mkdir()
    assert [Path(file).name for file in find_files(str(tmp_path), "validation")] == [
        "validation-0",
        "validation-1",
    ]
    assert sorted(functools.reduce(operator.iadd, labels_of(scan(tmp_path, keyword="validation")), [])) == [1, 2]


# ------------------------------------------------------------------------------------------------ Bad datasets


@pytest.fixture
def good(tmp_path):
    """A sound file, before and after the bad one in the order of names."""
    for name in ("a-good", "z-good"):
        write_labels(tmp_path, **{name: range(3)})
    return level_png(0)


IMAGE_IN_WRONG_TYPE = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
LABEL_IN_WRONG_TYPE = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))
TWO_LABELS = tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 2]))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda image: b"\xff\xd8 no example at all \x00\x01", "no tf.train.Example"),
        (lambda image: b"", "image/encoded"),
        (lambda image: example(None, 1), "image/encoded"),
        (lambda image: example(b"", 1), "image/encoded"),
        (lambda image: example(None, 1, **{"image/encoded": IMAGE_IN_WRONG_TYPE}), "image/encoded"),
        (lambda image: example(image, None), "image/class/label"),
        (lambda image: example(image, -5), "image/class/label (one integer, at least 0) is -5"),
        (lambda image: example(image, None, **{"image/class/label": LABEL_IN_WRONG_TYPE}), "image/class/label"),
        (lambda image: example(image, None, **{"image/class/label": TWO_LABELS}), "is 1, 2"),
    ],
    ids=["no example", "empty", "no image", "empty image", "image type", "no label", "negative", "label type", "two"],
)
def test_bad_record_is_named(tmp_path, good, make, part):
    bad = write(tmp_path / "bad", [example(good, 1)] * 40 + [make(good)] + [example(good, 1)] * 3)
    with pytest.raises(DatasetError) as error:
        scan(tmp_path)
    assert_names(error, bad, "record 40:", part)


def test_file_that_is_no_tfrecord(tmp_path, good):
    (tmp_path / "labels.txt").write_text("tench\ngoldfish\n" * 20)
    with pytest.raises(DatasetError) as error:
        scan(tmp_path)
    assert_names(error, tmp_path / "labels.txt", "record 0:", "no TFRecord file", "--keyword")
    assert scan(tmp_path, keyword="good").num_records == 6


@pytest.mark.parametrize("kept", [5, 11, 13], ids=["in the length", "in its checksum", "in the data"])
def test_file_truncated_in_its_first_record(tmp_path, good, kept):
    bad = Path(write(tmp_path / "bad", [example(good, 1)]))
    bad.write_bytes(bad.read_bytes()[:kept])
    with pytest.raises(DatasetError) as error:
        scan(tmp_path)
    assert_names(error, bad, "record 0:")


def damaged(path, index, change):
    """Applies ``change`` to the file's bytes, given the offset at which record ``index`` starts."""
    data = bytearray(path.read_bytes())
    offset = 0
    for _ in range(index):
        offset += 16 + struct.unpack_from("<Q", data, offset)[0]
    path.write_bytes(change(data, offset))


def flip(data, offset):
    data[offset + 30] ^= 0xFF
    return data


@pytest.mark.parametrize(
    "change",
    [lambda data, offset: data[: offset + 40], lambda data, offset: data[: offset + 6], flip],
    ids=["cut in the data", "cut in the length", "flipped byte"],
)
def test_damaged_record_is_named(tmp_path, good, change):
    bad = Path(write(tmp_path / "bad", [example(good, 1)] * 9))
    damaged(bad, 6, change)
    with pytest.raises(DatasetError) as error:
        scan(tmp_path)
    assert_names(error, bad, "record 6:", "truncated or corrupt")


def test_fault_after_the_images_to_use_does_not_matter(tmp_path):
    image = level_png(0)
    write(tmp_path / "file", [example(image, 1)] * 3 + [b"no example \xff"])
    assert scan(tmp_path, 3).num_records == 3
    with pytest.raises(DatasetError):
        scan(tmp_path, 4)


def test_missing_directory_and_file_as_directory(tmp_path):
    with pytest.raises(DatasetError) as error:
        find_files(str(tmp_path / "nowhere"))
    assert_names(error, tmp_path / "nowhere", "does not exist")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError) as error:
        find_files(str(tmp_path / "file"))
    assert_names(error, tmp_path / "file", "is a file")


def test_no_matching_file(tmp_path):
    with pytest.raises(DatasetError) as error:
        find_files(str(tmp_path))
    assert_names(error, tmp_path, "no file")
    write_labels(tmp_path, train=[1])
    with pytest.raises(DatasetError) as error:
        find_files(str(tmp_path), "validation")
    assert_names(error, tmp_path, "'validation'")


def test_no_records_at_all(tmp_path):
    write_labels(tmp_path, a=[], b=[])
    with pytest.raises(DatasetError) as error:
        scan(tmp_path)
    assert_names(error, tmp_path, "no records")


def test_dataset_error_is_a_value_error():
    assert issubclass(DatasetError, ValueError) and issubclass(DatasetError, AmctError)


def test_more_readers_than_files_are_read_in_turn(tmp_path):
    for number in range(20):
        write_labels(tmp_path, **{f"part-{number:02}": [number]})
    orders = [labels_of(scan(tmp_path, None, readers)) for readers in (16, 17, 2**31 - 1)]
    assert orders[0] == orders[1] == orders[2]


def test_files_whose_names_are_no_text(tmp_path):
    """They are read, and named in messages and in the log."""
    write_labels(tmp_path, a=[1])
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    (tmp_path / "a").rename(odd)
    assert labels_of(scan(tmp_path)) == [[1]]
    odd.write_bytes(b"no records")
    with pytest.raises(DatasetError, match="record 0") as error:
        scan(tmp_path)
    assert printable(str(error.value)).encode()


# ----------------------------------------------------------------------------------------------- Other schemas


def integers(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


BOXES = (
    Feature("picture", tf.string, "a JPEG"),
    Feature("size", tf.int64, "height and width", size=2, minimum=1),
    Feature("boxes", tf.float32, "coordinates from 0", size=None, minimum=0),
)


def boxes(size=(8, 9), coordinates=(0.0, 0.5, 1.0, 1.0), picture=b"JPEG"):
    picture = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))
    return example(picture=picture, size=integers(*size), boxes=floats(*coordinates))


def test_another_schema_is_checked_and_parsed(tmp_path):
    """Several values, any number of them, floats, and no label."""
    write(tmp_path / "a", [boxes(), boxes(size=(2, 70), coordinates=())])
    dataset = scan_records(find_files(tmp_path), BOXES)
    assert dataset.num_records == 2 and dataset.largest == {"size": 70, "boxes": 1.0}
    parsed = [parse_records(record, BOXES) for record in dataset.records()]
    assert [each["size"].numpy().tolist() for each in parsed] == [[8, 9], [2, 70]]
    assert [each["boxes"].numpy().tolist() for each in parsed] == [[0.0, 0.5, 1.0, 1.0], []]
    (sizes,) = dataset.batches(lambda features: features["size"], 2)
    assert sizes.shape == (2, 2)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (boxes(size=(8,)), "size (height and width) is 8."),
        (boxes(size=(8, 0)), "size (height and width) is 8, 0."),
        (boxes(size=()), "size (height and width) is missing."),
        (boxes(coordinates=(0.25, -1.0)), "boxes (coordinates from 0) is 0.25, -1.0."),
        (boxes(picture=b""), "picture (a JPEG) is missing."),
    ],
    ids=["one size", "a size of 0", "no sizes", "a coordinate below 0", "no picture"],
)
def test_a_record_of_another_schema_at_fault_is_named(tmp_path, record, fault):
    bad = write(tmp_path / "a", [boxes(), boxes(), record])
    with pytest.raises(DatasetError) as error:
        scan_records([bad], BOXES)
    assert_names(error, f"{bad}, record 2: {fault}")
    assert str(find_fault([bad], BOXES)) == str(error.value)


def test_a_load_that_refuses_a_record(tmp_path):
    bad = write(tmp_path / "a", [boxes(picture=level_png(1)), boxes(picture=b"cut")])
    dataset = scan_records([bad], BOXES)
    error = dataset.find_undecodable(lambda features: tf.io.decode_png(features["picture"]))
    assert f"{bad}, record 1: the image cannot be decoded" in str(error)
    assert "did it change" in str(dataset.find_undecodable(lambda features: features["size"]))
