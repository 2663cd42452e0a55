"""Every error this package raises on purpose.

Each class derives from ``AmctError``, so that one ``except`` clause catches them all, and from the builtin that the
original toolkit raises in the same place, so that existing clients' handlers keep working. A message says what is
wrong, where (file, node or key) and what to do about it.
"""

import itertools
import re


class AmctError(Exception):
    """Base class of all errors raised by amct_tensorflow."""


class ArgumentTypeError(AmctError, TypeError):
    """An argument of a public function has the wrong type."""


class ArgumentValueError(AmctError, ValueError):
    """An argument of a public function has the right type but a value that cannot work."""


class ConfigValueError(AmctError, ValueError):
    """config.json or the simplified .cfg names something unknown or holds a value out of range."""


class ConfigTypeError(AmctError, TypeError):
    """A value in config.json has the wrong JSON type."""


class ConfigEmptyError(AmctError, RuntimeError):
    """The configuration enables no layer at all."""


class RecordError(AmctError, RuntimeError):
    """The record file is missing, incomplete, malformed, or does not belong to the model."""


class ModelError(AmctError, ValueError):
    """The model cannot be read, or cannot be quantized."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """The model file does not exist."""


class CalibrationError(AmctError, RuntimeError):
    """Calibration did not see the data it needs, or saw NaN or Inf."""


class DatasetError(AmctError, ValueError):
    """A dataset cannot be used; the message says which file and record, and what to do."""


class TooFewFilesError(DatasetError, RuntimeError):
    """A folder of raw data holds fewer files than batches are asked for."""


class EvaluatorError(AmctError, RuntimeError):
    """The user's evaluator (or strategy, or sensitivity) broke its contract."""


class MetricError(EvaluatorError, ValueError):
    """``metric_eval`` rejects the original model compared with itself."""


class OutputError(AmctError, OSError):
    """A result cannot be written."""


class ExportError(AmctError, RuntimeError):
    """A quantized model cannot be exported, or the library for it is missing."""


class UnsupportedError(AmctError, NotImplementedError):
    """A function of the original toolkit that is not this tool was called; the message says what to use instead."""


class ContentError(AmctError, ValueError):
    """A file that the package wrote was damaged; the reader says which file it is, and what to do."""


class StateError(AmctError, RuntimeError):
    """The state of an earlier run cannot be used."""


class WorkerError(AmctError, RuntimeError):
    """The processes that are to share an evaluation cannot be used, or keep dying."""


class ReportError(AmctError, ValueError):
    """The report of a run cannot be used."""


class ReportNotFoundError(ReportError, FileNotFoundError):
    """There is no report."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that tells something, without TensorFlow's own node names."""
    line = next(iter(core_message(error).splitlines()), type(error).__name__)
    return re.sub(r"{{.*?}} ?| \[Op:.*", "", line)


def core_message(error: BaseException) -> str:
    """Returns the message of an error; of TensorFlow's, which also list where each node was made, the decisive line."""
    message = getattr(error, "message", None)
    if not isinstance(message, str):
        return str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    after_node = [line for before, line in itertools.pairwise(lines) if before.startswith("Node: ")]
    return next(iter([*after_node, *lines]), "no message")
