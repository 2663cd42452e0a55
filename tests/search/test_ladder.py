"""Searches on a ladder of int8, activations of 16 bits, and float."""

import json
import math
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import (
    A16W8,
    FLOAT,
    INT8,
    AutoCalibrationStrategyBase,
    Device,
    PredictiveSearch,
    SearchKnowledge,
)
from graphs import PLAIN, SMALL_NET_LAYERS, normal, tf1
from test_auto_calibration import calibrate, contents, edit_config, prepare
from test_sharing import Sharing

import amct_tensorflow as amct
from amct_tensorflow.devices.device_table import GENERIC
from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.model.model_file import load_graph
from amct_tensorflow.quantize.record.record_file import read_record
from amct_tensorflow.results.report.report_json import read_report

SEARCH = {"strategy": "PredictiveSearch", "sensitivity": "OutputDivergence"}
OPTIONS = {**SEARCH, "device": "generic", "raise_costless": False}


class Model:
    """Per layer its score on the rungs below float; the loss is the sum of scores."""

    def __init__(self, scores, ladder=GENERIC.rungs, shares=None):
        self.scores = {name: [*of_rungs, 0.0] for name, of_rungs in scores.items()}
        self.ladders = {
            name: ladder if len(of_rungs) == 2 else (ladder[0], ladder[-1]) for name, of_rungs in scores.items()
        }
        self.shares = shares or {name: 1 / len(scores) for name in scores}
        self.evaluated = []

    def score(self, quantized):
        found = (self.scores[name][0] if name in self.scores else self.scores[name.removesuffix(" in 16 bits")][1]
                 for name in sorted(quantized))  # fmt: skip
        return math.fsum(found)

    def loss(self, configuration):
        rungs = [(name, self.rung(name, decided)) for name, decided in configuration.items()]
        self.evaluated.append({name: rung.name for name, rung in rungs if rung is not INT8})
        return math.fsum(self.scores[name][self.ladders[name].index(rung)] for name, rung in rungs)

    def rung(self, name, decided):
        return {True: self.ladders[name][0], False: self.ladders[name][-1]}.get(decided, decided)

    def search(self, target):
        """Plays the engine; returns the layers that are raised in the end, with their rungs."""
        strategy = PredictiveSearch()
        strategy.prepare(
            SearchKnowledge(lambda sets, base: [self.score(each) for each in sets], self.shares, lambda: target,
                            ladders=self.ladders)
        )  # fmt: skip
        strategy.initialize({name: math.exp(-scores[0]) for name, scores in self.scores.items()})
        decision = {"stop_flag": False, "roll_back_config": dict.fromkeys(self.scores, True)}
        while not decision["stop_flag"]:
            assert len(self.evaluated) < 12, "the search does not end"
            loss = self.loss(decision["roll_back_config"])
            decision = strategy.update_quant_config((loss <= target, loss))
        return {name: self.rung(name, decided).name for name, decided in decision["roll_back_config"].items()
                if decided is not True}  # fmt: skip


LEAST, MOST = sys.float_info.min, sys.float_info.max
ONE, TWO = LEAST * (1 + sys.float_info.epsilon), LEAST * (1 + 2 * sys.float_info.epsilon)


@pytest.mark.parametrize("costs", [(1, 2, 4), (LEAST, ONE, TWO), (LEAST, 1, MOST), (MOST / 4, MOST / 2, MOST)], ids=str)
def test_a_layer_goes_as_high_as_it_must(costs):
    """In 16 bits, a is as good as in float, while b gains nothing from them, whatever the costs are."""
    scores = {"a": [1.0, 0.001], "b": [0.9, 0.9], "c": [0.01, 0.001], "d": [0.01, 0.001]}
    device = Device("npu", rungs=tuple(rung.at(cost) for rung, cost in zip(GENERIC.rungs, costs, strict=True)))
    model = Model(scores, device.rungs)
    assert model.search(target=0.1) == {"a": "a16w8", "b": "float"}
    assert len(model.evaluated) <= 3


def test_where_everything_gains_alike_nothing_is_put_in_float():
    model = Model({name: [1.0, 0.01] for name in "abcdefgh"})
    raised = model.search(target=1.5)
    assert set(raised.values()) == {"a16w8"} and len(raised) == 7
    assert len(model.evaluated) <= 3


