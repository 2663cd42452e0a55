"""Making the report of an earlier run again, from its numbers, with whatever was exported since."""

from dataclasses import replace
from pathlib import Path

from amct_tensorflow.report.exports import read_exports
from amct_tensorflow.report.page import render_report
from amct_tensorflow.report.report_json import dump_report, find_report, read_report
from amct_tensorflow.results.report_names import REPORT_PAGE
from amct_tensorflow.storage.locks import exclusive
from amct_tensorflow.storage.publishing import publish


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
