"""The package's own logger: console and ``./amct_log/amct_tensorflow.log``.

Lines read ``<asctime> - <LEVEL> - [AMCT]:[<module>]: <text>`` (spec section 5.1). Nothing is written, and no folder is
made, before the first message, so that importing the package leaves no trace. The log file is that of the directory in
which the first message came, or the latest run began. No other logger is ever touched.
"""

import fcntl
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from amct_tensorflow.errors import ArgumentTypeError, ArgumentValueError

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
    _LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:  # at run time these are generic from Python 3.11 on only
    _StreamHandler = logging.StreamHandler
    _LoggerAdapter = logging.LoggerAdapter

LOG_DIR = Path("amct_log")
LOG_FILE = LOG_DIR / "amct_tensorflow.log"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _StderrHandler(_StreamHandler):
    """Writes to whatever ``sys.stderr`` is now, so that a redirected stream is honoured."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Leaves out what is meant for the log file only."""
        return bool(getattr(record, "amct_console", True) and super().filter(record))

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """The base class assigns a stream once; the current one is used instead."""


class _LogFileHandler(logging.FileHandler):
    """Opens the log file (mode 640, folder 750) when the first message arrives, replacing that of an earlier run.

    The file is locked as long as the process lives: another one logs to the console only.
    """

    def __init__(self) -> None:
        # The path is made absolute here, but the program may go to another directory before it logs anything.
        super().__init__(os.devnull, mode="a", encoding="utf-8", delay=True)
        self._refused = False
        self._opening: list[logging.LogRecord] = []

    def begin_with(self, record: logging.LogRecord) -> None:
        """Writes a message at the beginning of this file and of those to come; none is begun for it."""
        self._opening.append(record)
        if self.stream is not None:
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        if record.levelno >= self.level:
            self.handle(record)

    def follow(self) -> None:
        """Leaves the log file if the current directory has another one, which the next message opens."""
        self.acquire()
        try:
            if self.stream is not None and not self._is_here():
                self.stream.close()
                self.stream = None
            self._refused = self._refused and self._is_here()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        if self.begin():
            super().emit(record)

    def begin(self) -> bool:
        """Opens the file if it is not open; returns whether it can be written to."""
        self.acquire()
        try:
            if self.stream is None and not self._refused:
                self.baseFilename = os.path.abspath(LOG_FILE)  # noqa: PTH100
                Path(self.baseFilename).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                self.stream = self._open_locked()
                for record in self._opening:
                    self._write(record)
        except BlockingIOError:
            self._refused = True
            log_for("log").warning("No log file: another run is writing to %s.", self.baseFilename)
        except OSError as error:
            self._refused = True
            log_for("log").warning("No log file: %s cannot be written (%s).", self.baseFilename, error.strerror)
        finally:
            self.release()
        return not self._refused

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of the base class
        """Gives up the file if a message cannot be written, as on a full disk; the run goes on."""
        self._refused = True
        log_for("log").warning("The log file %s ends here; it cannot be written any more.", self.baseFilename)

    def _is_here(self) -> bool:
        """Tells whether the log file is that of the current directory, and was not removed."""
        try:
            is_removed = self.stream is not None and not LOG_FILE.exists()
            return self.baseFilename == os.path.abspath(LOG_FILE) and not is_removed  # noqa: PTH100
        except OSError:  # there is no current directory any more, and so no other log file
            return True

    def _open_locked(self) -> TextIOWrapper:
        stream = self._open()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise
        except OSError:  # some network file systems cannot lock
            pass
        stream.truncate(0)
        Path(self.baseFilename).chmod(0o640)
        return stream


# What moves the cursor, colours, hides or reorders text: C0 and C1 controls, line separators, bidirectional overrides.
# And what cannot be written as UTF-8: surrogates, which stand for the bytes of names that are no text.
_UNPRINTABLE = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *range(32),
        *range(127, 160),
        *range(0x200E, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),
    )
}


def printable(text: str) -> str:
    """Returns text as one line without control characters, which names in a stranger's file may hold."""
    return text.translate(_UNPRINTABLE)


class _Formatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s - %(levelname)s - [AMCT]:[%(amct_module)s]: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is that of the base class
        """Formats a record whose message is one printable line."""
        record.message = printable(record.message)
        return super().formatMessage(record)


