"""Judging models by a target alone, where the metric is a number."""

import numbers
from dataclasses import dataclass
from typing import Any

from amct_tensorflow.errors import EvaluatorError


@dataclass(frozen=True)
class Target:
    """The loss that may not be exceeded; to be called as ``metric_eval`` of an evaluator is.

    Attributes:
        loss: the most that may be lost, in units of the metric.
        lower_is_better: whether the metric is an error, which grows as a model gets worse.
    """

    loss: float
    lower_is_better: bool = False

    def __call__(self, original_metric: Any, new_metric: Any) -> tuple[bool, float]:
        """Returns whether the loss is small enough, and the loss.

        Raises:
            EvaluatorError: the metric is no number.
        """
        for metric in (original_metric, new_metric):
            if isinstance(metric, bool) or not isinstance(metric, numbers.Real):
                raise EvaluatorError(
                    f"A target needs an evaluate() that returns a number, not {type(metric).__name__}. Return one, or "
                    "write metric_eval() and leave the target out."
                )
        loss = float(original_metric) - float(new_metric)
        loss = -loss if self.lower_is_better else loss
        return loss <= self.loss, loss
