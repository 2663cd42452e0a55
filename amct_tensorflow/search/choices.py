"""Strategies and sensitivities by the names that callers give: one line each."""

from typing import Any

from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.search.predictive import PredictiveSearch
from amct_tensorflow.search.sensitivity.measures import (
    CosineSimilaritySensitivity,
    OutputDivergenceSensitivity,
    SensitivityBase,
)
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy, CheckedStrategy

STRATEGIES: dict[str, type[AutoCalibrationStrategyBase]] = {
    "BinarySearch": BinarySearchStrategy,
    "PredictiveSearch": PredictiveSearch,
}
SENSITIVITIES: dict[str, type[SensitivityBase]] = {
    "CosineSimilarity": CosineSimilaritySensitivity,
    "OutputDivergence": OutputDivergenceSensitivity,
}


def choose_strategy(function: str, value: str | AutoCalibrationStrategyBase) -> CheckedStrategy:
    """Returns the strategy that a name stands for, or the one given; ``function`` is named in messages.

    Raises:
        EvaluatorError: it is neither.
    """
    return CheckedStrategy(_choose(function, "strategy", value, STRATEGIES, AutoCalibrationStrategyBase))


def choose_sensitivity(function: str, value: str | SensitivityBase) -> SensitivityBase:
    """Returns the sensitivity that a name stands for, or the one given; ``function`` is named in messages.

    Raises:
        EvaluatorError: it is neither.
    """
    chosen: SensitivityBase = _choose(function, "sensitivity", value, SENSITIVITIES, SensitivityBase)
    return chosen


def _choose(function: str, argument: str, value: object, known: dict[str, Any], base: type) -> Any:
    if isinstance(value, base):
        return value
    if isinstance(value, str) and value in known:
        return known[value]()
    raise EvaluatorError(
        f"{function}: {argument} is {value!r}; use {' or '.join(map(repr, known))}, or an instance of {base.__name__}."
    )
