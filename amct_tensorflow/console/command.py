"""Running the work of a command: whatever happens, the user reads one line, and the shell gets an exit code."""

import signal
import traceback
from collections.abc import Callable

from amct_tensorflow.console.signals import Signals, Terminated
from amct_tensorflow.errors import AmctError, first_line
from amct_tensorflow.log import LOG_FILE, log_for

FAILED = 1
INTERRUPTED = 130
TERMINATED = 143
_AFTER_SIGNALS = {None: FAILED, signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def run_as_command(work: Callable[[], int], interrupted: str = "Interrupted.") -> int:
    """Runs the work of a command in the main thread; details of errors go to the log file.

    An error after a signal is told, but the signal counts: libraries make errors of their own of what interrupts them.

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
