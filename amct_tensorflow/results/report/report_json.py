"""Reads and writes report.json; every value that is read is checked."""

from pathlib import Path

import msgspec

from amct_tensorflow.errors import ContentError, ReportError, ReportNotFoundError
from amct_tensorflow.io.contents import decode, version_of
from amct_tensorflow.results.report.document import VERSION, Report

REPORT_NUMBERS = "report.json"


def dump_report(report: Report) -> str:
    """Returns a report as JSON; equal reports give equal text."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"


def read_report(path: Path) -> Report:
    """Reads a report.

    Args:
        path: the file, its folder, or the page or the model beside it.

    Raises:
        ReportNotFoundError: there is none.
        ReportError: it is damaged, or was written by another version.
    """
    file = find_report(path)
    try:
        data = file.read_bytes()
        version = version_of(data)
        if version != VERSION:
            raise ReportError(
                f"{file} has version {version!r} of the format, and this is a reader of version {VERSION}. Use the "
                "amct_tensorflow that wrote it."
            )
        return decode(data, Report)
    except (OSError, ContentError) as error:
        raise ReportError(f"{file} cannot be read ({str(error)[:200]}). Run the quantization again.") from error


def find_report(path: Path) -> Path:
    """Returns the report.json that a path stands for.

    Raises:
        ReportNotFoundError: there is none.
    """
    folder = path if path.is_dir() else path.parent
    file = path if path.name.endswith(REPORT_NUMBERS) and path.is_file() else folder / REPORT_NUMBERS
    if not path.exists():
        raise ReportNotFoundError(f"{path} does not exist. Give the folder with the report of a run, or a file in it.")
    if not file.is_file():
        raise ReportNotFoundError(
            f"There is no {REPORT_NUMBERS} in {folder}. Give the folder of the results of a run of accuracy-based "
            "calibration, or a file in it."
        )
    return file