def test_what_16_bits_do_not_reach_goes_on_to_float():
    model = Model({"a": [1.0, 0.4], "b": [1.0, 0.4], "c": [0.1, 0.01]})
    raised = model.search(target=0.5)
    assert sorted(raised.values()) in (["a16w8", "float"], ["a16w8", "a16w8", "float"])
    assert model.loss({name: {"a16w8": A16W8, "float": False}.get(raised.get(name), True) for name in "abc"}) <= 0.5


def test_the_costs_of_the_device_decide():
    """16 bits leave a fifth of the damage: they are worth half of what float costs, and hardly 95 % of it."""
    scores = {name: [1.0, 0.2] for name in "abcdefghij"}
    cheap = Model(scores, (INT8, A16W8.at(1.5), FLOAT.at(2))).search(target=5.9)
    dear = Model(scores, (INT8, A16W8.at(1.95), FLOAT.at(2))).search(target=5.9)
    assert set(cheap.values()) == {"a16w8"} and list(dear.values()).count("float") >= 4


class Boxes(Model):
    """Its loss moves in steps: next to none where the score is at most 3.2, else at least 14."""

    def loss(self, configuration):
        score = super().loss(configuration)
        return 14 + 3 * score if score > 3.2 else 1.0


def test_what_costs_less_than_a_plan_is_tried_before_it():
    """By the first two points, seven layers had to go to float; all in 16 bits cost half of that, and satisfy."""
    model = Boxes({name: [1.0, 0.3] for name in "abcdefghij"})
    assert model.search(target=2.0) == dict.fromkeys("abcdefghij", "a16w8")
    assert len(model.evaluated) == 2


def test_a_layer_without_the_rung():
    model = Model({"product": [1.0], "conv": [0.5, 0.01]})
    assert model.search(target=0.2) == {"product": "float", "conv": "a16w8"}


def test_an_unreachable_target_ends_in_float():
    model = Model({"a": [1.0, 0.5], "b": [1.0, 0.5]})
    assert model.search(target=-1.0) == {"a": "float", "b": "float"}


def test_where_no_quantized_model_satisfies_the_best_one_is_tried():
    """All layers in 16 bits miss the target, too, but are better than those in 8, which are all that is known."""
    model = Model({"a": [1.0, 0.3], "b": [1.0, 0.3]})
    assert set(model.search(target=0.0).values()) == {"float"}
    assert {"a": "a16w8", "b": "a16w8"} in model.evaluated


@pytest.fixture
def task(workdir):
    """The algorithms of the original, whose loss in 8 bits is far from that in 16; and a loss between these."""
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    whole = calibrate(arguments, Sharing()).loss
    return arguments, 0.5 * whole


def bits_of(graph):
    """Returns how many quantizers of a model yield 8 and 16 bits."""
    kinds = [each.get_attr("quant_bits") for each in graph.get_operations() if each.type == "AscendQuant"]
    return kinds.count(8), kinds.count(16)


def test_a_run_raises_layers_and_says_so_everywhere(task, messages, workdir):
    arguments, limit = task
    evaluator = Sharing(limit)
    result = calibrate(arguments, evaluator, **OPTIONS)
    wide = [name for name, rung in result.rungs.items() if rung == "a16w8"]
    assert result.target_met and wide and result.rungs.keys() == set(SMALL_NET_LAYERS)
    assert {name for name, kept in result.roll_back_config.items() if not kept} == {
        name for name, rung in result.rungs.items() if rung == "float"
    }
    # The model that was evaluated is the one that was saved, and the files tell of it.
    graph = load_graph(result.model_file)
    assert evaluator.evaluate(graph, arguments["outputs"]) == result.saved_metric
    assert bits_of(graph)[1] == len(wide)
    final = json.loads(Path("out/accuracy_based_auto_calibration_final_config.json").read_text())
    activations = {name: final[name]["activation_quant_params"] for name in SMALL_NET_LAYERS}
    assert {name for name, each in activations.items() if each.get("num_bits") == 16} == set(wide)
    factors = read_record(Path("out/record.txt"))
    assert {name for name, each in factors.items() if each.num_bits == 16} == set(wide)
    history = json.loads(Path("amct_log/accuracy_based_auto_calibration_record.json").read_text())
    assert history[0]["rungs"] == dict.fromkeys(history[0]["roll_back_config"], "int8")
    assert result.rungs in [each["rungs"] for each in history]
    ranking = json.loads(Path("out/accuracy_based_auto_calibration_ranking_information.json").read_text())
    assert {name: rung for name, _, rung in ranking} == result.rungs
    report = read_report(Path("out"))
    rows = {layer.name: layer for layer in report.layers}
    assert {name: rows[name].rung for name in wide} == dict.fromkeys(wide, "a16w8")
    assert {rows[name].activation.num_bits for name in wide} == {16} and rows[wide[0]].precision == "16 bits"
    saved = next(each for each in report.evaluations if each.saved)
    counts = {name: layer.multiply_accumulates for name, layer in rows.items()}
    assert list(saved.in_16_bits) == sorted(wide)
    assert saved.wide_mac_share == pytest.approx(sum(counts[name] for name in wide) / sum(counts.values()))
    assert "16 bits" in Path("out/report.html").read_text()
    assert any(f"layers in 16 bits       | {len(wide)}, " in line for line in messages)
    assert report.reproduction.settings["device"] == "generic (int8 1, a16w8 2, float 4)"


