"""Calls the user's evaluator, checks its results, and tells whether evaluations can be shared out."""

import json
import math
import numbers
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import AmctError, EvaluatorError, MetricError, core_message
from amct_tensorflow.log import log_for
from amct_tensorflow.search.evaluator import (
    AutoCalibrationEvaluatorBase,
    Evaluation,
    MetricEval,
    Picture,
    is_list_of_predictions,
)
from amct_tensorflow.search.source_code import code_of
from amct_tensorflow.search.workers.serialization import serialize


@runtime_checkable
class CalibratesInPassing(Protocol):
    """An evaluator that prepares the data of the calibration batches once, for the evaluation, too."""

    @property
    def calibrates_in_passing(self) -> bool:
        """Whether it does so; a class derived from one that does may calibrate or evaluate in another way."""

    def evaluate_and_calibrate(
        self, graph: tf.Graph, outputs: list[str], tapped: tf.Graph, calibrated: Callable[[], None]
    ) -> Any:
        """Does what ``evaluate`` does on a graph, and what ``calibration`` does on another, and says so as it has."""


class Tapped(NamedTuple):
    """A model prepared for calibration, to run the batches on in passing.

    Attributes:
        graph: the model, or its inputs alone if their taps are all that is needed (``taps_on_inputs``).
        calibrated: to be called behind the last batch; raises an error if there were too few.
    """

    graph: tf.Graph
    calibrated: Callable[[], None]


def check_sharing(evaluator: AutoCalibrationEvaluatorBase) -> None:
    """Checks that an evaluator has shares, and that they belong to its ``evaluate``.

    Raises:
        EvaluatorError: there is no ``evaluate_share``, or it belongs to another ``evaluate``.
    """
    cls = type(evaluator)
    if _owner(cls, "evaluate_share") is AutoCalibrationEvaluatorBase:
        raise EvaluatorError(
            f"{cls.__name__} has no evaluate_share(), so that its evaluations cannot be shared out. Implement it, or "
            "run it in one process: without --num_workers and --ray (in code num_workers and ray)."
        )
    # In a class that overrides only evaluate(), the shares of its base would give another metric.
    order = cls.__mro__
    is_newer = order.index(_owner(cls, "evaluate")) < order.index(_owner(cls, "evaluate_share"))
    if is_newer or "evaluate" in vars(evaluator):
        raise EvaluatorError(
            f"{cls.__name__} overrides evaluate(), but not evaluate_share() that goes with it: shares would give "
            "another metric. Override evaluate_share() instead, and join_shares() if the metric is no mean over images."
        )


def _owner(cls: type, method: str) -> type:
    return next(one for one in cls.__mro__ if method in vars(one))


# From a millionth of the metric, so many doublings reach a million times the metric, and so many bisections the sixth
# digit of what lies between the last two.
_MOST_DOUBLINGS = 40
_BISECTIONS = 20


