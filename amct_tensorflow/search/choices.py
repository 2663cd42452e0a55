"""Strategies and sensitivities by the names that callers give: one line each.

A class is imported when it is asked for: the names alone, which the command line shows, cost no TensorFlow.
"""

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from amct_tensorflow.errors import EvaluatorError

if TYPE_CHECKING:
    from amct_tensorflow.search.sensitivity.measures import SensitivityBase
    from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, CheckedStrategy


class _Classes(Mapping[str, type]):
    """Classes by name; ``places`` says of each in which module of this package it stands."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> type:
        found: type = resolve_name(f"{__package__}.{self._places[name]}")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


STRATEGIES = _Classes(
    {
        "BinarySearch": "strategy:BinarySearchStrategy",
        "PredictiveSearch": "predictive:PredictiveSearch",
    }
)
SENSITIVITIES = _Classes(
    {
        "CosineSimilarity": "sensitivity.measures:CosineSimilaritySensitivity",
        "OutputDivergence": "sensitivity.measures:OutputDivergenceSensitivity",
    }
)


def choose_strategy(function: str, value: "str | AutoCalibrationStrategyBase") -> "CheckedStrategy":
    """Returns the strategy that a name stands for, or the one given; ``function`` is named in messages.

    Raises:
        EvaluatorError: it is neither.
    """
    from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, CheckedStrategy  # noqa: PLC0415

    return CheckedStrategy(_choose(function, "strategy", value, STRATEGIES, AutoCalibrationStrategyBase))


def choose_sensitivity(function: str, value: "str | SensitivityBase") -> "SensitivityBase":
    """Returns the sensitivity that a name stands for, or the one given; ``function`` is named in messages.

    Raises:
        EvaluatorError: it is neither.
    """
    from amct_tensorflow.search.sensitivity.measures import SensitivityBase  # noqa: PLC0415

    chosen: SensitivityBase = _choose(function, "sensitivity", value, SENSITIVITIES, SensitivityBase)
    return chosen


def _choose(function: str, argument: str, value: object, known: Mapping[str, type], base: type) -> Any:
    if isinstance(value, base):
        return value
    if isinstance(value, str) and value in known:
        return known[value]()
    raise EvaluatorError(
        f"{function}: {argument} is {value!r}; use {' or '.join(map(repr, known))}, or an instance of {base.__name__}."
    )
