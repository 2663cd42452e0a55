"""Reads data in a fixed order: TFRecord files of any schema, with checks, and raw files."""

from amct_tensorflow.data.features import Feature, find_fault, parse_records
from amct_tensorflow.data.raw_batches import RAW_TYPES, RawBatches
from amct_tensorflow.data.record_files import FILES_IN_TURN, find_files, read_records
from amct_tensorflow.data.scanned_records import ScannedRecords, scan_records
from amct_tensorflow.errors import DatasetError

__all__ = [
    "FILES_IN_TURN",
    "RAW_TYPES",
    "DatasetError",
    "Feature",
    "RawBatches",
    "ScannedRecords",
    "find_fault",
    "find_files",
    "parse_records",
    "read_records",
    "scan_records",
]
