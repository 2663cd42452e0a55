# PYTHON_ARGCOMPLETE_OK
"""The command line: ``python -m amct_tensorflow COMMAND ...``, or ``amct_tensorflow COMMAND ...`` where installed.

Exit codes: 0 done; 1 an input cannot be used, or the run failed; 2 wrong arguments; 3 no quantized model meets the
target of ``auto-calibrate`` (the best one is saved), what ``export`` wrote differs by more than it may, or ``check``
found errors; 130 interrupted with Ctrl-C; 143 ended by SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from amct_tensorflow import __version__
from amct_tensorflow.cli import COMMANDS, Command
from amct_tensorflow.console import quiet_tensorflow, run_as_command, use_few_arenas, use_onednn

# The shell sets it when the user presses the tab key.
_COMPLETING = "_ARGCOMPLETE"

_EXIT_CODES = """\
exit codes: 0 done; 1 bad input or failed run; 2 wrong arguments; 3 target (auto-calibrate) or limit (export) missed,
or errors found (check); 130 interrupted with Ctrl-C; 143 ended by SIGTERM"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit code.

    Args:
        argv: its name and arguments; None for those of the process.
    """
    parser = _parser()
    if _COMPLETING in os.environ:
        _complete(parser)
    arguments = parser.parse_args(argv)
    command: Command = arguments.command
    command.check(arguments.parser, arguments)
    quiet_tensorflow()  # before the command imports it
    use_onednn()
    use_few_arenas()
    return run_as_command(lambda: command.do(arguments), command.interrupted)


def _complete(parser: argparse.ArgumentParser) -> None:
    """Completes a command for the shell and ends the process; does nothing if argcomplete is not installed."""
    with suppress(ImportError):
        import argcomplete  # noqa: PLC0415 - it is optional, and only needed when the user presses the tab key

        argcomplete.autocomplete(parser)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="amct_tensorflow", description="Post-training int8 quantization of TensorFlow models."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(
            command.name, help=command.summary, description=f"{command.summary.capitalize()}.",
            epilog=f"examples:{command.examples}\n{_EXIT_CODES}", formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_arguments(added)
        added.set_defaults(command=command, parser=added)
    return parser


if __name__ == "__main__":
    sys.exit(main())
