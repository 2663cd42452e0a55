"""Ctrl-C and SIGTERM as exceptions that are not lost.

Python ignores an exception that a destructor raises, and TensorFlow has destructors that take a while. A signal that
arrives there would be forgotten, and the run would go on for hours; here it waits until the destructor is done.
"""

import signal
from collections.abc import Iterator
from types import FrameType

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
