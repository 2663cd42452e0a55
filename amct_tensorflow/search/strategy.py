"""Strategies: they decide which layers to roll back next (spec section 6.3).

A configuration maps each layer to True (quantized, on its lowest rung) or False (rolled back to float). If the device
has rungs between, it may map a layer to one of them.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from amct_tensorflow.devices.device_table import UNNAMED
from amct_tensorflow.devices.rungs import Ladder, Rung
from amct_tensorflow.errors import AmctError, EvaluatorError
from amct_tensorflow.search.configuration import Configuration


class StrategyDecision(TypedDict):
    """The decision of a strategy after a result.

    ``stop_flag`` ends the search; ``roll_back_config`` is the configuration to evaluate next or, at the end, to keep.
    """

    stop_flag: bool
    roll_back_config: "OrderedDict[str, bool | Rung]"


@dataclass(frozen=True, eq=False)
class SearchKnowledge:
    """What a strategy may know of the model beside the ranking.

    Attributes:
        divergences: takes sets of layers to quantize, and a base set from which they differ little; returns per set the
            divergence of the model's outputs from those of the float model, without an evaluation. A set holds the
            names of layers on the lowest rung; of others what ``quantized_layers`` makes of them.
        mac_shares: per layer, its share of the model's multiply-accumulates.
        find_target: returns the loss up to which a configuration satisfies, None if it cannot be known; it may call
            ``metric_eval`` with made-up metrics.
        sampled: takes sets of layers to quantize; returns per set the divergence on a sample of the inputs that is so
            small that each layer can be tried alone. None if there is no cheaper sample than ``divergences`` uses.
        scoring_pays: whether ``divergences`` runs fewer inputs per set than an evaluation does.
        ladders: per layer, the rungs on which it may stand, the lowest first; layers without any have int8 and float.
    """

    divergences: Callable[[Sequence[Collection[str]], Collection[str]], list[float]]
    mac_shares: Mapping[str, float]
    find_target: Callable[[], float | None]
    sampled: Callable[[Sequence[Collection[str]]], list[float]] | None = None
    scoring_pays: bool = True
    ladders: Mapping[str, Ladder] = field(default_factory=dict)

    def ladder(self, layer: str) -> Ladder:
        """Returns the rungs on which a layer may stand, the lowest first; the last is float."""
        return self.ladders.get(layer, UNNAMED.rungs)

    def sampled_divergences(self, candidates: Sequence[Collection[str]]) -> list[float]:
        """Returns per set of layers to quantize the divergence on the cheapest inputs that there are."""
        return self.divergences(candidates, ()) if self.sampled is None else self.sampled(candidates)


class AutoCalibrationStrategyBase:
    """Base class of search strategies.

    Attributes:
        uses_rungs_between: whether it may put layers on rungs between the lowest and float. If not, such rungs of the
            device are left out, and nothing is calibrated for them.
    """

    uses_rungs_between: bool = True

    def prepare(self, knowledge: SearchKnowledge) -> None:
        """Takes what is known of the model; called before ``initialize``. Optional."""

    def initialize(self, ranking_info: Mapping[str, float]) -> None:
        """Starts a search.

        Args:
            ranking_info: per quantized layer its similarity; the smallest is the most sensitive.
        """
        raise NotImplementedError

    def update_quant_config(self, metric_eval: tuple[bool, float]) -> StrategyDecision:
        """Takes the result of the configuration evaluated last, first that of quantizing all layers.

        The search ends with the first decision that sets ``stop_flag`` or leaves every layer in float; in the latter
        case, the best quantized model so far is saved. A known configuration is not evaluated again; the strategy gets
        its result at once. If a strategy asks only for known ones, more often than there are any, the search ends with
        a warning.

        Args:
            metric_eval: whether the result satisfies the requirement, and the loss.
        """
        raise NotImplementedError

    def next_config(self) -> "Mapping[str, bool | Rung] | None":
        """Returns the next configuration if it does not depend on the result of the current one; optional.

        Workers, if there are any, then evaluate both at once.

        Returns:
            The configuration; None if it is not certain, or there is none.
        """
        return None

    def evaluations_to_expect(self, layers: int) -> int | None:
        """Returns how many evaluations a run may take, those of the first two models included; None if unknown."""
        return None


class BinarySearchStrategy(AutoCalibrationStrategyBase):
    """Bisects for the smallest ``k`` such that rolling back the ``k`` most sensitive layers satisfies."""

    uses_rungs_between = False

    def __init__(self) -> None:
        self._ranked: list[str] = []
        self._left = 0
        self._right = -1
        self._current: int | None = None
        self._best: int | None = None

    def initialize(self, ranking_info: Mapping[str, float]) -> None:
        """Ranks the layers by ascending similarity; equals stay in the order given."""
        self._ranked = sorted(ranking_info, key=lambda name: ranking_info[name])
        self._left, self._right = 0, len(self._ranked) - 1
        self._current = None
        self._best = None

    def update_quant_config(self, metric_eval: tuple[bool, float]) -> StrategyDecision:
        """Halves the interval by the last result; see ``AutoCalibrationStrategyBase``."""
        if self._current is not None:
            middle = self._current - 1
            if metric_eval[0]:
                self._best = self._current
                self._right = middle - 1
            else:
                self._left = middle + 1
        if self._left > self._right:
            best = len(self._ranked) if self._best is None else self._best
            return {"stop_flag": True, "roll_back_config": self._configuration(best)}
        self._current = (self._left + self._right) // 2 + 1
        return {"stop_flag": False, "roll_back_config": self._configuration(self._current)}

    def evaluations_to_expect(self, layers: int) -> int | None:
        """Returns the largest number of evaluations."""
        return 2 + layers.bit_length()

    def _configuration(self, rolled_back: int) -> "OrderedDict[str, bool | Rung]":
        return OrderedDict((name, index >= rolled_back) for index, name in enumerate(self._ranked))


@dataclass(frozen=True)
class Decision:
    """A decision of a strategy, checked.

    Attributes:
        stops: whether it ends the search.
        configuration: what to evaluate next or, at the end, to keep.
    """

    stops: bool
    configuration: Configuration


class CheckedStrategy:
    """Calls a strategy, and turns whatever goes wrong in it into an ``EvaluatorError``."""

    def __init__(self, strategy: AutoCalibrationStrategyBase) -> None:
        self._strategy = strategy
        self.name = type(strategy).__name__

    def rungs_of(self, device: Ladder) -> Ladder:
        """Returns those rungs of a device that the strategy may use."""
        return device if self._strategy.uses_rungs_between else (device[0], device[-1])

    def begin(self, knowledge: SearchKnowledge, ranking: Mapping[str, float]) -> None:
        """Calls ``prepare`` and ``initialize``."""
        self._call("prepare", knowledge)
        self._call("initialize", dict(ranking))

    def decide(self, judged: tuple[bool, float], ladders: Mapping[str, Ladder]) -> Decision:
        """Calls ``update_quant_config``; returns a decision about exactly the layers of the search."""
        return check_decision(self._strategy, self._call("update_quant_config", judged), ladders)

    def next_config(self, ladders: Mapping[str, Ladder]) -> Configuration | None:
        """Calls ``next_config``."""
        configuration = self._call("next_config")
        if configuration is None:
            return None
        return _check_configuration(f"{self.name}.next_config", configuration, ladders)

    def evaluations_to_expect(self, layers: int) -> int | None:
        """Calls ``evaluations_to_expect``."""
        expected = self._call("evaluations_to_expect", layers)
        if expected is not None and not isinstance(expected, int):
            raise EvaluatorError(f"{self.name}.evaluations_to_expect returned {expected!r}; return an int, or None.")
        return expected

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._strategy, method)(*arguments)
        except AmctError:
            raise
        except NotImplementedError as error:
            raise EvaluatorError(f"{self.name} does not implement {method}(). Implement it.") from error
        except Exception as error:
            raise EvaluatorError(f"{self.name}.{method} failed: {type(error).__name__}: {error}") from error


def check_decision(strategy: AutoCalibrationStrategyBase, decision: Any, ladders: Mapping[str, Ladder]) -> Decision:
    """Checks a decision of a strategy.

    Raises:
        EvaluatorError: it is not a decision about exactly the layers of the search.
    """
    name = type(strategy).__name__
    if not isinstance(decision, Mapping) or not {"stop_flag", "roll_back_config"} <= set(decision):
        raise EvaluatorError(
            f"{name}.update_quant_config returned {decision!r}; return a dict with stop_flag and roll_back_config."
        )
    configuration = _check_configuration(f"{name}.update_quant_config", decision["roll_back_config"], ladders)
    stops = _truth(
        f"{name}.update_quant_config returned the stop_flag {decision['stop_flag']!r}", decision["stop_flag"]
    )
    return Decision(stops, configuration)


def _check_configuration(method: str, configuration: Any, ladders: Mapping[str, Ladder]) -> Configuration:
    if not isinstance(configuration, Mapping) or set(configuration) != set(ladders):
        where = ", in roll_back_config" if method.endswith("update_quant_config") else ""
        raise EvaluatorError(f"{method} must decide every quantized layer, and no other{where}.")
    return {layer: _rung(method, layer, decided, ladders[layer]) for layer, decided in configuration.items()}


def _rung(method: str, layer: str, decided: Any, ladder: Ladder) -> Rung:
    """Returns the rung that a strategy decides for."""
    if not isinstance(decided, Rung):
        is_quantized = _truth(f"{method} decides {decided!r} for layer {layer!r}", decided, "or a Rung")
        return ladder[0] if is_quantized else ladder[-1]
    for rung in ladder:
        if rung.name == decided.name:  # what it costs is for the device to say
            return rung
    known = ", ".join(rung.name for rung in ladder)
    raise EvaluatorError(f"{method} puts layer {layer!r} on {decided.name}; its rungs are {known}.")


def _truth(what: str, value: Any, else_what: str = "") -> bool:
    """Returns a truth value; text such as "False" or "a16w8", which Python takes to be true, is none."""
    if not isinstance(value, (bool, int, np.bool_)) or value not in (0, 1):
        raise EvaluatorError(f"{what}; use {' '.join(filter(None, ('True, False', else_what)))}.")
    return bool(value)