class CheckedEvaluator:
    """Calls an evaluator, and turns whatever goes wrong in it into an ``EvaluatorError``.

    Attributes:
        name: the name of the evaluator's class.
        evaluations: number of evaluations so far.
        reused: number of those whose results come from an earlier run.
        seconds: how long the other evaluations took together, as far as this process waited for them.

    Raises:
        EvaluatorError: the object is no evaluator.
    """

    def __init__(self, evaluator: object, name: str | None = None) -> None:
        """Takes an evaluator; messages call it ``name``, which is that of its class by default."""
        if not isinstance(evaluator, AutoCalibrationEvaluatorBase):
            raise EvaluatorError(
                f"evaluator is a {type(evaluator).__name__}; derive its class from "
                "amct_tensorflow.common.auto_calibration.AutoCalibrationEvaluatorBase."
            )
        self._evaluator = evaluator
        self.name = name or type(evaluator).__name__
        self.evaluations = 0
        self.reused = 0
        self.seconds = 0.0

    @property
    def calibration_may_overlap(self) -> bool:
        """Asks for ``calibration_may_overlap``."""
        return bool(self._evaluator.calibration_may_overlap)

    @property
    def calibrates_in_passing(self) -> bool:
        """Whether it runs the calibration batches as it comes by them in an evaluation."""
        if not isinstance(self._evaluator, CalibratesInPassing):
            return False
        return self.calibration_may_overlap and self._evaluator.calibrates_in_passing

    def calibrate(self, graph: tf.Graph, outputs: Sequence[str]) -> None:
        """Calls ``calibration``."""
        try:
            self._evaluator.calibration(graph, list(outputs))
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("calibration", "the model prepared for calibration", error) from error

    def evaluate(self, graph: tf.Graph, outputs: Sequence[str], model: str, tapped: Tapped | None = None) -> Evaluation:
        """Calls ``evaluate``.

        Args:
            graph: the model.
            outputs: its outputs.
            model: says in messages which one it is.
            tapped: the model prepared for calibration, if an evaluator that ``calibrates_in_passing`` shall do so.
        """
        start = time.perf_counter()
        try:
            if tapped is not None and isinstance(self._evaluator, CalibratesInPassing):
                metric = self._evaluator.evaluate_and_calibrate(graph, list(outputs), *tapped)
            else:
                metric = self._evaluator.evaluate(graph, list(outputs))
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("evaluate", model, error) from error
        seconds = time.perf_counter() - start
        return self._evaluation("evaluate", metric, model, seconds, waited=seconds)

    def join_shares(self, results: Sequence[Any], model: str, seconds: float, waited: float) -> Evaluation:
        """Calls ``join_shares``.

        Args:
            results: what ``evaluate_share`` returned elsewhere, in the order of the shares.
            model: says in messages which one it is.
            seconds: how long the evaluation took.
            waited: how long of that this process only waited.
        """
        try:
            metric = self._evaluator.join_shares(list(results))
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("join_shares", model, error) from error
        return self._evaluation("join_shares", metric, model, seconds, waited)

    def _evaluation(self, method: str, metric: Any, model: str, seconds: float, waited: float) -> Evaluation:
        """Counts an evaluation, and checks its results."""
        if metric is None:
            raise EvaluatorError(f"{self.name}.{method} returned None for {model}; return the metric that it measured.")
        self.evaluations += 1
        self.seconds += waited
        return Evaluation(metric, seconds, self._image_results(), image_predictions=self._image_predictions())

    def reuse(self) -> None:
        """Counts an evaluation of an earlier run."""
        self.evaluations += 1
        self.reused += 1

    def identity(self) -> dict[str, str]:
        """Calls ``identity``; returns its entries as JSON, by name."""
        try:
            identity = self._evaluator.identity()
            return {str(name): json.dumps(value, sort_keys=True) for name, value in dict(identity or {}).items()}
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("identity", "its data", error) from error

    def serialized(self) -> bytes:
        """Returns the serialized evaluator.

        Raises:
            EvaluatorError: its evaluations cannot be shared out.
            WorkerError: it cannot be sent to another process.
        """
        check_sharing(self._evaluator)
        return serialize(self._evaluator)

    def code(self) -> str:
        """Returns the code of the evaluator's class."""
        return code_of(type(self._evaluator), "evaluator")

    def judge_model(self, original: Any, new: Any, model: str) -> MetricEval:
        """Calls ``metric_eval`` for a quantized model, which does not satisfy if its metric or its loss is NaN."""
        judged = None if _is_nan(new) else self._judged(original, new)
        if judged is None or math.isnan(judged.loss):
            log_for().warning(
                "The %s of %s is NaN, which counts as not satisfying.", "metric" if judged is None else "loss", model
            )
            return MetricEval(False, math.inf)
        return judged

    def judge(self, original: Any, new: Any) -> MetricEval:
        """Calls ``metric_eval`` for metrics of which it has to know the loss."""
        judged = self._judged(original, new)
        if math.isnan(judged.loss):
            raise EvaluatorError(f"{self.name}.metric_eval returned the loss NaN for {original!r} and {new!r}.")
        return judged

    def _judged(self, original: Any, new: Any) -> MetricEval:
        try:
            result = self._evaluator.metric_eval(original, new)
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("metric_eval", f"{original!r} and {new!r}", error) from error
        try:
            satisfied, loss = result
            return MetricEval(bool(satisfied), float(loss))
        except (TypeError, ValueError) as error:
            raise EvaluatorError(
                f"{self.name}.metric_eval returned {result!r}; return a tuple (satisfied: bool, loss: float)."
            ) from error

    def check_requirement(self, original: Any) -> None:
        """Checks that the requirement can be met at all.

        Raises:
            EvaluatorError: the metric of the original model is NaN.
            MetricError: not even the original model, compared with itself, satisfies it.
        """
        if _is_nan(original):
            raise EvaluatorError(
                f"The metric of the original model that {self.name} returned is {original}, with which nothing can be "
                "compared. Check the data and the evaluator."
            )
        judged = self.judge(original, original)
        if not judged.satisfied:
            log_for().error("metric_eval() does not accept the original model compared with itself.")
            raise MetricError(
                f"{self.name}.metric_eval says that the original model does not satisfy the requirement when compared "
                f"with itself (loss {judged.loss:g}); no quantized model ever will. Check metric_eval() and the "
                "target: a loss of 0 must satisfy."
            )

    def find_target(self, original: Any) -> float | None:
        """Finds the loss up to which a model satisfies, by calls of ``metric_eval`` with made-up metrics.

        Returns:
            The loss; None if the metric is no plain number, or no loss seems to be too much.
        """
        if isinstance(original, bool) or not isinstance(original, numbers.Real):
            return None
        try:
            return _find_target(lambda metric: self.judge(original, metric), float(original))
        except AmctError:  # it does not take numbers that no model has given
            return None

    def _image_results(self) -> np.ndarray | None:
        """Calls ``image_results``."""
        try:
            results = self._evaluator.image_results()
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("image_results", "the model evaluated last", error) from error
        if results is None:
            return None
        try:
            values = np.asarray(results, np.float64)
        except (TypeError, ValueError) as error:
            raise EvaluatorError(f"{self.name}.image_results returned something else than numbers: {error}.") from error
        if values.ndim != 1:
            raise EvaluatorError(
                f"{self.name}.image_results returned an array of shape {values.shape}; return one number per image, or "
                "None."
            )
        if not np.isfinite(values).all():
            log_for().warning(
                "%s.image_results returned numbers that are not finite, for %d of %d images; they are not used.",
                self.name, np.sum(~np.isfinite(values)), len(values),
            )  # fmt: skip
            return None
        return values

    def pictures(self, images: Sequence[int]) -> list[Picture] | None:
        """Calls ``pictures``."""
        try:
            pictures = self._evaluator.pictures(images)
            found = None if pictures is None else [Picture(bytes(data), str(label)) for data, label in pictures]
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("pictures", f"{len(images)} images", error) from error
        if found is not None and len(found) != len(images):
            raise EvaluatorError(f"{self.name}.pictures returned {len(found)} of {len(images)} pictures; return each.")
        return found

    def _image_predictions(self) -> np.ndarray | None:
        """Calls ``image_predictions``."""
        try:
            predictions = self._evaluator.image_predictions()
            values = None if predictions is None else np.asarray(predictions)
        except AmctError:
            raise
        except Exception as error:
            raise self._failure("image_predictions", "the model evaluated last", error) from error
        if values is not None and not is_list_of_predictions(values):
            raise EvaluatorError(
                f"{self.name}.image_predictions returned an array of {values.dtype} of shape {values.shape}; return "
                "one integer, or one text, per image, or None."
            )
        return values

    def _failure(self, method: str, subject: str, error: Exception) -> EvaluatorError:
        if isinstance(error, NotImplementedError):
            return EvaluatorError(f"{self.name} does not implement {method}(). Implement it.")
        reason = f"{type(error).__name__}: {core_message(error)}"
        return EvaluatorError(f"{self.name}.{method} failed on {subject}: {reason}")


def _is_nan(metric: Any) -> bool:
    return isinstance(metric, numbers.Real) and math.isnan(metric)


def format_metric(metric: Any) -> str:
    """Returns a metric for the log; floats without the noise of their last digits."""
    return str(float(f"{metric:.9g}")) if isinstance(metric, float) else str(metric)


def _find_target(judge: Callable[[float], MetricEval], original: float) -> float | None:
    """Moves away from the original metric, towards more loss, until a model no longer satisfies."""
    step = max(abs(original), 1.0) * 1e-6
    worse = max((original + step, original - step), key=lambda metric: judge(metric).loss) - original
    satisfied, failed = 0.0, 0.0
    for doubling in range(_MOST_DOUBLINGS):
        failed = worse * 2.0**doubling
        if not judge(original + failed).satisfied:
            break
        satisfied = failed
    else:
        return None
    for _ in range(_BISECTIONS):
        middle = (satisfied + failed) / 2
        if judge(original + middle).satisfied:
            satisfied = middle
        else:
            failed = middle
    return judge(original + satisfied).loss
