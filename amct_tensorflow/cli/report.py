"""``amct_tensorflow report``: makes the report of a run again, or compares two runs."""

import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from amct_tensorflow.cli.options import Command, add_json
from amct_tensorflow.io.run_as_command import show

_EXAMPLES = """
  %(prog)s outputs/accuracy_based_auto_calibration
  %(prog)s results/a results/b --output differences.html
  %(prog)s results/a --tensorboard events/
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "%(prog)s RESULT [OTHER] [options]"
    add = parser.add_argument
    add("result", metavar="RESULT", help="folder of the results of a run, or a file in it; its report is made again, "
        "with what was exported since")  # fmt: skip
    add("other", metavar="OTHER", nargs="?", help="another run, with which it is compared instead")
    add("--output", metavar="FILE", help="write the comparison as a page, too")
    add("--tensorboard", metavar="DIR", help="write the search, and scalars and histograms of the layers, as event "
        "files")  # fmt: skip
    add_json(parser)


def _check(parser: ArgumentParser, arguments: Namespace) -> None:
    if arguments.other is None and (arguments.output or arguments.json):
        parser.error("--output and --json are for two runs; the page and the numbers of one stand in its folder")
    if arguments.other is not None and arguments.tensorboard:
        parser.error("--tensorboard is for one run")


def _run(arguments: Namespace) -> int:
    if arguments.other is not None:
        return _compare(arguments)
    from amct_tensorflow.results.report.report_files import renew

    page = renew(arguments.result)
    if arguments.tensorboard:
        from amct_tensorflow.results.report.report_json import read_report
        from amct_tensorflow.results.report.tensorboard import write_events

        write_events(read_report(page), Path(arguments.tensorboard))
    show(str(page))
    return 0


def _compare(arguments: Namespace) -> int:
    from amct_tensorflow.io.files import write_atomically
    from amct_tensorflow.results.report.differences import dump_differences, find_differences, format_differences
    from amct_tensorflow.results.report.page import render
    from amct_tensorflow.results.report.report_json import read_report

    one, other = (read_report(Path(name)) for name in (arguments.result, arguments.other))
    differences = find_differences(one, other, (arguments.result, arguments.other))
    if arguments.output:
        write_atomically(arguments.output, render("differences.html", differences=differences))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    show(dump_differences(differences) if arguments.json else format_differences(differences, width))
    return 0


REPORT = Command("report", "make the report of a run again, or compare two runs", _add_arguments, _run, _EXAMPLES,
                 _check)  # fmt: skip
