"""The command line: ``python -m amct_tensorflow COMMAND ...``, or ``amct_tensorflow COMMAND ...`` where installed.

Exit codes: 0 done; 1 an input cannot be used, or the run failed; 2 wrong arguments; 130 interrupted with Ctrl-C; 143
ended by SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence

from amct_tensorflow.commands import COMMANDS
from amct_tensorflow.console import quiet_tensorflow, run_as_command
from amct_tensorflow.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit code.

    Args:
        argv: its name and arguments; None for those of the process.
    """
    arguments = _parser().parse_args(argv)
    quiet_tensorflow()  # before the command imports it
    return run_as_command(lambda: int(arguments.run(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="amct_tensorflow", description="Post-training int8 quantization of TensorFlow models."
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(command.name, help=command.summary, description=f"{command.summary.capitalize()}.")
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
