"""A dataset that was scanned, where each of its records lies, and the pipeline that prepares it."""

import os
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from amct_tensorflow.data.features import RECORD_FRAME, Feature, fault_of, find_fault, parse_records
from amct_tensorflow.data.record_files import as_it_is, read_records
from amct_tensorflow.errors import DatasetError, first_line

# A TFRecord begins with the length of its data (uint64) and a checksum of that (uint32).
_HEADER = struct.Struct("<QI")


@dataclass(frozen=True, eq=False, repr=False)
class RecordPositions:
    """Where the records of a dataset lie, in the order in which it yields them.

    Attributes:
        files: paths of the TFRecord files.
        file: index of the file, int32 [records].
        offset: where the record begins in it, in bytes, int64 [records].
        length: of its data, in bytes, int64 [records].
    """

    files: Sequence[str]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray

    def records(self, indices: range, num_parallel_reads: int) -> tf.data.Dataset:
        """Yields the serialized records of a block; scanning has checked their checksums.

        Args:
            indices: which ones.
            num_parallel_reads: how many are read at a time.
        """
        names = self._names

        def read(file: np.ndarray, offset: np.ndarray, length: np.ndarray) -> bytes:
            return _read(names[file], int(offset), int(length))

        def record(file: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
            value = tf.numpy_function(read, (file, offset, length), tf.string)
            value.set_shape([])
            return value

        block = slice(indices.start, indices.stop)
        positions = tf.data.Dataset.from_tensor_slices((self.file[block], self.offset[block], self.length[block]))
        return positions.map(record, num_parallel_calls=num_parallel_reads, deterministic=True)

    def record(self, index: int) -> bytes:
        """Returns a serialized record.

        Raises:
            OSError: its file cannot be read, or has changed.
        """
        return _read(self._names[self.file[index]], int(self.offset[index]), int(self.length[index]))

    @property
    def _names(self) -> list[bytes]:
        return [os.fsencode(file) for file in self.files]


class RecordWalk:
    """Computes the positions of records while each file is read from its beginning.

    Attributes:
        ends: by file, the end of the last record passed, in bytes.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.ends = dict.fromkeys(files, 0)
        self._numbers = {file: number for number, file in enumerate(files)}
        self._found: list[tuple[int, int, int]] = []

    def pass_by(self, file: str, length: int) -> None:
        """Passes the next record of a file, whose data has so many bytes."""
        self._found.append((self._numbers[file], self.ends[file], length))
        self.ends[file] += RECORD_FRAME + length

    def positions(self) -> RecordPositions:
        """Returns the positions of the records passed, in that order."""
        file, offset, length = np.array(self._found, np.int64).reshape(-1, 3).T
        return RecordPositions(tuple(self._numbers), file.astype(np.int32), offset, length)


def _read(file: bytes, offset: int, length: int) -> bytes:
    """Returns the data of a record.

    Raises:
        OSError: the file cannot be read, or has changed.
    """
    with open(file, "rb") as opened:  # noqa: PTH123 - the name need not be text
        opened.seek(offset)
        found = opened.read(_HEADER.size + length)
    if len(found) < _HEADER.size + length or _HEADER.unpack_from(found)[0] != length:
        raise OSError("the file has changed")
    return found[_HEADER.size :]


# Turns the features of a record, by key, into what the model and the metric need.
Load = Callable[[dict[str, tf.Tensor]], Any]

PARALLEL_RECORDS = 2 * (os.cpu_count() or 1)  # prepared at a time; with one per core the cores would have to wait
_SCAN_BATCH_SIZE = 32


@dataclass(frozen=True)
class ScannedRecords:
    """A dataset that was scanned.

    Attributes:
        features: what each of its records has.
        counts: number of records to use, by file.
        largest: the largest value of each feature of numbers, by key.
        num_parallel_reads: number of files that are read at once, at most ``FILES_IN_TURN``.
        positions: where each of the records lies.
    """

    features: Sequence[Feature]
    counts: Mapping[str, int]
    largest: Mapping[str, float]
    num_parallel_reads: int
    positions: RecordPositions

    @property
    def num_records(self) -> int:
        """Number of records to use."""
        return sum(self.counts.values())

    def records(self, with_origin: bool = False) -> tf.data.Dataset:
        """Yields the records to use, as ``read_records`` does."""
        return read_records(list(self.counts), self.num_parallel_reads, with_origin).take(self.num_records)

    def batches(self, load: Load, batch_size: int, indices: range | None = None) -> tf.data.Dataset:
        """Yields batches of the results of ``load``, prepared ahead; the last batch may be smaller.

        Args:
            load: maps the features of a record to what a batch holds.
            batch_size: records per batch.
            indices: which records, a block of them; all, unless it is given.
        """

        @as_it_is
        def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
            return parse_records(record, self.features)

        # TensorFlow's autotuning would take seconds to stop when the session is closed.
        options = tf.data.Options()
        options.autotune.enabled = False
        records = self.records() if indices is None else self.positions.records(indices, self.num_parallel_reads)
        loaded = records.map(
            lambda record: load(parse(record)),
            num_parallel_calls=PARALLEL_RECORDS,
            deterministic=True,
        )
        # TensorFlow makes room for a whole batch, however few records there are.
        num_records = self.num_records if indices is None else len(indices)
        # One batch ahead is enough: more take memory, and save no time.
        return loaded.batch(min(batch_size, num_records)).prefetch(1).with_options(options)

    def find_undecodable(self, load: Load, start: int = 0) -> DatasetError:
        """Looks for the first record, not before number ``start``, that ``load`` refuses.

        Returns:
            The error to raise; it names the file and the record.
        """
        with suppress(tf.errors.OpError):  # an error of the iteration itself is left to find_fault
            for record, file, index in self.records(with_origin=True).skip(start):
                if fault_of(record.numpy(), self.features):  # the files have changed
                    break
                try:
                    load(parse_records(record, self.features))
                except tf.errors.OpError as error:
                    return DatasetError(
                        f"{os.fsdecode(file.numpy())}, record {index}: the image cannot be decoded "
                        f"({first_line(error)}). Replace the image, or leave the record out."
                    )
        return find_fault(list(self.counts), self.features)


def scan_records(
    files: Sequence[str], features: Sequence[Feature], num_records: int | None = None, num_parallel_reads: int = 4
) -> ScannedRecords:
    """Counts and checks the records of every file, without decoding what they hold.

    Args:
        files: paths of TFRecord files.
        features: what each record must have.
        num_records: use only the first so many, in the order of ``read_records``.
        num_parallel_reads: number of files that are read at once, at most ``FILES_IN_TURN``.

    Raises:
        DatasetError: a file is damaged, a record lacks a feature, or there is no record.
    """
    numbers = [each for each in features if each.dtype != tf.string]

    @as_it_is
    def summarize(records: tf.Tensor, file: tf.Tensor, _index: tf.Tensor) -> tuple[Any, ...]:
        parsed = tf.io.parse_example(records, {each.key: each.ragged for each in features})
        sound = tf.reduce_all([each.is_sound(parsed[each.key]) for each in features])
        largest = [tf.reduce_max(parsed[each.key].flat_values) for each in numbers]
        return file, tf.strings.length(records), sound, tuple(largest)

    counts = Counter(dict.fromkeys(files, 0))
    walk = RecordWalk(files)
    most: dict[str, float] = {}
    records = read_records(files, num_parallel_reads, with_origin=True).take(
        num_records or tf.data.INFINITE_CARDINALITY
    )
    try:
        for names, lengths, sound, largest in (
            records.batch(_SCAN_BATCH_SIZE).map(summarize).prefetch(2).as_numpy_iterator()
        ):
            if not sound:
                raise find_fault(files, features)
            decoded = [os.fsdecode(name) for name in names]
            counts.update(decoded)
            for name, length in zip(decoded, lengths, strict=True):
                walk.pass_by(name, int(length))
            for each, value in zip(numbers, largest, strict=True):
                most[each.key] = max(most.get(each.key, value.item()), value.item())
    except (tf.errors.OpError, UnicodeDecodeError) as error:  # TensorFlow's message may quote a record's bytes
        raise find_fault(files, features) from error
    # A file that is cut off within the frame of a record just ends, as far as TensorFlow is concerned.
    if num_records is None and any(Path(file).stat().st_size != walk.ends[file] for file in files):
        raise find_fault(files, features)
    if not any(counts.values()):
        raise DatasetError(f"{files[0]} and the files beside it hold no records. Give TFRecord files with images.")
    return ScannedRecords(tuple(features), counts, most, num_parallel_reads, walk.positions())
