"""Whether the evaluations of an evaluator can be shared out."""

from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase


def check_sharing(evaluator: AutoCalibrationEvaluatorBase) -> None:
    """Makes sure that there are shares, and that they give what ``evaluate`` would.

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
