"""Describes the features of a dataset's records, and finds records that lack one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from amct_tensorflow.errors import DatasetError, first_line

_KINDS = {tf.string: "bytes_list", tf.int64: "int64_list", tf.float32: "float_list"}


@dataclass(frozen=True)
class Feature:
    """A feature that every record must have.

    Attributes:
        key: its name in the ``tf.train.Example``.
        dtype: ``tf.string`` (bytes, which must not be empty), ``tf.int64`` or ``tf.float32``.
        meaning: what messages call it, such as "the bytes of one image".
        size: number of its values; None for any number of them, even none.
        minimum: the smallest value that a number may have; None for any.
    """

    key: str
    dtype: tf.DType
    meaning: str
    size: int | None = 1
    minimum: float | None = None

    @property
    def ragged(self) -> tf.io.RaggedFeature:
        """How to parse it where it may be missing or have the wrong number of values."""
        return tf.io.RaggedFeature(self.dtype)

    @property
    def exact(self) -> tf.io.FixedLenFeature | tf.io.RaggedFeature:
        """How to parse it in a checked record."""
        if self.size is None:
            return self.ragged
        return tf.io.FixedLenFeature([] if self.size == 1 else [self.size], self.dtype)

    def is_sound(self, rows: tf.RaggedTensor) -> tf.Tensor:
        """Tells whether the feature is sound in every row of a batch that was parsed as ``ragged``."""
        sizes_fit = tf.reduce_all(rows.row_lengths() == self.size) if self.size is not None else tf.constant(True)
        return sizes_fit & tf.reduce_all(self._allowed(rows.flat_values))

    def fault(self, example: tf.train.Example) -> str | None:
        """Returns what is wrong with the feature in one record; None if nothing is."""
        feature = example.features.feature
        values = list(getattr(feature[self.key], _KINDS[self.dtype]).value) if self.key in feature else []
        if self.size in (None, len(values)) and all(map(self._is_allowed, values)):
            return None
        # Bytes cannot be shown; and without any there is nothing to show.
        state = "missing" if self.dtype == tf.string or not values else ", ".join(map(str, values))
        return f"{self.key} ({self.meaning}) is {state}"

    def _allowed(self, values: tf.Tensor) -> tf.Tensor:
        if self.dtype == tf.string:
            return tf.strings.length(values) > 0
        return tf.constant(True) if self.minimum is None else values >= tf.cast(self.minimum, self.dtype)

    def _is_allowed(self, value: bytes | float) -> bool:
        if isinstance(value, bytes):
            return bool(value)
        return self.minimum is None or value >= self.minimum


def parse_records(records: tf.Tensor, features: Sequence[Feature]) -> dict[str, tf.Tensor]:
    """Parses a sound record, or a batch of them, into its features by key."""
    parsed: dict[str, tf.Tensor] = tf.io.parse_example(records, {each.key: each.exact for each in features})
    return parsed


RECORD_FRAME = 16  # bytes of a TFRecord beside its data: length and two checksums


def find_fault(files: Sequence[str], features: Sequence[Feature]) -> DatasetError:
    """Reads record by record to find the one that made a batch fail.

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
    """Returns what is wrong with a record; None if nothing is."""
    try:
        example = tf.train.Example.FromString(record)
    except DecodeError:
        return "this is no tf.train.Example"
    return next(filter(None, (each.fault(example) for each in features)), None)
