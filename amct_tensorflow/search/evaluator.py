"""The user's evaluator: its base class, and calls of it whose results are checked."""

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from amct_tensorflow.errors import AmctError, EvaluatorError, MetricError
from amct_tensorflow.log import log_for


class AutoCalibrationEvaluatorBase:
    """Base class of evaluators: how to run, and how to judge, the user's model."""

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs at least ``batch_num`` batches.

        Args:
            graph: fresh graph prepared for calibration; nodes may be added.
            outputs: names of the output operators, without ``:0``.
        """
        raise NotImplementedError

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> Any:
        """Evaluates a float or quantized model.

        Args:
            graph: fresh graph without variables; nodes may be added.
            outputs: names of the output operators, without ``:0``.

        Returns:
            Any metric object.
        """
        raise NotImplementedError

    def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, float]:
        """Judges a model.

        Args:
            original_metric: what ``evaluate`` returned for the original model.
            new_metric: what it returned for another.

        Returns:
            Whether the new model satisfies the requirement, and its loss.
        """
        raise NotImplementedError


class MetricEval(NamedTuple):
    """A judged model: whether it satisfies the requirement, and its loss."""

    satisfied: bool
    loss: float


class CheckedEvaluator:
    """Calls an evaluator; whatever it does wrong becomes one clear error.

    Raises:
        EvaluatorError: the object is no evaluator.
    """

    def __init__(self, evaluator: object) -> None:
        if not isinstance(evaluator, AutoCalibrationEvaluatorBase):
            raise EvaluatorError(
                f"evaluator is a {type(evaluator).__name__}; derive its class from "
                "amct_tensorflow.common.auto_calibration.AutoCalibrationEvaluatorBase."
            )
        self._evaluator = evaluator
        self._name = type(evaluator).__name__

    def calibrate(self, graph: tf.Graph, outputs: Sequence[str]) -> None:
        """Calls ``calibration``."""
        try:
            self._evaluator.calibration(graph, list(outputs))
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("calibration", "the model prepared for calibration", error) from error

    def evaluate(self, graph: tf.Graph, outputs: Sequence[str], model: str) -> Any:
        """Calls ``evaluate``; ``model`` says in messages which one it is."""
        try:
            metric = self._evaluator.evaluate(graph, list(outputs))
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("evaluate", model, error) from error
        if metric is None or (isinstance(metric, numbers.Real) and math.isnan(metric)):
            raise EvaluatorError(
                f"{self._name}.evaluate returned {metric} for {model}; return the metric that it measured."
            )
        return metric

    def judge(self, original: Any, new: Any) -> MetricEval:
        """Calls ``metric_eval``."""
        try:
            result = self._evaluator.metric_eval(original, new)
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("metric_eval", f"{original!r} and {new!r}", error) from error
        try:
            satisfied, loss = result
            judged = MetricEval(bool(satisfied), float(loss))
        except (TypeError, ValueError) as error:
            raise EvaluatorError(
                f"{self._name}.metric_eval returned {result!r}; return a tuple (satisfied: bool, loss: float)."
            ) from error
        if math.isnan(judged.loss):
            raise EvaluatorError(f"{self._name}.metric_eval returned the loss NaN for {original!r} and {new!r}.")
        return judged

    def check_requirement(self, original: Any) -> None:
        """Makes sure that the requirement can be met at all.

        Raises:
            MetricError: not even the original model, compared with itself, satisfies it.
        """
        judged = self.judge(original, original)
        if not judged.satisfied:
            log_for().error("metric_eval() does not accept the original model compared with itself.")
            raise MetricError(
                f"{self._name}.metric_eval says that the original model does not satisfy the requirement when compared "
                f"with itself (loss {judged.loss:g}); no quantized model ever will. Check metric_eval() and the "
                "target: a loss of 0 must satisfy."
            )

    def _failure(self, method: str, subject: str, error: Exception) -> EvaluatorError:
        if isinstance(error, NotImplementedError):
            return EvaluatorError(f"{self._name} does not implement {method}(). Implement it.")
        text = _essence(error) if isinstance(error, tf.errors.OpError) else str(error)
        return EvaluatorError(f"{self._name}.{method} failed on {subject}: {type(error).__name__}: {text}")


def _essence(error: tf.errors.OpError) -> str:
    """Returns the line of TensorFlow's message that says what happened; the rest tells where each node was made."""
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    after_node = [line for before, line in itertools.pairwise(lines) if before.startswith("Node: ")]
    return next(iter([*after_node, *lines]), "no message")
