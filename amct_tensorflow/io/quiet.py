"""Sends the output of TensorFlow's C++ code and of other libraries to the log file.

TensorFlow writes to file descriptor 2 from the moment it is imported. This module replaces the descriptor by a file in
memory, copies its lines to the log file, and leaves Python's own ``sys.stderr`` on the console. A second process
watches this one: if it ends without a message, as when TensorFlow aborts it, the watcher shows the last lines.
"""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO, TextIOWrapper
from pathlib import Path

from amct_tensorflow.log import LOG_FILE_HANDLER, format_line, log_for, make_record

# Their loggers write to the stderr of the moment when they were made.
_LOGGERS = ("absl", "tensorflow")


@contextmanager
def output_to_log_file(module: str) -> Iterator[None]:
    """Inside the block, sends prints, warnings and log messages of TensorFlow and Keras to the log file.

    The package's own messages go to the log file alone, too.

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


_STDERR = 2
_MODULE = "tensorflow"
_MOST_LINES_SHOWN = 50
_SIGNALS_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DIED = "The process was killed, or failed inside TensorFlow. The last messages of TensorFlow's own code:"


def quiet_tensorflow() -> None:
    """Sends what C++ code and child processes write to stderr to the log file, until the process ends.

    To be called once, by a program and not by a library, before TensorFlow is imported. A log file is not begun for
    this alone. Nothing is done if there is no stderr, or the system refuses what it takes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow reads it while it is imported
    if sys.stderr is None:  # closed, and so the descriptor may have become that of any file
        return
    try:
        _Capture().begin()
    except OSError:
        log_for(_MODULE).debug("What TensorFlow says stays on stderr.")


class _Capture:
    """The file in memory, how much of it is in the log, and the process that watches over this one."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._forwarding = False
        self._logged = 0  # bytes
        self._told = b""

    def begin(self) -> None:
        """Starts to capture.

        Raises:
            OSError: there is no stderr, or the system grants no file, pipe or process.
        """
        console = os.dup(_STDERR)
        self._file = os.memfd_create("stderr")
        read_end, self._news = os.pipe()
        # Blocked signals stay so in the watcher: they are for this process.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_TO_END)
        self._watcher = os.fork()
        if self._watcher == 0:
            _watch(read_end, self._file, console)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(read_end)
        os.register_at_fork(after_in_child=self._leave)
        sys.stderr.flush()
        os.dup2(self._file, _STDERR)
        if isinstance(sys.stderr, TextIOWrapper) and sys.stderr is sys.__stderr__:  # else it is no business of ours
            sys.stderr = sys.__stderr__ = _like(sys.stderr, console)  # type: ignore[misc]
        LOG_FILE_HANDLER.addFilter(self._forward_before)
        atexit.register(self._end)

    def _forward_before(self, _record: logging.LogRecord) -> bool:
        """Logs the captured lines that precede a message of the package."""
        self._forward()
        return True

    def _forward(self) -> None:
        with self._lock:
            if self._forwarding or os.getpid() != self._process:
                return
            self._forwarding = True
            try:
                if LOG_FILE_HANDLER.begin():
                    self._log_news()
            finally:
                self._forwarding = False

    def _log_news(self) -> None:
        data = _read(self._file, self._logged)
        for line in _lines(data):
            log_for(_MODULE, console=False).info("%s", line)
        self._logged += len(data)
        state = f"{self._logged} ".encode() + os.fsencode(LOG_FILE_HANDLER.baseFilename)
        if state != self._told:
            self._tell(state)
            self._told = state

    def _tell(self, news: bytes) -> None:
        """Tells the watcher."""
        with suppress(OSError):  # somebody has ended it
            os.write(self._news, news + b"\0")

    def _end(self) -> None:
        """Logs the rest; the watcher has nothing to tell."""
        if os.getpid() != self._process:
            return
        if LOG_FILE_HANDLER.stream is not None:
            self._forward()
        self._tell(b"")
        os.close(self._news)
        with suppress(ChildProcessError):  # somebody else has waited for it
            os.waitpid(self._watcher, 0)

    def _leave(self) -> None:
        """Detaches a forked copy of the process from the watcher."""
        os.close(self._news)
        LOG_FILE_HANDLER.removeFilter(self._forward_before)


def _like(stream: TextIOWrapper, descriptor: int) -> TextIOWrapper:
    """Returns a stream on another descriptor that behaves as this one."""
    return open(descriptor, "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False)


def _read(file: int, start: int) -> bytes:
    return os.pread(file, max(0, os.fstat(file).st_size - start), start)


def _lines(data: bytes) -> list[str]:
    return [line for line in data.decode(errors="backslashreplace").splitlines() if line.strip()]


def _watch(news: int, file: int, console: int) -> None:
    """Waits for the other process to end, and shows the lines that it did not log if it ended without a message."""
    try:
        os.setsid()  # so that a terminal that is closed does not end it
        _close_all_but(news, file, console)
        last = b"0 "
        received = b""
        while part := os.read(news, 2**16):
            received += part
            *complete, received = received.split(b"\0")
            last = complete[-1] if complete else last
        if last:
            logged, _, log_file = last.partition(b" ")
            _show(_lines(_read(file, int(logged))), console, log_file)
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    """Closes all other descriptors, so that no pipe stays open because of this process."""
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):  # noqa: PTH208 - no path, and no module to import
        if number not in kept:
            with suppress(OSError):  # the folder itself
                os.close(number)


def _show(lines: list[str], console: int, log_file: bytes) -> None:
    """Writes lines to the console and to the log file, which is begun if it is not known."""
    if not lines:
        return
    lines = [_DIED, *lines]
    sys.stderr = os.fdopen(console, "w", encoding="utf-8", errors="backslashreplace")
    if log_file:
        with Path(os.fsdecode(log_file)).open("a", encoding="utf-8") as log:
            log.writelines(f"{format_line(logging.ERROR, _MODULE, line)}\n" for line in lines)
    else:
        for line in lines:
            LOG_FILE_HANDLER.handle(make_record(logging.ERROR, _MODULE, line))
    for line in [lines[0], *lines[1:][-_MOST_LINES_SHOWN:]]:
        print(format_line(logging.ERROR, _MODULE, line), file=sys.stderr, flush=True)
