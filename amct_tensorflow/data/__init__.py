"""TFRecord files of any schema: which there are, whether their records are sound, and reading them in a fixed order."""

from amct_tensorflow.data.faults import find_fault
from amct_tensorflow.data.features import Feature, parse_records
from amct_tensorflow.data.files import FILES_IN_TURN, find_files, read_records
from amct_tensorflow.data.scanned_records import ScannedRecords, scan_records
from amct_tensorflow.errors import DatasetError

__all__ = [
    "FILES_IN_TURN",
    "DatasetError",
    "Feature",
    "ScannedRecords",
    "find_fault",
    "find_files",
    "parse_records",
    "read_records",
    "scan_records",
]
