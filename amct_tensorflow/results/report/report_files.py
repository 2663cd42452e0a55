"""Renews the files of a report after exports, without TensorFlow."""

from dataclasses import replace
from pathlib import Path

from amct_tensorflow.errors import ContentError
from amct_tensorflow.io.contents import decode
from amct_tensorflow.io.publishing import exclusive, publish
from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.quantized.model_files import prefix_of
from amct_tensorflow.results.report.document import Export
from amct_tensorflow.results.report.page import REPORT_PAGE, render_report
from amct_tensorflow.results.report.report_json import dump_report, find_report, read_report


def read_exports(folder: Path, model: str) -> tuple[Export, ...]:
    """Reads the files ``PREFIX_export_FORMAT.json`` of a model's prefix, and warns of unreadable ones.

    In those of diverging exports, ``PREFIX`` ends in ``_diverges``.

    Args:
        folder: their folder.
        model: name of the quantized model's file.
    """
    prefix = prefix_of(Path(model)).name
    starts = (f"{prefix}_export_", f"{prefix}_diverges_export_")
    files = sorted(path for path in folder.glob("*_export_*.json") if path.name.startswith(starts))
    found = []
    for file in files:
        try:
            found.append(decode(file.read_bytes(), Export))
        except (OSError, ContentError) as error:
            log_for("report").warning(
                "%s is left out of the report, as it cannot be read (%s). Export again.", file, str(error)[:200]
            )
    return tuple(found)


def renew(result: str | Path) -> Path:
    """Makes a report again; returns its page.

    Args:
        result: the folder of the results, or a file in it.

    Raises:
        ReportNotFoundError: there is no report.
        ReportError: its numbers are damaged.
        OutputError: it cannot be written, or a run is writing to the folder; it is then as it was.
    """
    numbers = find_report(Path(result))
    folder = numbers.parent
    with exclusive([folder]):
        report = read_report(numbers)
        report = replace(report, exports=read_exports(folder, report.model))
        publish(folder, {numbers: dump_report(report), folder / REPORT_PAGE: render_report(report)})
    return folder / REPORT_PAGE
