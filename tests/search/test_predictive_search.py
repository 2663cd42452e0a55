"""The predicting search on models of a few lines, whose scores and losses are known."""

import math

import pytest
from amct_tensorflow.common.auto_calibration import PredictiveSearch, SearchKnowledge
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.search.predictive import _Curve

LAYERS = [f"layer{index}" for index in range(20)]


class Model:
    """Scores add up over the quantized layers; the loss is a function of the score."""

    def __init__(self, weights, loss, target, shares=None, known=True):
        self.weights = weights
        self.loss = loss
        self.target = target
        self.shares = shares or {name: 1 / len(weights) for name in weights}
        self.known = known
        self.evaluated = []

    def score(self, quantized):
        return math.fsum(self.weights[name] for name in sorted(quantized))

    def evaluate(self, rolled_back):
        self.evaluated.append(frozenset(rolled_back))
        loss = self.loss(self.score(set(self.weights) - set(rolled_back)))
        return loss <= self.target, loss

    def search(self):
        """Plays the engine; returns the layers that are rolled back in the end."""
        strategy = PredictiveSearch()
        strategy.prepare(
            SearchKnowledge(
                divergences=lambda candidates, base: [self.score(candidate) for candidate in candidates],
                mac_shares=self.shares,
                find_target=lambda: self.target if self.known else None,
            )
        )
        strategy.initialize({name: math.exp(-weight) for name, weight in self.weights.items()})
        decision = strategy.update_quant_config(self.evaluate(()))
        while not decision["stop_flag"]:
            rolled_back = [name for name, kept in decision["roll_back_config"].items() if not kept]
            assert len(self.evaluated) < 40, "the search does not end"
            decision = strategy.update_quant_config(self.evaluate(rolled_back))
        return frozenset(name for name, kept in decision["roll_back_config"].items() if not kept)


def few_bad_layers(bad=(3, 7), weight=1.0):
    return {name: weight if index in bad else 0.01 for index, name in enumerate(LAYERS)}


def test_goes_straight_to_the_layers_that_matter():
    model = Model(few_bad_layers(), loss=lambda score: 2 * score, target=1.0)
    assert model.search() == {"layer3", "layer7"}
    assert model.evaluated[1:] == [{"layer3", "layer7"}]


@pytest.mark.parametrize("power", [0.5, 0.7, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("known", [True, False])
def test_corrects_itself_where_the_loss_is_not_linear_in_the_score(power, known):
    weights = {name: 2.0**-index for index, name in enumerate(LAYERS)}
    model = Model(weights, loss=lambda score: 10 * score**power, target=2.0, known=known)
    result = model.search()
    assert model.evaluate(result)[0]
    assert len(model.evaluated) - 1 <= (6 if known else 8)
    # One layer fewer would not do.
    cheapest = min(result, key=weights.get)
    assert len(result) <= 1 or not model.evaluate(result - {cheapest})[0] or len(result) <= 4


def test_prefers_layers_with_few_multiply_accumulates():
    weights = {"dear": 1.0, "cheap": 0.9, "other": 0.05}
    shares = {"dear": 0.9, "cheap": 0.05, "other": 0.05}
    model = Model(weights, loss=lambda score: score, target=1.3, shares=shares)
    assert model.search() == {"cheap"}


def test_quantizes_again_what_was_not_needed():
    """The loss falls faster than the first prediction says, so that a single layer turns out to be enough."""
    weights = {"a": 1.3, "b": 0.6, "c": 0.5, "d": 0.4}
    model = Model(weights, loss=lambda score: 4 if score > 2 else score, target=1.9)
    assert model.search() == {"a"}
    assert model.evaluated == [frozenset(), {"a", "b"}, {"a"}]


def test_does_not_try_what_is_predicted_to_fail():
    weights = {"a": 1.0, "b": 0.5, "c": 0.4, "d": 0.1}
    model = Model(weights, loss=lambda score: score, target=0.56)
    assert model.search() == {"a", "b"}
    assert len(model.evaluated) == 2


def test_steps_back_where_the_loss_is_not_monotone():
    """Rolling back the second layer makes things worse; what satisfied before is kept."""
    weights = {"a": 1.0, "b": 0.3, "c": 0.2, "d": 0.1}
    losses = {1.6: 5.0, 0.6: 1.0, 0.3: 3.0}
    model = Model(weights, loss=lambda score: losses.get(round(score, 6), 0.5), target=1.2)
    result = model.search()
    assert model.evaluate(result)[0]


def test_an_unreachable_target_ends_with_everything_in_float():
    model = Model(few_bad_layers(), loss=lambda score: 5 + score if score else 0.0, target=0.1)
    assert model.search() == frozenset(LAYERS)
    assert len(model.evaluated) < 15


def test_no_search_if_all_layers_may_be_quantized():
    model = Model(few_bad_layers(), loss=lambda score: 0.0, target=1.0)
    assert model.search() == frozenset()
    assert len(model.evaluated) == 1


@pytest.mark.parametrize("value", [math.nan, 0.0, math.inf])
def test_without_scores_the_ranking_has_to_do(value):
    weights = few_bad_layers(weight=0.5)
    strategy = PredictiveSearch()
    strategy.prepare(SearchKnowledge(lambda candidates, base: [value] * len(candidates), {}, lambda: 0.5))
    strategy.initialize({name: 1 - weight for name, weight in weights.items()})
    decision = strategy.update_quant_config((False, 2.0))
    assert [name for name, kept in decision["roll_back_config"].items() if not kept] == ["layer3", "layer7"]


def test_works_by_itself_like_any_other_strategy():
    strategy = PredictiveSearch()
    strategy.initialize({"a": 0.5, "b": 0.9, "c": 0.99})
    decision = strategy.update_quant_config((False, 1.0))
    assert decision == {"stop_flag": False, "roll_back_config": {"a": False, "b": True, "c": True}}
    assert strategy.update_quant_config((True, 0.1))["stop_flag"]


def test_scores_that_see_no_difference_do_not_keep_it_from_ending():
    """Only one layer moves the outputs on the calibration images, but all of them matter to the accuracy."""
    weights = dict.fromkeys(LAYERS, 0.0) | {"layer5": 1.0}
    model = Model(weights, loss=lambda score: 3.0, target=1.0)
    assert model.search() == frozenset(LAYERS)
    assert 2 < len(model.evaluated) < 10
    assert len(set(model.evaluated)) == len(model.evaluated)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), known=st.booleans())