def test_record_and_configuration_make_the_same_model_again(task):
    arguments, limit = task
    result = calibrate(arguments, Sharing(limit), **OPTIONS)
    assert "a16w8" in result.rungs.values()
    amct.save_model(arguments["model_file"], arguments["outputs"], "out/record.txt", "again")
    assert Path("again_quantized.pb").read_bytes() == result.model_file.read_bytes()
    final = "out/accuracy_based_auto_calibration_final_config.json"
    whole = calibrate({**arguments, "config_file": final, "save_dir": "more/net"}, Sharing())
    quantized = {name: rung for name, rung in result.rungs.items() if rung != "float"}
    assert whole.evaluations == 2 and whole.rungs == quantized


def test_int8_and_float_alone_unless_asked(task):
    arguments, limit = task
    result = calibrate(arguments, Sharing(limit), **SEARCH)
    assert set(result.rungs.values()) == {"int8", "float"}
    assert "rungs" not in Path("amct_log/accuracy_based_auto_calibration_record.json").read_text()


def test_the_strategy_of_the_original_knows_float_alone(task):
    arguments, limit = task
    result = calibrate(arguments, Sharing(limit), device="generic", raise_costless=False)
    assert set(result.rungs.values()) == {"int8", "float"}


def test_workers_find_the_same(task):
    arguments, limit = task
    calibrate(arguments, Sharing(limit), **OPTIONS)
    expected = contents(Path())
    calibrate(arguments, Sharing(limit), num_workers=2, **OPTIONS)
    for path, content in contents(Path()).items():
        if path.suffix in {".pb", ".txt"} or "record" in path.name:
            assert content == expected[path], path


def small_head():
    """Convolutions, and a small product of what they yield beside a large value that it hardly uses."""
    x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
    for name, shape in (("one", (3, 3, 3, 16)), ("two", (3, 3, 16, 16)), ("three", (3, 3, 16, 16))):
        x = tf.nn.relu(tf1.nn.conv2d(x, 0.2 * normal(shape, len(name)), [1, 1, 1, 1], "SAME", name=name))
    mean = tf.reduce_mean(x, [1, 2])
    large = 60 * tf.reduce_max(mean, 1, keepdims=True)
    weights = np.concatenate([normal((16, 5), 1), np.full((1, 5), 1e-3, np.float32)])
    tf.nn.softmax(tf.matmul(tf.concat([mean, large], 1), weights, name="head"), name="probabilities")


HEADED = ["one", "two", "three", "head"]


@pytest.fixture
def headed(workdir):
    arguments = prepare(workdir, small_head)
    edit_config(arguments, **PLAIN)
    return arguments


@pytest.mark.parametrize(
    ("options", "raised"),
    [({}, False), ({"device": "generic"}, True), ({"raise_costless": True}, True),
     ({"device": "generic", "raise_costless": False}, False)],
)  # fmt: skip
def test_what_costs_nothing_is_in_float_from_the_start(headed, messages, options, raised):
    result = calibrate(headed, Sharing(), **options)
    assert result.evaluations == 2
    assert result.rungs == {**dict.fromkeys(HEADED, "int8"), "head": "float" if raised else "int8"}
    assert any("1 layer is in float from the start, as that costs 0.01" in line for line in messages) is raised
    row = next(layer for layer in read_report(Path("out")).layers if layer.name == "head")
    assert row.why == ("costless" if raised else None)


def test_what_costs_nothing_stays_in_float_through_the_search(headed):
    limit = 0.8 * calibrate(headed, Sharing(), device="generic").loss
    result = calibrate(headed, Sharing(limit), **SEARCH, device="generic")
    assert result.evaluations > 2 and result.rungs["head"] == "float"
    again = calibrate(headed, Sharing(limit), **SEARCH, device="generic", resume=True)
    assert again.rungs == result.rungs and again.saved_metric == result.saved_metric


