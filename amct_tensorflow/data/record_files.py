"""Lists the files of a dataset, and reads their records in an order that only the file names decide."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tensorflow as tf

from amct_tensorflow.errors import DatasetError

# Records are taken from this many files in turn, so that the first ones (those used for calibration) are mixed even if
# each file holds one class. It is no argument, because the order of the records, and so the result, depends on it.
FILES_IN_TURN = 16

_Function = TypeVar("_Function", bound=Callable[..., Any])


def as_it_is(function: _Function) -> _Function:
    """Marks a function of a pipeline without control flow, whose source TensorFlow would else translate, in 0.1 s."""
    marked: _Function = tf.autograph.experimental.do_not_convert(function)
    return marked


def find_files(directory: str | Path, keyword: str = "") -> list[str]:
    """Lists the files of a dataset, sorted by name; hidden files and folders are left out.

    Args:
        directory: where they are.
        keyword: only files whose name contains this.

    Raises:
        DatasetError: the directory does not exist, or holds no such file.
    """
    folder = Path(directory)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"Dataset {directory} {problem}. Give the directory of the data files.")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [str(folder / name) for name in names if keyword in name]
    if not files:
        problem = f"none of its {len(names)} files has {keyword!r} in its name" if names else "it holds no file"
        raise DatasetError(f"Dataset {directory} cannot be used: {problem}. Give the directory of the data files.")
    return files


def read_records(files: Sequence[str], num_parallel_reads: int = 4, with_origin: bool = False) -> tf.data.Dataset:
    """Yields serialized records, always in the same order.

    Args:
        files: paths of TFRecord files.
        num_parallel_reads: number of files that are read at once, at most ``FILES_IN_TURN``.
        with_origin: whether to yield (record, its file, its index in the file) instead.
    """
    # Names need not be text, which TensorFlow would take them for.
    names = [os.fsencode(file) for file in files]

    @as_it_is
    def read_file(file: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(file)
        if not with_origin:
            return records
        return records.enumerate().map(as_it_is(lambda index, record: (record, file, index)))

    return tf.data.Dataset.from_tensor_slices(names).interleave(
        read_file,
        cycle_length=FILES_IN_TURN,
        num_parallel_calls=min(num_parallel_reads, FILES_IN_TURN),
        deterministic=True,
    )