def test_ends_and_repeats_nothing_whatever_the_evaluations_say(data, known):
    weights = {
        name: data.draw(st.sampled_from([0.0, 1.0]) | st.floats(0.001, 1))
        for name in LAYERS[: data.draw(st.integers(1, 12))]
    }
    outcomes = {}

    def loss(score):
        return outcomes.setdefault(score, data.draw(st.floats(-1, 5)))

    model = Model(weights, loss, target=data.draw(st.floats(0, 4)), known=known)
    result = model.search()
    assert len(set(model.evaluated)) == len(model.evaluated)
    tried = [rolled_back for rolled_back in model.evaluated if rolled_back == result]
    assert tried or result == frozenset(weights)
    if result != frozenset(weights):
        assert model.loss(model.score(set(weights) - result)) <= model.target


@pytest.mark.parametrize(("failures", "share"), [(1, 0.8), (2, 0.8), (3, 0.64)])
def test_after_failures_it_aims_ever_lower(failures, share):
    """Each is so near to the target that the line through the points alone would aim next to it again."""
    curve = _Curve(target=1.0)
    curve.add(5.0, (True, 0.5))
    for number in range(failures):
        curve.add(10.0 - 0.01 * number, (False, 1.0 + 1e-9))
    lowest_failed = 10.0 - 0.01 * (failures - 1)
    assert curve.limit() == pytest.approx(5 + share * (lowest_failed - 5), rel=1e-6)


class Scoring:
    """Counts what is scored, on the sample and on all inputs."""

    def __init__(self, weights, scoring_pays=True, bias=1.0):
        self.weights, self.bias = weights, bias
        self.sampled, self.whole = [], []
        self.knowledge = SearchKnowledge(
            lambda candidates, base: [self.score(each, self.whole) for each in candidates],
            {name: 1 / len(weights) for name in weights}, lambda: 1.0,
            lambda candidates: [self.bias * self.score(each, self.sampled) for each in candidates],
            scoring_pays,
        )  # fmt: skip

    def score(self, quantized, found):
        found.append(frozenset(quantized))
        return math.fsum(self.weights[name] for name in sorted(quantized))

    def search(self, loss=lambda score: score):
        strategy = PredictiveSearch()
        strategy.prepare(self.knowledge)
        strategy.initialize({name: math.exp(-weight) for name, weight in self.weights.items()})
        quantized, evaluations = frozenset(self.weights), 1
        while True:
            value = loss(math.fsum(self.weights[name] for name in sorted(quantized)))
            decision = strategy.update_quant_config((value <= 1, value))
            quantized = frozenset(name for name, kept in decision["roll_back_config"].items() if kept)
            if decision["stop_flag"]:
                return quantized, evaluations
            evaluations += 1


def test_planning_takes_few_runs_however_many_layers_there_are():
    """Most layers would have to stay in float."""
    weights = {f"layer{index}": 0.01 + 0.001 * (index % 7) for index in range(400)}
    scoring = Scoring(weights)
    _, evaluations = scoring.search()
    assert len(scoring.sampled) == 401  # each alone, and all
    assert len(scoring.whole) <= 9 + 10
    assert evaluations <= 5


def test_where_an_evaluation_costs_less_nothing_is_scored_on_all_inputs():
    scoring = Scoring(few_bad_layers(), scoring_pays=False)
    quantized, evaluations = scoring.search()
    assert scoring.whole == []
    assert set(LAYERS) - quantized == {"layer3", "layer7"} and evaluations == 2


def test_a_sample_that_exaggerates_is_corrected_by_what_is_measured_on_all_inputs():
    scoring = Scoring(dict.fromkeys(LAYERS, 0.2), bias=3.0)
    quantized, evaluations = scoring.search()
    assert len(quantized) == 5 or evaluations <= 4
    assert math.fsum(scoring.weights[name] for name in quantized) <= 1 + 1e-9


def test_an_accuracy_that_follows_the_root_of_the_errors_is_met_soon():
    weights = {name: 1.2**-index for index, name in enumerate(LAYERS)}
    scoring = Scoring(weights)
    quantized, evaluations = scoring.search(loss=lambda score: 1.4 * math.sqrt(score))
    assert evaluations <= 4
    assert 0.35 < math.fsum(weights[name] for name in quantized) <= 1 / 1.4**2 + 1e-9
