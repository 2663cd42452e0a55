"""Keeps what other libraries say in Python off the console while they work for us."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

from amct_tensorflow.log import log_for

# Their loggers write to the stderr of the moment when they were made.
_LOGGERS = ("absl", "tensorflow")


@contextmanager
def chatter_to_log_file(module: str) -> Iterator[None]:
    """Sends what is printed, warned of, or logged by TensorFlow and Keras to the log file until the block ends.

    Messages of our own, too, are kept off the console meanwhile.

    Args:
        module: the name under which it is logged.
    """
    said = StringIO()

    def divert(record: logging.LogRecord) -> bool:
        said.write(f"{record.getMessage()}\n")
        return False

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(divert)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(divert)
        for line in filter(str.strip, said.getvalue().splitlines()):
            log_for(module, console=False).info("%s", line)
