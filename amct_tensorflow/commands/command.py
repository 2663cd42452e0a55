"""A subcommand of the package's command line."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


def _accept(parser: ArgumentParser, arguments: Namespace) -> None:
    """Finds nothing wrong."""


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: how it is called.
        summary: what it does, in one line.
        add_arguments: adds its arguments to its parser.
        run: does the work; returns an exit code. What it needs of TensorFlow it imports itself, so that others, wrong
            arguments, and help need not wait for it.
        examples: how it may be called, for its help; ``%(prog)s`` stands for the command.
        check: tells the parser (``error``) what is wrong about the arguments together.
        interrupted: what to say when Ctrl-C or SIGTERM ends it.
    """

    name: str
    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    examples: str
    check: Callable[[ArgumentParser, Namespace], None] = _accept
    interrupted: str = "Interrupted."
