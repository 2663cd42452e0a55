"""A search that predicts the layers to roll back, and evaluates only to verify.

The score of a set of layers is the divergence of the model's outputs (``SearchKnowledge.divergences``), which costs no
evaluation. The loss grows with the score, from 0 at 0; each evaluation adds a point to this curve. The curve meets the
target loss at the largest score that a configuration may have. The cheapest configuration found within that score is
evaluated next.

A layer in float costs its share of the model's multiply-accumulates, plus the average share of a layer, since a float
layer also breaks up the part that runs in integers.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Generator, Mapping, Sequence

from amct_tensorflow.log import log_for
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, SearchKnowledge, StrategyDecision

# A round of the planning tries so many of the most promising layers.
_CANDIDATES = 10
# The first prediction rests on two points only, and aims this much below the target.
_CAUTION = 0.9
# After the n-th failure the score aimed at is at most the failed one times this to the n-th power, so that even a loss
# that does not follow the score ends the search soon.
_RETREAT = 0.8
# A target near 0 is no reason to aim at a score of 0: an accuracy that is counted moves in steps, up as well as down.
_LEAST = 0.2
# So many times it is tried to make a configuration that satisfies cheaper.
_IMPROVEMENTS = 2
_USUAL_EVALUATIONS = 5

# The score of a model whose outputs are not finite, or cannot be measured.
_WORST = 1e30

_RolledBack = frozenset[str]
_Judged = tuple[bool, float]


class PredictiveSearch(AutoCalibrationStrategyBase):
    """Evaluates the cheapest configuration that is predicted to satisfy; see the module."""

    def __init__(self) -> None:
        self._knowledge: SearchKnowledge | None = None
        self._ranking: dict[str, float] = {}
        self._steps: Generator[_RolledBack, _Judged, _RolledBack] | None = None

    def prepare(self, knowledge: SearchKnowledge) -> None:
        """Takes what is known of the model; without it, the strategy uses the ranking alone."""
        self._knowledge = knowledge

    def initialize(self, ranking_info: Mapping[str, float]) -> None:
        """Starts a search."""
        self._ranking = dict(ranking_info)
        self._steps = None

    def update_quant_config(self, metric_eval: tuple[bool, float]) -> StrategyDecision:
        """Plans the next configuration; see ``AutoCalibrationStrategyBase``."""
        evaluation = bool(metric_eval[0]), float(metric_eval[1])
        try:
            if self._steps is None:
                log_for("search").info("Scoring sets of layers to roll back, without evaluating them.")
                target = None if self._knowledge is None else self._knowledge.find_target()
                self._steps = _search(_Planner(self._ranking, self._knowledge), _Curve(target), evaluation)
                rolled_back = next(self._steps)
            else:
                rolled_back = self._steps.send(evaluation)
        except StopIteration as finished:
            return {"stop_flag": True, "roll_back_config": self._configuration(finished.value)}
        return {"stop_flag": False, "roll_back_config": self._configuration(rolled_back)}

    def evaluations_to_expect(self, layers: int) -> int | None:
        """Returns how many evaluations are usually enough."""
        return min(_USUAL_EVALUATIONS, 2 + layers)

    def _configuration(self, rolled_back: Collection[str]) -> "OrderedDict[str, bool]":
        return OrderedDict((name, name not in rolled_back) for name in self._ranking)


def _search(planner: "_Planner", curve: "_Curve", evaluation: _Judged) -> Generator[_RolledBack, _Judged, _RolledBack]:
    """Generates sets of layers to roll back, receives their evaluations, and returns the set to keep.

    No set is generated twice.
    """
    best: _RolledBack = frozenset()
    if evaluation[0]:
        return best
    tried = {best}
    curve.add(planner.score(best), evaluation)
    while not evaluation[0]:
        best = planner.plan(curve.limit())
        while best in tried:  # the scores see no difference to what failed
            best = planner.extend(best)
        if len(best) == len(planner.layers):
            return best
        tried.add(best)
        _log_prediction(planner, curve, best)
        evaluation = yield best
        curve.add(planner.score(best), evaluation)
    for _ in range(_IMPROVEMENTS):
        cheaper = planner.improve(best, curve.limit())
        if cheaper is None or cheaper in tried:
            break
        tried.add(cheaper)
        _log_prediction(planner, curve, cheaper)
        evaluation = yield cheaper
        curve.add(planner.score(cheaper), evaluation)
        if not evaluation[0]:
            break
        best = cheaper
    return best


def _log_prediction(planner: "_Planner", curve: "_Curve", rolled_back: _RolledBack) -> None:
    log_for("search").info(
        "Predicted loss, layers in float being %d: %.4g", len(rolled_back), curve.loss(planner.score(rolled_back))
    )


class _Curve:
    """The loss as a piecewise linear function of the score, through the measured points."""

    def __init__(self, target: float | None) -> None:
        self._target = target
        self._failed: list[tuple[float, float]] = []
        self._satisfied: list[tuple[float, float]] = [(0.0, 0.0)]

    def add(self, score: float, evaluation: _Judged) -> None:
        """Adds a measured point."""
        (self._satisfied if evaluation[0] else self._failed).append((score, evaluation[1]))

    def limit(self) -> float:
        """Returns the highest score that is predicted to satisfy; it lies below every score that failed."""
        (lower, lower_loss), (upper, upper_loss) = self._bracket()
        # Without a known target, the middle of what is known to satisfy and what is not.
        target = (lower_loss + upper_loss) / 2 if self._target is None else self._target
        rise = upper_loss - lower_loss
        fraction = (target - lower_loss) / rise if 0 < rise < math.inf else 0.5
        failures = len(self._failed)
        if lower == 0:  # nothing satisfies yet
            fraction = max(fraction * (_CAUTION if failures == 1 else 1), _LEAST)
        most = _RETREAT ** max(failures - 1, 1)
        return lower + min(max(fraction, 0.0), most) * (upper - lower)

    def loss(self, score: float) -> float:
        """Returns the predicted loss at a score."""
        (lower, lower_loss), (upper, upper_loss) = self._bracket()
        if upper <= lower:
            return upper_loss
        return lower_loss + (score - lower) / (upper - lower) * (upper_loss - lower_loss)

    def _bracket(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Returns the measured points between which the target lies.

        If the loss is not monotone, a satisfying point above a failed one does not count.
        """
        upper = min(self._failed)
        lower = max(point for point in self._satisfied if point[0] < upper[0] or point[0] == 0)
        return lower, upper


