"""The files of the report of a run that has just ended."""

from pathlib import Path

from amct_tensorflow.log import log_for
from amct_tensorflow.report.collect import FinishedRun, collect_report
from amct_tensorflow.report.page import render_report
from amct_tensorflow.report.report_json import dump_report


def make_report(run: FinishedRun, page: Path, numbers: Path) -> dict[Path, str]:
    """Returns what stands in the files of a run's report.

    Whatever goes wrong here, the quantized model that took hours to find must not be lost: then a warning says so, and
    there is no report.

    Args:
        run: the run.
        page: where the page goes.
        numbers: where its numbers go.
    """
    try:
        report = collect_report(run)
        contents = {page: render_report(report), numbers: dump_report(report)}
    except Exception as error:  # of the libraries that draw and write it, too
        log_for("report").warning(
            "There is no report: %s: %s. All other results are complete.", type(error).__name__, error
        )
        return {}
    log_for("report").info("The report is %s; any browser opens it.", page)
    return contents
