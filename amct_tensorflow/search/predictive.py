"""A search that predicts which layers to raise to which rungs, and evaluates only to verify.

The score of a set of layers is the divergence of the model's outputs (``SearchKnowledge.divergences``), which costs no
evaluation. The loss grows with the score, from 0 at 0; each evaluation adds a point to this curve. The curve meets the
target loss at the largest score that a configuration may have. The cheapest configuration found within that score is
evaluated next.

Each layer is scored alone on each of its rungs, once, on a sample of the calibration inputs; ``DamageModel`` predicts
the scores of sets from these, and a knapsack finds the cheapest set. The set found is scored as a whole, which corrects
the model, unless an evaluation costs less than that. So planning takes a few runs of the model, however many layers
there are.

A layer in float costs its share of the model's multiply-accumulates, plus the average share of a layer, since a float
layer also breaks up the part that runs in integers. On a rung between it costs the part of this that the device's costs
say.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Collection, Generator, Mapping, Sequence

from amct_tensorflow.devices.device_table import UNNAMED
from amct_tensorflow.devices.rungs import Ladder, Rung
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.search.configuration import quantized_layers
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
# With a known target, predictions are good by then, and the search ends after so many configurations.
_IMPROVEMENTS = 2
_WORTH_AN_EVALUATION = 0.15
_ENOUGH_TRIED = 3
_USUAL_EVALUATIONS = 5

# The score of a model whose outputs are not finite, or cannot be measured.
_WORST = 1e30

_Judged = tuple[bool, float]


class PredictiveSearch(AutoCalibrationStrategyBase):
    """Evaluates the cheapest configuration that is predicted to satisfy; see the module."""

    def __init__(self) -> None:
        self._knowledge: SearchKnowledge | None = None
        self._ranking: dict[str, float] = {}
        self._steps: Generator[Raised, _Judged, Raised] | None = None

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
                raised = next(self._steps)
            else:
                raised = self._steps.send(evaluation)
        except StopIteration as finished:
            return {"stop_flag": True, "roll_back_config": self._configuration(finished.value)}
        return {"stop_flag": False, "roll_back_config": self._configuration(raised)}

    def evaluations_to_expect(self, layers: int) -> int | None:
        """Returns how many evaluations are usually enough."""
        return min(_USUAL_EVALUATIONS, 2 + layers)

    def _configuration(self, raised: Raised) -> "OrderedDict[str, bool | Rung]":
        above = {name: _ladder(self._knowledge, name)[rung] for name, rung in raised}
        return OrderedDict((name, _decision(above.get(name))) for name in self._ranking)


def _ladder(knowledge: SearchKnowledge | None, name: str) -> Ladder:
    return UNNAMED.rungs if knowledge is None else knowledge.ladder(name)


def _decision(raised_to: Rung | None) -> bool | Rung:
    """Returns what a configuration says of a layer; None stands for its lowest rung."""
    if raised_to is None:
        return True
    return False if raised_to.is_float else raised_to


def _search(planner: "_Planner", curve: "_Curve", evaluation: _Judged) -> Generator[Raised, _Judged, Raised]:
    """Generates sets of layers to raise, receives their evaluations, and returns the set to keep.

    No set is generated twice.
    """
    best: Raised = frozenset()
    if evaluation[0]:
        return best
    tried = {best}
    curve.add(planner.score(best), evaluation)
    while not evaluation[0]:
        best = planner.plan(curve.limit())
        while best in tried:  # the scores see no difference to what failed
            best = planner.extend(best)
        # The highest quantized model is tried before what costs clearly more, whatever its score is: measures of few
        # things, such as boxes, do not follow the score so far down. And if no quantized model satisfies, the best one
        # is saved, which is to be a good one.
        highest = planner.highest_quantized()
        if highest not in tried and planner.is_cheaper(highest, best) and planner.improves(highest, tried):
            best = highest
        elif best == planner.in_float(planner.layers):
            return best
        tried.add(best)
        _log_prediction(planner, curve, best)
        evaluation = yield best
        curve.add(planner.score(best), evaluation)
    for _ in range(_IMPROVEMENTS):
        cheaper = planner.improve(best, curve.limit())
        if cheaper is None or cheaper in tried or (curve.knows_target and len(tried) > _ENOUGH_TRIED):
            break
        tried.add(cheaper)
        _log_prediction(planner, curve, cheaper)
        evaluation = yield cheaper
        curve.add(planner.score(cheaper), evaluation)
        if not evaluation[0]:
            break
        best = cheaper
    return best


def _log_prediction(planner: "_Planner", curve: "_Curve", raised: Raised) -> None:
    score = planner.score(raised)
    log_for("search").info("Predicted loss, %s: %.4g", planner.described(raised), curve.loss(score))
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

    @property
    def knows_target(self) -> bool:
        """Whether the target is known as a number."""
        return self._target is not None

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
    """Finds cheap sets of layers to raise whose score stays within a limit.

    Attributes:
        layers: all layers.
    """

    def __init__(self, ranking: Mapping[str, float], knowledge: SearchKnowledge | None) -> None:
        self.layers = frozenset(ranking)
        self._knowledge = knowledge
        self._ladders = {name: _ladder(knowledge, name) for name in sorted(ranking)}
        self._scores: dict[Raised, float] = {}
        self._may_score = _SCORES
        # How far similarities lie below 1 tells how much a layer matters where nothing better is known.
        self._weights = {name: max(1 - similarity, 1e-12) for name, similarity in ranking.items()}
        self._model = self._model_of_scores() or self._model_of_similarities()
        shares = {} if knowledge is None else knowledge.mac_shares
        costs = {
            name: [(shares.get(name, 0.0) + 1 / len(ranking)) * extra for extra in _extra_costs(ladder)]
            for name, ladder in self._ladders.items()
        }
        self._knapsack = Knapsack(self._model.parts, costs)

    def in_float(self, names: Collection[str]) -> Raised:
        """Returns the set of these layers in float."""
        return frozenset((name, len(self._ladders[name]) - 1) for name in names)

    def highest_quantized(self) -> Raised:
        """Returns the set of all layers on their highest rungs below float."""
        return frozenset((name, len(ladder) - 2) for name, ladder in self._ladders.items() if len(ladder) > 2)

    def is_cheaper(self, one: Raised, other: Raised) -> bool:
        """Tells whether a set costs so much less than another that to know whether it satisfies pays an evaluation."""
        return self._knapsack.cost(one) <= (1 - _WORTH_AN_EVALUATION) * self._knapsack.cost(other)

    def improves(self, raised: Raised, tried: Collection[Raised]) -> bool:
        """Tells whether a set has a lower score than those that were tried."""
        return self.score(raised) < min(map(self.score, tried))

    def described(self, raised: Raised) -> str:
        """Returns how many layers a set raises to which rung, in words."""
        names = Counter(self._ladders[name][rung].name for name, rung in raised)
        return (
            ", ".join(f"{plural(count, 'layer')} in {name}" for name, count in sorted(names.items()))
            or "no layer raised"
        )

    def score(self, raised: Raised) -> float:
        """Returns the score of the model with some layers raised: the measured one, if it is worth a run."""
        if raised not in self._scores and self._may_measure():
            self._measure(raised)
        return self._scores.get(raised, self._model.damage(raised))

    def plan(self, limit: float) -> Raised:
        """Returns a cheap set whose score is within the limit; at worst all layers in float, whose score is 0.

        What is measured of each set that the model proposes corrects the model for the next.
        """
        proposed = self._cheapest(limit)
        for _ in range(_SCORES_PER_PLAN):
            if proposed in self._scores or not self._may_measure():
                break
            self._measure(proposed)
            proposed = self._cheapest(limit)
        within = [raised for raised, score in self._scores.items() if score <= limit]
        if proposed not in self._scores and not self._may_measure():
            within.append(proposed)
        return min(within, key=self._knapsack.cost, default=proposed)

    def improve(self, raised: Raised, limit: float) -> Raised | None:
        """Returns a set that is clearly cheaper than one that is known to satisfy; None if none is within the limit."""
        cheapest = self.plan(limit)
        return cheapest if self.is_cheaper(cheapest, raised) else None

    def extend(self, raised: Raised) -> Raised:
        """Puts the more sensitive half of the layers that are not in float there, too."""
        there = raised & self.in_float(self.layers)
        left = sorted(self.layers - dict(there).keys(), key=lambda name: (-self._weights[name], name))
        added = frozenset(left[: (len(left) + 1) // 2])
        return self.in_float(added) | frozenset(each for each in raised if each[0] not in added)

    def _model_of_scores(self) -> DamageModel | None:
        """Returns the model of what layers do to the outputs; None if the outputs tell nothing.

        What is left without each of the few layers that do most is scored, too, if that pays.
        """
        if self._knowledge is None:
            return None
        log_for("search").info("Scoring %s, each alone on each rung.", plural(len(self.layers), "layer"))
        alone, whole = self._score_alone(self._knowledge)
        if not 0 < whole < _WORST:
            log_for("search").warning("The outputs tell nothing about the layers; their own similarities have to do.")
            self._knowledge = None
            return None
        without: dict[str, float] = {}
        if self._knowledge.scoring_pays:
            most = _that_do_most(alone)
            sets: list[Raised] = [frozenset(), *(self.in_float({name}) for name in most)]
            lowest = self._quantized(frozenset())
            scores = list(map(_bounded, self._knowledge.divergences(list(map(self._quantized, sets)), lowest)))
            self._scores.update(zip(sets, scores, strict=True))
            without = dict(zip(most, scores[1:], strict=True))
            alone = {name: [score * scores[0] / whole for score in found] for name, found in alone.items()}
            whole = scores[0]
            self._may_score = _SCORES + len(self._scores)
        return DamageModel(alone, whole, without)

    def _score_alone(self, knowledge: SearchKnowledge) -> tuple[dict[str, list[float]], float]:
        """Returns per layer its score alone on each rung but float, and that of all on their lowest rungs."""
        rungs = [(name, rung) for name, ladder in self._ladders.items() for rung in ladder[:-1]]
        sets = [quantized_layers({name: rung}) for name, rung in rungs]
        *scores, whole = map(_bounded, knowledge.sampled_divergences([*sets, self._quantized(frozenset())]))
        alone: dict[str, list[float]] = {name: [] for name in self._ladders}
        for (name, _), score in zip(rungs, scores, strict=True):
            alone[name].append(score)
        return alone, whole

    def _model_of_similarities(self) -> DamageModel:
        """Returns a model of the ranking, which tells nothing of rungs between: layers are raised to float."""
        alone = {name: [self._weights[name]] * (len(ladder) - 1) for name, ladder in self._ladders.items()}
        return DamageModel(alone, sum(self._weights.values()))

    def _quantized(self, raised: Raised) -> frozenset[str]:
        """Returns what a set leaves quantized."""
        above = dict(raised)
        return quantized_layers({name: ladder[above.get(name, 0)] for name, ladder in self._ladders.items()})

    def _cheapest(self, limit: float) -> Raised:
        """Returns the cheapest set that the model predicts to be within a limit."""
        return self._knapsack.cheapest(self._model.limit(limit))

    def _may_measure(self) -> bool:
        return self._knowledge is not None and self._knowledge.scoring_pays and len(self._scores) < self._may_score

    def _measure(self, raised: Raised) -> None:
        """Scores a set on all calibration inputs, and corrects the model by it."""
        assert self._knowledge is not None
        (score,) = self._knowledge.divergences([self._quantized(raised)], ())
        self._scores[raised] = _bounded(score)
        log_for("search").debug(
            "The score with %s: %.6g, where %.6g was predicted.", self.described(raised), score,
            self._model.damage(raised),
        )  # fmt: skip
        self._model.meet(raised, self._scores[raised])


def _that_do_most(alone: Mapping[str, Sequence[float]]) -> list[str]:
    """Returns the layers that together do most of the damage on their lowest rung, the worst first, but only a few."""
    worst = sorted(alone, key=lambda name: (-alone[name][0], name))[:_MOST_LAYERS]
    most = _MOST * math.fsum(scores[0] for scores in alone.values())
    return [name for index, name in enumerate(worst) if math.fsum(alone[one][0] for one in worst[:index]) < most]


def _extra_costs(ladder: Ladder) -> list[float]:
    """Returns what each rung costs more than the lowest, as a part of what float does."""
    costs = [rung.cost / ladder[-1].cost for rung in ladder]  # whose differences are far from the least float
    return [(cost - costs[0]) / (1 - costs[0]) for cost in costs]


def _bounded(score: float) -> float:
    return score if math.isfinite(score) else _WORST