class _Planner:
    """Finds cheap sets of layers to roll back whose score stays within a limit.

    Attributes:
        layers: all layers.
    """

    def __init__(self, ranking: Mapping[str, float], knowledge: SearchKnowledge | None) -> None:
        self.layers = frozenset(ranking)
        self._knowledge = knowledge
        self._scores: dict[_RolledBack, float] = {}
        shares = {} if knowledge is None else knowledge.mac_shares
        self._costs = {name: shares.get(name, 0.0) + 1 / len(ranking) for name in ranking}
        # How far similarities lie below 1 tells how much a layer matters where nothing better is known.
        self._weights = {name: max(1 - similarity, 1e-12) for name, similarity in ranking.items()}
        if not 0 < self.score(frozenset()) < _WORST:
            log_for("search").warning("The outputs tell nothing about the layers; their own similarities have to do.")
            self._knowledge = None
            self._scores.clear()
        # Until a layer is tried, it is taken to have its share of the score.
        share = self.score(frozenset()) / math.fsum(self._weights.values())
        self._gains = {name: weight * share for name, weight in self._weights.items()}

    def score(self, rolled_back: _RolledBack) -> float:
        """Returns the score of the model with some layers rolled back, the others quantized."""
        return self._score([rolled_back], rolled_back)[0]

    def plan(self, limit: float) -> _RolledBack:
        """Returns a cheap set whose score is within the limit; at worst all layers, whose score is 0."""
        rolled_back: _RolledBack = frozenset()
        while len(rolled_back) < len(self.layers) and self.score(rolled_back) > limit:
            rolled_back |= self._next(rolled_back, limit)
        return self._prune(rolled_back, limit)

    def improve(self, rolled_back: _RolledBack, limit: float) -> _RolledBack | None:
        """Returns a cheaper set than one that is known to satisfy; None if none is within the limit."""
        cheapest = min(self._prune(rolled_back, limit), self.plan(limit), key=self._cost)
        return cheapest if self._cost(cheapest) < self._cost(rolled_back) else None

    def extend(self, rolled_back: _RolledBack) -> _RolledBack:
        """Adds the more sensitive half of the remaining layers."""
        left = sorted(self.layers - rolled_back, key=lambda name: (-self._weights[name], name))
        return rolled_back | frozenset(left[: (len(left) + 1) // 2])

    def _next(self, rolled_back: _RolledBack, limit: float) -> _RolledBack:
        """Chooses layers to add: the cheapest one that suffices, or those with the most gain for their cost.

        The gains of layers that are not tried in this round are those of an earlier one, or what the ranking tells, so
        that the number of rounds does not grow with that of the layers.
        """
        score = self.score(rolled_back)
        left = sorted(self.layers - rolled_back, key=lambda name: (-self._gains[name], name))
        tried = left[:_CANDIDATES]
        scores = self._score([rolled_back | {name} for name in tried], rolled_back)
        enough = [name for name, reached in zip(tried, scores, strict=True) if reached <= limit]
        if enough:
            return frozenset({min(enough, key=lambda name: self._costs[name])})
        self._gains.update({name: score - reached for name, reached in zip(tried, scores, strict=True)})
        by_merit = sorted(left, key=lambda name: -self._gains[name] / self._costs[name])
        chosen = [by_merit[0]]
        for name in by_merit[1:]:
            if self._gains[name] <= 0 or sum(self._gains[one] for one in chosen) >= (score - limit) / 2:
                break
            chosen.append(name)
        return frozenset(chosen)

    def _prune(self, rolled_back: _RolledBack, limit: float) -> _RolledBack:
        """Quantizes layers again as far as the limit allows, the most expensive first."""
        for name in sorted(rolled_back, key=lambda name: (-self._costs[name], name)):
            if self._score([rolled_back - {name}], rolled_back)[0] <= limit:
                rolled_back -= {name}
        return rolled_back

    def _cost(self, rolled_back: _RolledBack) -> float:
        return math.fsum(self._costs[name] for name in rolled_back)

    def _score(self, candidates: Sequence[_RolledBack], base: _RolledBack) -> list[float]:
        """Scores sets that differ little from a base set; each set is measured once."""
        new = [rolled_back for rolled_back in dict.fromkeys(candidates) if rolled_back not in self._scores]
        if new:
            self._scores.update(zip(new, self._measure(new, base), strict=True))
        return [self._scores[rolled_back] for rolled_back in candidates]

    def _measure(self, candidates: Sequence[_RolledBack], base: _RolledBack) -> list[float]:
        quantized = [self.layers - rolled_back for rolled_back in candidates]
        if self._knowledge is None:
            return [math.fsum(self._weights[name] for name in names) for names in quantized]
        scores = self._knowledge.divergences(quantized, self.layers - base)
        return [score if math.isfinite(score) else _WORST for score in scores]