def test_a_run_goes_on_from_any_rung(task):
    arguments, limit = task

    class Interrupting(Sharing):
        left = 10

        def evaluate(self, graph, outputs):
            if not self.left:
                raise KeyboardInterrupt
            type(self).left -= 1
            return super().evaluate(graph, outputs)

    whole = calibrate(arguments, Interrupting(limit), **OPTIONS)
    saved = Path("out/net_quantized.pb").read_bytes()
    assert whole.evaluations >= 3
    for before in range(2, whole.evaluations):
        Interrupting.left = before
        with pytest.raises(KeyboardInterrupt):
            calibrate(arguments, Interrupting(limit), **OPTIONS)
        Interrupting.left = whole.evaluations - before
        again = calibrate(arguments, Interrupting(limit), resume=True, **OPTIONS)
        assert Interrupting.left == 0  # nothing was evaluated twice
        assert again.rungs == whole.rungs and Path("out/net_quantized.pb").read_bytes() == saved


class Chooses(AutoCalibrationStrategyBase):
    """Puts every layer on one rung."""

    def __init__(self, rung):
        self.rung = rung

    def initialize(self, ranking_info):
        self.names = list(ranking_info)

    def update_quant_config(self, metric_eval):
        return {"stop_flag": True, "roll_back_config": OrderedDict.fromkeys(self.names, self.rung)}


def test_a_strategy_of_the_users_may_name_rungs(task):
    arguments, _ = task
    result = calibrate(arguments, Sharing(1e-9), **{**OPTIONS, "strategy": Chooses(A16W8)})
    assert result.rungs == dict.fromkeys(SMALL_NET_LAYERS, "a16w8")
    npu = Device("npu", rungs=(INT8, A16W8.at(3), FLOAT))
    result = calibrate(arguments, Sharing(1e-9), **{**OPTIONS, "strategy": Chooses(A16W8), "device": npu})
    assert result.rungs == dict.fromkeys(SMALL_NET_LAYERS, "a16w8")
    with pytest.raises(EvaluatorError, match=r"puts layer .* on a16w8; its rungs are int8, float"):
        calibrate(arguments, Sharing(1e-9), strategy=Chooses(A16W8))


def test_what_is_configured_in_16_bits_is_not_lowered(task):
    arguments, limit = task
    config = json.loads(Path(arguments["config_file"]).read_text())
    name = SMALL_NET_LAYERS[0]
    config[name]["activation_quant_params"].update(num_bits=16, asymmetric=False)
    edit_config(arguments, **{name: config[name]})
    for device in ("generic", None, Device("npu", rungs=(INT8, FLOAT.at(2)))):
        result = calibrate(arguments, Sharing(limit / 10), **{**OPTIONS, "device": device})
        assert result.rungs[name] in {"a16w8", "float"}
        history = json.loads(Path("amct_log/accuracy_based_auto_calibration_record.json").read_text())
        assert len(history) > 1


def test_a_search_that_knows_no_rungs_between_calibrates_none(task, messages):
    arguments, limit = task
    options = {"raise_costless": False, "strategy": "BinarySearch", "sensitivity": "OutputDivergence"}
    result = calibrate(arguments, Sharing(limit), device="generic", **options)
    assert not [line for line in messages if "16 bits" in line and "Calibrating" in line]
    assert calibrate(arguments, Sharing(limit), **options).rungs == result.rungs


class Chooses16BitsAndFloat(Chooses):
    """Puts the first layer in float, and the others on 16 bits."""

    def update_quant_config(self, metric_eval):
        rungs = [False, *[A16W8] * (len(self.names) - 1)]
        return {"stop_flag": True, "roll_back_config": OrderedDict(zip(self.names, rungs, strict=True))}


def test_the_report_offers_no_layer_what_it_has_got(task):
    """Where the target is met, what 16 bits have helped is left out; where it is missed, float is what is left."""
    arguments, limit = task
    for wanted in (1.6 * limit, 1e-9):
        result = calibrate(arguments, Sharing(wanted), **{**OPTIONS, "strategy": Chooses16BitsAndFloat(None)})
        told = read_report(Path("out/report.json")).diagnoses
        raised = [each for each in told if result.rungs[each.layer] == "a16w8"]
        assert told and bool(raised) == (not result.target_met) == (wanted < limit)
        assert {each.remedy for each in raised} <= {"Leave it in float (quant_enable: false)."}
