"""Imports the libraries that exports need, and translates their errors."""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amct_tensorflow.errors import AmctError, ExportError, first_line
from amct_tensorflow.io.quiet import output_to_log_file

_PLACE = re.compile(r"\S*\.py:\d+(:\d+)?: (error: )?")


def library(name: str, extra: str) -> Any:
    """Imports a library.

    Args:
        name: of its module.
        extra: the extra of this package that installs it.

    Raises:
        ExportError: it is not installed, or does not fit what else is.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"This export needs {name.partition('.')[0]}, which cannot be imported ({error}). Install it: "
            f'pip install "amct-tensorflow-open[{extra}]", or in a checkout pip install -e ".[{extra}]".'
        ) from error


@contextmanager
def refusals(tool: str, work: str) -> Iterator[None]:
    """Turns any error of a tool into an ``ExportError``, and sends its output to the log file.

    Args:
        tool: its name, at the beginning of a sentence.
        work: what it cannot do then.

    Raises:
        ExportError: it has raised something.
    """
    with output_to_log_file("export"):
        try:
            yield
        except AmctError:
            raise
        except Exception as error:  # tools raise whatever they come upon
            raise ExportError(
                f"{tool} cannot {work} the model: {_without_places(first_line(error))}. The log file has the details; "
                "another format may know what it does not."
            ) from error


def _without_places(message: str) -> str:
    """Returns a message without the source lines to which a tool traces a node."""
    return _PLACE.sub("", message).rstrip(".")