class ModuleLogger(_LoggerAdapter):
    """The package logger under a module's name, with the method names that clients of the original use."""

    def push_debug_message(self, message: str, module_name: str = "AMCT") -> None:
        """Logs at level debug."""
        log_for(module_name).debug("%s", message)

    def push_info_message(self, message: str, module_name: str = "AMCT") -> None:
        """Logs at level info."""
        log_for(module_name).info("%s", message)

    def push_warning_message(self, message: str, module_name: str = "AMCT") -> None:
        """Logs at level warning."""
        log_for(module_name).warning("%s", message)

    def push_error_message(self, message: str, module_name: str = "AMCT") -> None:
        """Logs at level error."""
        log_for(module_name).error("%s", message)


def make_record(level: int, module: str, text: str) -> logging.LogRecord:
    """Returns a log record for one of these handlers."""
    record = logging.LogRecord("amct_tensorflow", level, "", 0, text, None, None)
    record.amct_module = module
    return record


def format_line(level: int, module: str, text: str) -> str:
    """Returns a message as it stands in the log."""
    return _Formatter().format(make_record(level, module, text))


_CONSOLE, LOG_FILE_HANDLER = _StderrHandler(), _LogFileHandler()


def _make_logger() -> logging.Logger:
    logger = logging.getLogger("amct_tensorflow")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in (_CONSOLE, LOG_FILE_HANDLER):
        handler.setLevel(logging.INFO)
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
    return logger


_LOGGER = _make_logger()


def log_for(module: str = "AMCT", *, console: bool = True) -> ModuleLogger:
    """Returns the package logger; ``module`` is the name in the second pair of brackets.

    Args:
        module: where the messages come from.
        console: False for what is of use in the log file only.
    """
    return ModuleLogger(_LOGGER, {"amct_module": module, "amct_console": console})


def begin_log_with(module: str, text: str) -> None:
    """Says something at the beginning of the log file, whenever that is begun, and not on the console."""
    LOG_FILE_HANDLER.begin_with(make_record(logging.INFO, module, text))


def redirect_log(receive: Callable[[int, str, str, bool], None]) -> None:
    """From now on, passes every message to a function; a worker so sends them to the process that logs.

    Args:
        receive: takes the level, the module, the text, and whether it is meant for the console, too.
    """
    for handler in list(_LOGGER.handlers):
        _LOGGER.removeHandler(handler)
    _LOGGER.addHandler(_Redirection(receive))


class _Redirection(logging.Handler):
    def __init__(self, receive: Callable[[int, str, str, bool], None]) -> None:
        super().__init__()
        self._receive = receive

    def emit(self, record: logging.LogRecord) -> None:
        module, console = getattr(record, "amct_module", "AMCT"), getattr(record, "amct_console", True)
        self._receive(record.levelno, module, record.getMessage(), console)


def free_log() -> None:
    """Lets other threads log again if an interruption (Ctrl-C) has left a lock with this one.

    Until 3.13, Python's handlers may be interrupted between taking their lock and seeing to it that it is released.
    """
    for handler in _LOGGER.handlers:
        with suppress(RuntimeError):  # of a lock that this thread does not hold
            while handler.lock is not None:  # as that of a handler that does nothing
                handler.release()


def follow_directory() -> None:
    """Logs to the file of the current directory from now on, and overwrites it."""
    LOG_FILE_HANDLER.follow()


def set_logging_level(print_level: str = "info", save_level: str = "info") -> None:
    """Sets how much is logged.

    Args:
        print_level: least level shown on the console: ``debug``, ``info``, ``warning`` or ``error``, in any case.
        save_level: least level written to ``amct_log/amct_tensorflow.log``.

    Raises:
        ArgumentTypeError: a level is not a string.
        ArgumentValueError: a level has another name.
    """
    levels: list[int] = []
    for argument, level in (("print_level", print_level), ("save_level", save_level)):
        if not isinstance(level, str):
            raise ArgumentTypeError(f"set_logging_level: {argument} must be a str, not {type(level).__name__}.")
        if level.lower() not in LEVELS:
            raise ArgumentValueError(f"set_logging_level: {argument} is {level!r}; use one of {', '.join(LEVELS)}.")
        levels.append(LEVELS[level.lower()])
    _CONSOLE.setLevel(levels[0])
    LOG_FILE_HANDLER.setLevel(levels[1])
