"""A search that predicts the layers to roll back, and evaluates only to verify.

The score of a set of layers is the divergence of the model's outputs (``SearchKnowledge.divergences``), which costs no
evaluation. The loss grows with the score, from 0 at 0; each evaluation adds a point to this curve. The curve meets the
target loss at the largest score that a configuration may have. The cheapest configuration found within that score is
evaluated next.

Each layer is scored alone, once, on a sample of the calibration inputs; ``DamageModel`` predicts the scores of sets
from these, and a knapsack finds the cheapest set. The set found is scored as a whole, which corrects the model, unless
an evaluation costs less than that. So planning takes a few runs of the model, however many layers there are.

A layer in float costs its share of the model's multiply-accumulates, plus the average share of a layer, since a float
layer also breaks up the part that runs in integers.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Generator, Mapping

from amct_tensorflow.log import log_for
from amct_tensorflow.search.damage import DamageModel, Raised
from amct_tensorflow.search.knapsack import Knapsack
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, SearchKnowledge, StrategyDecision

# Of the layers that together do this share of the damage, but no more than so many, it is scored what the others do.
_MOST = 0.8
_MOST_LAYERS = 8
# So many sets are scored as a whole for one plan, and in all. Each score is one run on all calibration inputs.
_SCORES_PER_PLAN = 2
_SCORES = 10
# The first prediction rests on two points only, and aims this much below the target.
_CAUTION = 0.9
# After the n-th failure the score aimed at is at most the failed one times this to the n-th power, so that even a loss
# that does not follow the score ends the search soon.
_RETREAT = 0.8
# A target near 0 is no reason to aim at a score of 0: an accuracy that is counted moves in steps, up as well as down.
_LEAST = 0.1
# The loss is taken to grow at least like the root of the score, and at most like its square.
_LEAST_EXPONENT, _MOST_EXPONENT = 0.5, 2.0
# So many times it is tried to make a configuration that satisfies cheaper, if it is predicted to cost this much less.
_IMPROVEMENTS = 2
_WORTH_AN_EVALUATION = 0.15
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
    score = planner.score(rolled_back)
    log_for("search").info("Predicted loss, layers in float being %d: %.4g", len(rolled_back), curve.loss(score))
    log_for("search").debug("Score: %.6g", score)


class _Curve:
    """The loss as a function of the score, through the measured points.

    Up to the lowest point that failed it is a power of the score, as long as nothing satisfies: a mean of squared
    errors is as large as the score, while an accuracy may follow their roots. The exponent is that between the first
    and the last failure. Between a point that satisfies and one that does not, it is a straight line.
    """

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
            fraction = math.pow(max(fraction, 0.0), 1 / self._exponent())
            fraction = max(fraction * (_CAUTION if failures == 1 else 1), _LEAST)
        most = _RETREAT ** max(failures - 1, 1)
        return lower + min(max(fraction, 0.0), most) * (upper - lower)

    def loss(self, score: float) -> float:
        """Returns the predicted loss at a score."""
        (lower, lower_loss), (upper, upper_loss) = self._bracket()
        if upper <= lower:
            return upper_loss
        fraction = (score - lower) / (upper - lower)
        fraction = math.pow(max(fraction, 0.0), self._exponent()) if lower == 0 else fraction
        return lower_loss + fraction * (upper_loss - lower_loss)

    def _exponent(self) -> float:
        """Returns the exponent between the failures with the highest and the lowest score; 1 if they do not tell."""
        (low, low_loss), (high, high_loss) = min(self._failed), max(self._failed)
        if not (0 < low < high < math.inf and 0 < low_loss < high_loss < math.inf):
            return 1.0
        exponent = math.log(high_loss / low_loss) / math.log(high / low)
        return min(max(exponent, _LEAST_EXPONENT), _MOST_EXPONENT)

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
        self._may_score = _SCORES
        # How far similarities lie below 1 tells how much a layer matters where nothing better is known.
        self._weights = {name: max(1 - similarity, 1e-12) for name, similarity in ranking.items()}
        self._model = self._model_of_scores() or self._model_of_similarities()
        shares = {} if knowledge is None else knowledge.mac_shares
        costs = {name: [0.0, shares.get(name, 0.0) + 1 / len(ranking)] for name in ranking}
        self._knapsack = Knapsack(self._model.parts, costs)

    def score(self, rolled_back: _RolledBack) -> float:
        """Returns the score of the model with some layers rolled back: the measured one, if it is worth a run."""
        if rolled_back not in self._scores and self._may_measure():
            self._measure(rolled_back)
        return self._scores.get(rolled_back, self._model.damage(_raised(rolled_back)))

    def plan(self, limit: float) -> _RolledBack:
        """Returns a cheap set whose score is within the limit; at worst all layers, whose score is 0.

        What is measured of each set that the model proposes corrects the model for the next.
        """
        proposed = self._cheapest(limit)
        for _ in range(_SCORES_PER_PLAN):
            if proposed in self._scores or not self._may_measure():
                break
            self._measure(proposed)
            proposed = self._cheapest(limit)
        within = [rolled_back for rolled_back, score in self._scores.items() if score <= limit]
        if proposed not in self._scores and not self._may_measure():
            within.append(proposed)
        return min(within, key=self._cost, default=proposed)

    def improve(self, rolled_back: _RolledBack, limit: float) -> _RolledBack | None:
        """Returns a set that is clearly cheaper than one that is known to satisfy; None if none is within the limit."""
        cheapest = self.plan(limit)
        return cheapest if self._cost(cheapest) <= (1 - _WORTH_AN_EVALUATION) * self._cost(rolled_back) else None

    def extend(self, rolled_back: _RolledBack) -> _RolledBack:
        """Adds the more sensitive half of the remaining layers."""
        left = sorted(self.layers - rolled_back, key=lambda name: (-self._weights[name], name))
        return rolled_back | frozenset(left[: (len(left) + 1) // 2])

    def _model_of_scores(self) -> DamageModel | None:
        """Returns the model of what layers do to the outputs; None if the outputs tell nothing.

        What is left without each of the few layers that do most is scored, too, if that pays.
        """
        if self._knowledge is None:
            return None
        log_for("search").info("Scoring %d layers, each alone.", len(self.layers))
        names = sorted(self.layers)
        *scores, whole = map(_bounded, self._knowledge.sampled_divergences([*({name} for name in names), self.layers]))
        alone = dict(zip(names, scores, strict=True))
        if not 0 < whole < _WORST:
            log_for("search").warning("The outputs tell nothing about the layers; their own similarities have to do.")
            self._knowledge = None
            return None
        without: dict[str, float] = {}
        if self._knowledge.scoring_pays:
            most = _that_do_most(alone)
            sets = [self.layers - {name} for name in most]
            on_all, *scores = map(_bounded, self._knowledge.divergences([self.layers, *sets], self.layers))
            without = dict(zip(most, scores, strict=True))
            alone = {name: score * on_all / whole for name, score in alone.items()}
            whole = self._scores[frozenset()] = on_all
            self._scores.update((frozenset({name}), score) for name, score in without.items())
            self._may_score = _SCORES + len(self._scores)
        return DamageModel({name: [score] for name, score in alone.items()}, whole, without)

    def _model_of_similarities(self) -> DamageModel:
        return DamageModel({name: [weight] for name, weight in self._weights.items()}, sum(self._weights.values()))

    def _cheapest(self, limit: float) -> _RolledBack:
        """Returns the cheapest set that the model predicts to be within a limit."""
        return frozenset(name for name, _ in self._knapsack.cheapest(self._model.limit(limit)))

    def _cost(self, rolled_back: _RolledBack) -> float:
        return self._knapsack.cost(_raised(rolled_back))

    def _may_measure(self) -> bool:
        return self._knowledge is not None and self._knowledge.scoring_pays and len(self._scores) < self._may_score

    def _measure(self, rolled_back: _RolledBack) -> None:
        """Scores a set on all calibration inputs, and corrects the model by it."""
        assert self._knowledge is not None
        (score,) = self._knowledge.divergences([self.layers - rolled_back], ())
        self._scores[rolled_back] = _bounded(score)
        log_for("search").debug(
            "The score of %d layers in float: %.6g, where %.6g was predicted.", len(rolled_back), score,
            self._model.damage(_raised(rolled_back)),
        )  # fmt: skip
        self._model.meet(_raised(rolled_back), self._scores[rolled_back])


def _that_do_most(alone: Mapping[str, float]) -> list[str]:
    """Returns the layers that together do most of the damage, the worst first, but only a few."""
    worst = sorted(alone, key=lambda name: (-alone[name], name))[:_MOST_LAYERS]
    damage = math.fsum(alone.values())
    return [name for index, name in enumerate(worst) if math.fsum(alone[one] for one in worst[:index]) < _MOST * damage]


def _raised(rolled_back: _RolledBack) -> Raised:
    return frozenset((name, 1) for name in rolled_back)


def _bounded(score: float) -> float:
    return score if math.isfinite(score) else _WORST
