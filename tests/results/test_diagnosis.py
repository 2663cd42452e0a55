"""The cause of a loss is told from what a layer reads, and from its weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_graph, calibrate_and_save, normal, save, tf1

import amct_tensorflow as amct
from amct_tensorflow import FloatModel
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.range_shape import RangeShape
from amct_tensorflow.results.comparison.comparison_text import dump_comparison, format_comparison
from amct_tensorflow.results.comparison.correspondence import read_mapped_model
from amct_tensorflow.results.comparison.layer_comparison import compare_models
from amct_tensorflow.results.diagnosis import Symptoms, find_causes, most_damaging, spread_of_weights
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

# Values of a normal distribution, clipped at 4 standard deviations: 32 steps of 1 / 32.
HEALTHY = Symptoms(ActivationFactors(1 / 32, 0), RangeShape(10**6, 0.0, 1.0, 2.0), False, True, None)


def kinds(symptoms):
    return [cause.kind for cause in find_causes(symptoms)]


def with_shape(**changes):
    return replace(HEALTHY, shape=replace(HEALTHY.shape, **changes))


def test_nothing_stands_out():
    assert kinds(HEALTHY) == ["unknown"]
    assert kinds(replace(HEALTHY, shape=None)) == ["unknown"]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ({"deviation": 0.2}, "tails"),  # 6.4 steps
        ({"deviation": 0.2, "channel_spread": 4.0}, "outlier_channels"),
        ({"channel_spread": 4.0}, "outlier_channels"),  # however many steps large channels have
        ({"channel_spread": 3.9}, "unknown"),
        ({"deviation": 0.4, "mean": -3.0}, "far_mean"),
        ({"count": 500}, "few_values"),
        ({"deviation": 0.0}, "constant"),
        ({"deviation": 1e-9, "mean": 5.0}, "constant"),
    ],
)
def test_the_kind_of_range(shape, kind):
    assert kinds(with_shape(**shape)) == [kind]


UNSIGNED = ActivationFactors(1 / 32, -128)  # 0 to 255 / 32


@pytest.mark.parametrize(
    ("grid", "mean", "seen", "told"),
    [
        (UNSIGNED, 0.1, (-0.3, 3.9),
         "a long tail on one side, 19 standard deviations above its mean, and 0.5 below it"),
        (replace(UNSIGNED, offset=127), -0.1, (-3.9, 0.1),
         "a long tail on one side, 19 standard deviations below its mean, and 0.5 above it"),
        (replace(UNSIGNED, offset=0), 0.0, (-3.0, 9.0),
         "long tails on both sides, 15 standard deviations below its mean and 20 above it"),
        (UNSIGNED, 0.1, None, "What it reads has long tails: 6.4 steps"),
    ],
)  # fmt: skip
def test_on_which_side_tails_are(grid, mean, seen, told):
    """With a deviation of 0.2; what is beyond the range is clipped, and reaches no farther."""
    (cause,) = find_causes(replace(with_shape(deviation=0.2, mean=mean), grid=grid, seen=seen))
    assert cause.kind == "tails" and told in cause.detail and "16 bits" in cause.remedy


@pytest.mark.parametrize(
    ("seen", "deviation", "expected"),
    [
        ((0.0, 3.9), 1.0, ["unused_levels"]),
        ((-3.9, 0.0), 1.0, ["unused_levels"]),
        ((0.0, 3.9), 0.3, ["unused_levels"]),  # 9.6 steps, and 19.2 with all levels
        ((0.0, 3.9), 0.2, ["unused_levels", "tails"]),  # 6.4 and 12.8
        ((-0.01, 3.9), 1.0, ["unused_levels"]),  # which is rounded to 0
        ((-0.1, 3.9), 1.0, ["unknown"]),
    ],
)
def test_levels_on_a_side_where_there_is_nothing(seen, deviation, expected):
    symptoms = replace(with_shape(deviation=deviation, mean=0.5), seen=seen)
    assert kinds(symptoms) == expected
    assert kinds(replace(symptoms, is_product=True))[0] != "unused_levels"
    if expected[0] == "unused_levels":
        cause = find_causes(symptoms)[0]
        assert "half of its levels" in cause.detail and "asymmetric: true" in cause.remedy
        assert ("nothing below 0" in cause.detail) == (seen[1] > 0)


def test_several_causes():
    few = with_shape(count=10, deviation=0.1)
    assert kinds(replace(few, weight_spread=9.0)) == ["one_weight_scale", "few_values", "tails"]


def test_balancing_is_the_remedy_where_it_was_switched_off():
    outliers = with_shape(deviation=0.1, channel_spread=50.0)
    remedies = {may: find_causes(replace(outliers, may_balance=may))[0].remedy for may in (True, False)}
    assert "input_balancing" in remedies[False] and "16 bits" in remedies[True]
    (cause,) = find_causes(replace(outliers, may_balance=False, is_balanced=True))
    assert "16 bits" in cause.remedy


def test_activations_of_16_bits_have_steps_enough():
    wide = replace(with_shape(deviation=0.01), grid=ActivationFactors(1 / 32, 0, 16))
    assert kinds(wide) == ["unknown"]


def test_no_remedy_is_what_a_layer_has_already_or_cannot_have():
    """Activations of 16 bits do not get wider, and a product of two computed operands has no such form."""
    wide = replace(HEALTHY, grid=ActivationFactors(1 / 32, 0, 16))
    products = [replace(with_shape(**shape), is_product=True)
                for shape in ({}, {"deviation": 0.2}, {"deviation": 0.4, "mean": -3.0},
                              {"deviation": 0.4, "channel_spread": 20.0})]  # fmt: skip
    for symptoms in (wide, *products):
        (cause,) = find_causes(symptoms)
        assert cause.remedy == "Leave it in float (quant_enable: false)."
    assert "8 bits" not in find_causes(wide)[0].detail


def test_what_one_step_for_all_channels_loses():
    """20 times as much error is 26 dB."""
    (cause,) = find_causes(with_shape(channel_spread=20.0))
    assert "one step for all loses 26 dB" in cause.detail


def test_spread_of_weights():
    """The peaks are 1, 2, 2, 16."""
    assert spread_of_weights([-1, -2, 0, -16], [0.5, 1, 2, 3]) == 8
    assert spread_of_weights([0, 0], [0, 0]) is None


def test_most_damaging():
    damages = {"a": 1.0, "b": 6.0, "c": 0.0, "d": 3.0, "e": float("nan"), "f": float("inf")}
    assert list(most_damaging(damages.items())) == [("b", 0.6), ("d", 0.3)]
    assert len(list(most_damaging((index, 1.0) for index in range(100)))) == 8
    assert list(most_damaging([("a", 0.0)])) == []


def net():
    """A dense layer that reads one channel with values a hundred times as large; another that reads a far mean."""
    x = tf1.placeholder(tf.float32, [None, 16], name="x")
    y = tf.matmul(x, WEIGHTS, name="wide_channel")
    tf.matmul(tf.sigmoid(y) * 0.01 + 5.0, normal((8, 4), 2), name="far")


WEIGHTS = normal((16, 8), 1) * np.append(np.full((15, 1), 1.0), [[0.01]], axis=0).astype(np.float32)
X = normal((512, 16), 3) * np.append(np.ones(15), 100).astype(np.float32)


def test_the_report_tells_the_cause(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = build_graph(net)
    model = save(graph.as_graph_def(), Path("float.pb"))
    amct.create_quant_config("config.json", graph)
    config = json.loads(Path("config.json").read_text())
    Path("config.json").write_text(json.dumps(config | {"input_balancing": False}))

    class Never(AutoCalibrationEvaluatorBase):
        """No other model is good enough."""

        def calibration(self, graph, outputs):
            self.evaluate(graph, outputs)

        def evaluate(self, graph, outputs):
            with tf1.Session(graph=graph) as session:
                return float(np.square(session.run(f"{outputs[0]}:0", {"x:0": X})).mean())

        def metric_eval(self, original_metric, new_metric):
            return original_metric == new_metric, abs(original_metric - new_metric)

    amct.accuracy_based_auto_calibration(str(model), ["far"], "record.txt", "config.json", "results/net", Never())
    (path,) = Path("results").glob("*report.json")
    found = {each["layer"]: each for each in json.loads(path.read_text())["diagnoses"]}
    assert found["wide_channel"]["kind"] == "outlier_channels" and "input_balancing" in found["wide_channel"]["remedy"]
    assert "What is wrong, and what helps" in path.with_suffix(".html").read_text()


def quiet_channels():
    """A depthwise layer whose large weights read small channels, as where a BatchNorm was folded into it.

    The values of large channels have many steps, and so have most of all values.
    """
    x = tf1.placeholder(tf.float32, [None, 6, 6, 8], name="x")
    tf.nn.depthwise_conv2d(x, QUIET_WEIGHTS, [1, 1, 1, 1], "SAME", name="depthwise")


QUIET = np.array([8, 8, 8, 8, 0.05, 0.05, 0.05, 0.05], np.float32)
QUIET_WEIGHTS = normal((3, 3, 8, 1), 5) / QUIET.reshape(1, 1, 8, 1)


def test_small_channels_that_weigh_much_are_a_cause_and_16_bits_help(tmp_path, monkeypatch):
    """All channels weigh the same behind the layer, but four of them have half a step for a standard deviation."""
    monkeypatch.chdir(tmp_path)
    x = normal((64, 6, 6, 8), 6) * QUIET
    calibrate_and_save(build(quiet_channels), x, "depthwise")
    model = FloatModel.load("float.pb", ["depthwise"])

    def compared():
        found = compare_models(model, read_mapped_model("results/net_quantized.pb"), ["depthwise"], [{"x": x}])
        return found.layers[0].alone.sqnr, [cause for _, cause in found.diagnoses]

    before, (cause,) = compared()
    assert before < 15 and cause.kind == "outlier_channels" and "num_bits: 16, asymmetric: false" in cause.remedy
    wide = "common_config: {ifmr_quantize: {dst_type: INT16}}"
    calibrate_and_save(build(quiet_channels), x, "depthwise", simplified=wide)
    after, _ = compared()
    assert after > before + 20


def test_compare_tells_the_cause(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calibrate_and_save(build(net), X, "far")
    model = FloatModel.load("float.pb", ["far"])
    comparison = compare_models(model, read_mapped_model("results/net_quantized.pb"), ["far"], [{"x": X}])
    assert ("far", "far_mean") in [(each.layer.name, cause.kind) for each, cause in comparison.diagnoses]
    assert "far: What it reads lies around 5.01, but 0 has to be in its range" in format_comparison(comparison, "data")
    (told, *_) = json.loads(dump_comparison(comparison, "a.pb", "b.pb", {}))["diagnoses"]
    assert told.keys() == {"layer", "kind", "detail", "remedy"}
