"""Which record is at fault, and what to do about it."""

import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from amct_tensorflow.data.features import Feature
from amct_tensorflow.errors import DatasetError, first_line

RECORD_FRAME = 16  # bytes of a TFRecord beside its data: length and two checksums


def find_fault(files: Sequence[str], features: Sequence[Feature]) -> DatasetError:
    """Reads record by record to find the fault that a batch failed on.

    Args:
        files: paths of TFRecord files.
        features: what each record must have.

    Returns:
        The error to raise; it names the file and the record.
    """
    for file in files:
        index, position = 0, 0
        try:
            for record in tf.data.TFRecordDataset(os.fsencode(file)).as_numpy_iterator():
                if fault := fault_of(record, features):
                    return DatasetError(f"{file}, record {index}: {fault}. Mend the record, or leave it out.")
                index += 1
                position += RECORD_FRAME + len(record)
            is_damaged = position != Path(file).stat().st_size
        except tf.errors.DataLossError:
            is_damaged = True
        except tf.errors.OpError as error:
            return DatasetError(f"{file}, record {index}: it cannot be read ({first_line(error)}).")
        if is_damaged:
            what = "the file is truncated or corrupt here" if index else "this is no TFRecord file, or a damaged one"
            return DatasetError(f"{file}, record {index}: {what}. Replace it, or leave it out with --keyword.")
    return DatasetError("The dataset could not be read to its end; did it change meanwhile? Start again.")


def fault_of(record: bytes, features: Sequence[Feature]) -> str | None:
    """Says what is wrong with a record, if anything."""
    try:
        example = tf.train.Example.FromString(record)
    except DecodeError:
        return "this is no tf.train.Example"
    return next(filter(None, (each.fault(example) for each in features)), None)
