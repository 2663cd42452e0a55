"""The binary search and the similarity, by the examples of the specification."""

import json
import math

import numpy as np
import pytest
from amct_tensorflow.common.auto_calibration import (
    AutoCalibrationStrategyBase,
    BinarySearchStrategy,
    CosineSimilaritySensitivity,
    SensitivityBase,
)
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.devices.rungs import FLOAT, INT8
from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.results.result_files import dump_history, dump_ranking
from amct_tensorflow.search.evaluator import Evaluation, MetricEval
from amct_tensorflow.search.strategy import check_decision
from amct_tensorflow.search.trials import Trial


def probes(count, satisfied):
    """Plays the search of spec section 6.3; returns the numbers of layers tried, and the one it ends with."""
    strategy = BinarySearchStrategy()
    strategy.initialize({f"layer{index}": index / 100 for index in range(count)})
    decision = strategy.update_quant_config((False, 1.0))
    tried = []
    while not decision["stop_flag"]:
        rolled_back = sum(not kept for kept in decision["roll_back_config"].values())
        if rolled_back == count:
            return tried, rolled_back
        tried.append(rolled_back)
        decision = strategy.update_quant_config((satisfied(rolled_back), 1.0))
    return tried, sum(not kept for kept in decision["roll_back_config"].values())


@pytest.mark.parametrize(("needed", "tried", "result"), [(3, [4, 2, 3], 3), (6, [4, 6, 5], 6), (8, [4, 6, 7], 8)])
def test_examples_of_the_specification(needed, tried, result):
    assert probes(8, lambda k: k >= needed) == (tried, result)


@given(st.integers(1, 200), st.data())
def test_finds_the_smallest_number_in_few_steps(count, data):
    needed = data.draw(st.integers(1, count))
    tried, result = probes(count, lambda k: k >= needed)
    assert result == needed
    assert len(tried) <= count.bit_length()


def test_most_sensitive_layers_go_first_and_ties_keep_their_order():
    strategy = BinarySearchStrategy()
    strategy.initialize({"a": 0.9, "b": 0.1, "c": 0.9, "d": 0.5})
    configuration = strategy.update_quant_config((False, 1.0))["roll_back_config"]
    assert list(configuration.items()) == [("b", False), ("d", False), ("a", True), ("c", True)]


def test_no_layer_at_all_stops():
    strategy = BinarySearchStrategy()
    strategy.initialize({})
    assert strategy.update_quant_config((False, 1.0))["stop_flag"]


@pytest.mark.parametrize(
    ("data", "other", "expected"),
    [([1, 2], [1, 2], 1), ([1, 0], [0, 1], 0.5), ([1, 2], [-1, -2], 0), ([0, 0], [1, 2], 1), ([1, 2], [0, 0], 0)],
)
def test_cosine_similarity(data, other, expected):
    value = CosineSimilaritySensitivity().compare(np.array(data, np.float32), np.array(other, np.float32))
    assert value == pytest.approx(expected)


def test_cosine_similarity_is_precise_for_large_outputs():
    generator = np.random.default_rng(1)
    data = generator.normal(size=(3, 1000, 337)).astype(np.float32) + 100
    other = data + generator.normal(size=data.shape).astype(np.float32)
    a, b = data.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    expected = 0.5 + 0.5 * (a @ b) / np.sqrt((a @ a) * (b @ b))
    assert CosineSimilaritySensitivity().compare(data, other) == pytest.approx(expected, abs=2e-8)


def test_base_classes_do_nothing_themselves():
    with pytest.raises(NotImplementedError):
        SensitivityBase().compare(np.zeros(1), np.zeros(1))
    with pytest.raises(NotImplementedError):
        AutoCalibrationStrategyBase().initialize({})
    with pytest.raises(NotImplementedError):
        AutoCalibrationStrategyBase().update_quant_config((True, 0.0))


@pytest.mark.parametrize(
    "decision",
    [None, {}, {"stop_flag": True}, {"stop_flag": True, "roll_back_config": {"other": True}},
     {"stop_flag": True, "roll_back_config": []}, {"stop_flag": "False", "roll_back_config": {"layer": True}},
     {"stop_flag": np.array([1, 0]), "roll_back_config": {"layer": True}},
     *({"stop_flag": True, "roll_back_config": {"layer": wrong}}
       for wrong in (None, "a16w8", "False", math.nan, 2, np.array([1, 0])))],
)  # fmt: skip
def test_a_strategy_that_answers_nonsense_is_named(decision):
    with pytest.raises(EvaluatorError, match="BinarySearchStrategy"):
        check_decision(BinarySearchStrategy(), decision, {"layer": (INT8, FLOAT)})


def test_history_is_one_json_array():
    trials = [
        Trial({"a": INT8, "b": INT8}, Evaluation(0.1, None, None), MetricEval(False, 0.99)),
        Trial({"b": FLOAT, "a": INT8}, Evaluation(0.2, None, None), MetricEval(True, 0.364)),
    ]
    text = dump_history(trials)
    assert json.loads(text) == [
        {"roll_back_config": {"a": True, "b": True}, "metric_eval": [False, 0.99]},
        {"roll_back_config": {"b": False, "a": True}, "metric_eval": [True, 0.364]},
    ]
    assert '"metric_eval":[\n            false,' in text


def test_ranking_file_of_the_specification():
    assert dump_ranking({"b": 0.9998, "a": 0.9731}) == (
        '[\n    [\n        "a",\n        0.9731\n    ],\n    [\n        "b",\n        0.9998\n    ]\n]'
    )
