"""Runs the work of a command: signals become exceptions, errors one line and an exit code.

Python ignores an exception that a destructor raises, and TensorFlow has destructors that take a while. A signal that
arrives there would be forgotten, and the run would go on for hours; here it waits until the destructor is done.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from amct_tensorflow.errors import AmctError, first_line
from amct_tensorflow.log import LOG_FILE, log_for

_RETRY_SECONDS = 0.05


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as by a batch system that takes a machine back."""


class Signals:
    """The signals that ask this process to end.

    Attributes:
        came: the last one; None if there was none.
    """

    def __init__(self) -> None:
        self.came: signal.Signals | None = None

    def raise_from_now_on(self) -> None:
        """Makes Ctrl-C raise KeyboardInterrupt, and SIGTERM Terminated; to be called in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            self.came = signal.Signals(number)
        if any(caller.f_code.co_name == "__del__" for caller in _callers(frame)):
            signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
            return
        raise Terminated if self.came == signal.SIGTERM else KeyboardInterrupt


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def show(text: str) -> None:
    """Prints text; characters that the terminal does not know are escaped.

    A closed pipe, as behind ``head``, is no error.
    """
    try:
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end


FAILED = 1
INTERRUPTED = 130
TERMINATED = 143
_AFTER_SIGNALS = {None: FAILED, signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def run_as_command(work: Callable[[], int], interrupted: str = "Interrupted.") -> int:
    """Runs the work of a command in the main thread; details of errors go to the log file.

    After a signal, an error is shown, but the exit code is that of the signal: libraries turn interrupts into errors.

    Args:
        work: returns the exit code if nothing goes wrong.
        interrupted: what to say when Ctrl-C or SIGTERM ends it.

    Returns:
        What ``work`` returned; 1 after an error, 130 after Ctrl-C, 143 after SIGTERM.
    """
    signals = Signals()
    signals.raise_from_now_on()
    try:
        return work()
    except KeyboardInterrupt as interruption:
        code = TERMINATED if isinstance(interruption, Terminated) else INTERRUPTED
    except (AmctError, OSError) as error:
        if error.__cause__ is not None:
            _keep_details(error)
        log_for().error("%s", " ".join(str(error).split()))
        code = _AFTER_SIGNALS[signals.came]
    except Exception as error:  # TensorFlow raises its own, and some of Python's, for bad inputs
        _keep_details(error)
        log_for().error(
            "The run failed: %s: %s. Check the model, the dataset and the arguments; the details are in %s.",
            type(error).__name__, first_line(error), LOG_FILE,
        )  # fmt: skip
        code = _AFTER_SIGNALS[signals.came]
    if code != FAILED:
        log_for().error("%s", interrupted)
    return code


def _keep_details(error: Exception) -> None:
    """Writes a traceback to the log file, and not to the console."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        log_for("command", console=False).error("%s", line)
