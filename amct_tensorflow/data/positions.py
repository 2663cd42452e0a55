"""Where each record of a dataset lies, so that a block of them is read without what lies before it."""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from amct_tensorflow.data.faults import RECORD_FRAME

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
        """Yields the serialized records of a block, whose checksums were checked when the positions were found out.

        Args:
            indices: which ones.
            num_parallel_reads: how many are read at a time.
        """
        names = [os.fsencode(file) for file in self.files]

        def read(file: np.ndarray, offset: np.ndarray, length: np.ndarray) -> bytes:
            return _read(names[file], int(offset), int(length))

        def record(file: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
            value = tf.numpy_function(read, (file, offset, length), tf.string)
            value.set_shape([])
            return value

        block = slice(indices.start, indices.stop)
        positions = tf.data.Dataset.from_tensor_slices((self.file[block], self.offset[block], self.length[block]))
        return positions.map(record, num_parallel_calls=num_parallel_reads, deterministic=True)


class RecordWalk:
    """Finds out where records lie, by passing each file's from its beginning.

    Attributes:
        ends: where the last record that was passed ends, in bytes, by file.
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
        """Returns where the records that were passed lie, in that order."""
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
