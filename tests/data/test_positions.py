"""A block of records that is read where it lies is that block of the whole, however many files there are."""

import pytest
import tensorflow as tf
from tfrecords import example, level_png, write

from amct_tensorflow.data import DatasetError, Feature, find_files, scan_records
from amct_tensorflow.data.record_files import FILES_IN_TURN

LABEL = Feature("image/class/label", tf.int64, "the class")


def scan(folder, counts, **options):
    """Writes files with so many records each, of many lengths; returns the dataset."""
    label = iter(range(1000))
    for number, count in enumerate(counts):
        records = [example(level_png(0) * (1 + index % 3), next(label)) for index in range(count)]
        write(folder / f"{number:03}.tfrecord", records)
    return scan_records(find_files(folder), [LABEL], **options)


def read(dataset, indices):
    return list(dataset.positions.records(indices, 4).as_numpy_iterator())


@pytest.mark.parametrize(
    "counts",
    [[5], [3, 0, 7, 1], [2] * (FILES_IN_TURN + 3), [1, 9, 4] * 7],
    ids=["one file", "uneven", "more than are read in turn", "some of them long"],
)
def test_blocks(tmp_path, counts):
    dataset = scan(tmp_path, counts)
    whole = list(dataset.records().as_numpy_iterator())
    assert len(whole) == sum(counts)
    for block in (range(len(whole)), range(len(whole) // 3, len(whole) - 1), range(2, 3), range(4, 4)):
        assert read(dataset, block) == whole[block.start : block.stop]
    assert list(map(dataset.positions.record, range(len(whole)))) == whole


def test_only_the_records_to_use_are_known(tmp_path):
    dataset = scan(tmp_path, [4, 4], num_records=3)
    assert len(dataset.positions.file) == dataset.num_records == 3
    assert read(dataset, range(1, 3)) == list(dataset.records().as_numpy_iterator())[1:]


def test_batches_of_a_block(tmp_path):
    dataset = scan(tmp_path, [7, 6])
    load = lambda features: features[LABEL.key]  # noqa: E731
    whole = [labels.tolist() for labels in dataset.batches(load, 4).as_numpy_iterator()]
    assert [labels.tolist() for labels in dataset.batches(load, 4, range(4, 13)).as_numpy_iterator()] == whole[1:]


def test_a_file_that_has_changed_is_noticed(tmp_path):
    dataset = scan(tmp_path, [3, 3])
    write(tmp_path / "000.tfrecord", [example(b"other", 1)])
    with pytest.raises(tf.errors.OpError, match="the file has changed"):
        read(dataset, range(2, 6))
    with pytest.raises(OSError, match="the file has changed"):
        dataset.positions.record(2)
    assert isinstance(dataset.find_undecodable(lambda features: features[LABEL.key], 2), DatasetError)
