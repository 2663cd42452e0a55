"""A subcommand of the package's command line."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: how it is called.
        summary: what it does, in one line.
        add_arguments: adds its arguments to its parser.
        run: does the work; returns an exit code. What it needs of TensorFlow it imports itself, so that others, wrong
            arguments, and help need not wait for it.
    """

    name: str
    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
