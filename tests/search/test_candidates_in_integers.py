"""Quantized models are evaluated in integers, which changes nothing but the time."""

import json
import time
from threading import Event

import pytest
import tensorflow as tf
from graphs import PLAIN, build_graph, normal
from test_auto_calibration import Evaluator, calibrate, edit_config, prepare

from amct_tensorflow.errors import ArgumentTypeError, EvaluatorError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.search import beginning, roll_back, runner
from amct_tensorflow.search.integers import integer_execution
from amct_tensorflow.search.integers.availability import why_no_integer_kernels, why_no_lite_kernels
from amct_tensorflow.search.integers.integer_execution import IntegerExecution
from amct_tensorflow.search.lite.lite_region import LiteRegion
from amct_tensorflow.search.roll_back import RollBack

OPTIONS = {"strategy": "BinarySearch", "sensitivity": "CosineSimilarity"}
KERNELS = {"_FusedQuantizedConv2D", "_FusedQuantizedDepthwiseConv2D", "PyFunc"}
needs_integers = pytest.mark.skipif(why_no_integer_kernels() is not None, reason=f"{why_no_integer_kernels()}")


class Watching(Evaluator):
    """Notes of every model whether it runs in integers."""

    def __init__(self, limit, interrupt_at=None):
        super().__init__(limit)
        self.in_integers = []
        self.interrupt_at = interrupt_at

    def evaluate(self, graph, outputs):
        if len(self.in_integers) == self.interrupt_at:
            raise KeyboardInterrupt
        self.in_integers.append(bool(KERNELS & {operation.type for operation in graph.get_operations()}))
        return super().evaluate(graph, outputs)


needs_lite = pytest.mark.skipif(why_no_lite_kernels() is not None, reason=f"{why_no_lite_kernels()}")
ONEDNN, LITE = (pytest.param(name, marks=mark) for name, mark in (("oneDNN", needs_integers), ("Lite", needs_lite)))
in_onednn, in_lite = (pytest.mark.parametrize("kernels", [each], indirect=True) for each in (ONEDNN, LITE))


@pytest.fixture(params=[ONEDNN, LITE])
def kernels(request, monkeypatch):
    """Whose kernels integers run in; on a processor without those of oneDNN, it is TensorFlow Lite's."""
    if request.param != "oneDNN":
        monkeypatch.setattr(integer_execution, "why_no_integer_kernels", lambda: "there is no VNNI here")
        monkeypatch.setattr(LiteRegion, "pays", lambda self: True)
    return request.param


@pytest.fixture
def task(workdir, monkeypatch, kernels):
    """A model of which layers have to be rolled back, and the loss that is allowed."""
    monkeypatch.setattr(runner, "_PRODUCTS_THAT_PAY", 0)
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    return arguments, calibrate(arguments, Evaluator()).loss * 0.3


def test_quantized_models_run_in_integers_and_what_is_saved_does_not(task, kernels, messages):
    """All but one: with only the depthwise layer and pooling quantized, nothing in it pays for oneDNN."""
    arguments, limit = task
    evaluator = Watching(limit)
    result = calibrate(arguments, evaluator, **OPTIONS)
    assert result.target_met and result.evaluations == len(evaluator.in_integers)
    assert evaluator.in_integers[0] is False and len(evaluator.in_integers) > 3
    said = "in integers, but for" if kernels == "oneDNN" else "in integers in TensorFlow Lite, but for"
    assert any(f"Quantized models run {said}" in line for line in messages)
    saved = tf.compat.v1.GraphDef.FromString(result.model_file.read_bytes())
    assert not KERNELS & {node.op for node in saved.node}
    report = json.loads(result.model_file.with_name("report.json").read_text("utf-8"))
    assert [each["in_integers"] for each in report["evaluations"]] == evaluator.in_integers[1:]
    in_float = [set(each["in_float"]) for each in report["evaluations"]]
    paying = {"conv/Conv2D", "project/Conv2D", "logits/Conv2D"}
    if kernels != "oneDNN":
        paying.add("depthwise/depthwise")
    assert [not paying <= names for names in in_float] == evaluator.in_integers[1:]


@needs_integers
def test_layers_are_checked_where_a_few_rows_make_no_window(messages):
    def make():
        x = tf.compat.v1.placeholder(tf.float32, [None, 8], name="x")
        y = tf.nn.relu(tf.matmul(x, normal((8, 8), 1), name="rows"))
        tf.identity(tf.matmul(tf.reshape(y, [-1, 24 * 8]), normal((24 * 8, 8), 2), name="windows"), name="out")

    model = FloatModel.of_graph(build_graph(make), ["out"])
    calibrator = Calibrator(model, default_config(model.layers, model.op_types), lambda _: None, for_search=True)
    with tf.compat.v1.Session(graph=model.graph) as session:
        session.run("out:0", {"x:0": normal((96, 8), 3)})
    found = calibrator.check_complete()
    plan = found.plan(calibrator.fused, ["out"])
    assert IntegerExecution(["out"], found.batches).model_of(quantize_graph(plan)) is not None
    assert any("Quantized models run in integers, but for 0 of 2 layers" in line for line in messages)


def test_both_ways_lead_to_the_same_metrics_and_the_same_model(task):
    arguments, limit = task
    fast = calibrate(arguments, Watching(limit), **OPTIONS)
    model, metrics = fast.model_file.read_bytes(), metrics_of(fast)
    evaluator = Watching(limit)
    exact = calibrate(arguments, evaluator, exact=True, **OPTIONS)
    assert not any(evaluator.in_integers)
    assert metrics == metrics_of(exact) and len(metrics) > 2
    assert model == exact.model_file.read_bytes()


def metrics_of(result):
    report = json.loads(result.model_file.with_name("report.json").read_text("utf-8"))
    return [(each["metric"], each["in_float"]) for each in report["evaluations"]]


def test_a_run_that_goes_on_evaluates_nothing_twice(task):
    arguments, limit = task
    evaluator = Watching(limit)
    whole = calibrate(arguments, evaluator, **OPTIONS)
    count = len(evaluator.in_integers)
    for at in (3, count - 1):
        first, second = Watching(limit, interrupt_at=at), Watching(limit)
        with pytest.raises(KeyboardInterrupt):
            calibrate(arguments, first, **OPTIONS)
        second.reference = first.reference
        result = calibrate(arguments, second, resume=True, **OPTIONS)
        assert len(first.in_integers) + len(second.in_integers) == count
        assert result.roll_back_config == whole.roll_back_config and result.loss == whole.loss


def test_a_run_that_goes_on_without_integers_evaluates_nothing_twice(task):
    arguments, limit = task
    first, second = Watching(limit, interrupt_at=3), Watching(limit)
    with pytest.raises(KeyboardInterrupt):
        calibrate(arguments, first, **OPTIONS)
    second.reference = first.reference
    calibrate(arguments, second, resume=True, exact=True, **OPTIONS)
    whole = Watching(limit)
    calibrate(arguments, whole, **OPTIONS)
    assert len(first.in_integers) + len(second.in_integers) == len(whole.in_integers)
    assert not any(second.in_integers)


def test_integers_that_cannot_be_checked_are_not_used(task, monkeypatch):
    arguments, limit = task
    monkeypatch.setattr(IntegerExecution, "model_of", lambda self, quantized: None)
    evaluator = Watching(limit)
    assert calibrate(arguments, evaluator, **OPTIONS).target_met and not any(evaluator.in_integers)


class Overlapping(Watching):
    """Evaluates the original model for as long as the first quantized model is made and checked."""

    calibration_may_overlap = True
    made = None

    def evaluate(self, graph, outputs):
        assert self.in_integers or self.made is None or self.made.wait(60)
        return super().evaluate(graph, outputs)


@pytest.fixture
def made(monkeypatch):
    """Set as soon as a model has been made ahead."""
    event, make_ahead = Event(), RollBack.make_ahead

    def make(self, *arguments):
        make_ahead(self, *arguments)
        event.set()

    monkeypatch.setattr(RollBack, "make_ahead", make)
    return event


@pytest.mark.parametrize("pays", [True, False])
def test_the_first_model_is_made_and_tried_beside_the_evaluation(task, made, pays, monkeypatch, messages):
    """Whether it is evaluated in integers depends on the evaluation, as does what is said of them."""
    arguments, limit = task
    monkeypatch.setattr(runner, "_PRODUCTS_THAT_PAY", 0 if pays else 10**12)
    messages.clear()
    number = []
    monkeypatch.setattr(roll_back, "quantize_graph", lambda plan: number.append(plan) or quantize_graph(plan))
    evaluator = Overlapping(limit * 100)
    evaluator.made = made
    result = calibrate(arguments, evaluator, **OPTIONS)
    assert result.target_met and len(number) == 1
    assert evaluator.in_integers == [False, pays]
    said = [line for line in messages if "calibrated on" in line or "run in integers" in line]
    assert ["calibrated on" in line for line in said] == [True, False][: 1 + pays]
    report = json.loads(result.model_file.with_name("report.json").read_text("utf-8"))
    beside = {each["stage"] for each in report["times"] if each["processor_seconds"] is None}
    assert {"making quantized models", "checking the integer kernels"} <= beside


def test_nothing_is_tried_in_integers_for_nothing(task, monkeypatch):
    """An evaluation that has ended tells whether that pays."""
    arguments, limit = task
    checked, start_ahead = [], beginning._start_ahead

    def late(prepared, start_after, evaluated):
        while not evaluated:
            time.sleep(0.01)
        return start_ahead(prepared, start_after, evaluated)

    monkeypatch.setattr(beginning, "_start_ahead", late)
    monkeypatch.setattr(runner, "_PRODUCTS_THAT_PAY", 10**12)
    monkeypatch.setattr(IntegerExecution, "_check", lambda *arguments: checked.append(arguments) or True)
    result = calibrate(arguments, Overlapping(limit * 100), **OPTIONS)
    assert result.target_met and not checked


def test_layers_that_cost_nothing_are_found_beside_an_evaluation_too(task):
    arguments, limit = task
    one, other = (
        calibrate(arguments, evaluator, raise_costless=True, **OPTIONS)
        for evaluator in (Watching(limit * 100), Overlapping(limit * 100))
    )
    assert one.rungs == other.rungs and one.loss == other.loss


def test_small_evaluations_are_simulated(task, monkeypatch, messages):
    arguments, limit = task
    monkeypatch.undo()
    evaluator = Watching(limit)
    assert calibrate(arguments, evaluator, **OPTIONS).target_met and not any(evaluator.in_integers)
    assert any("too small for integers to pay" in line for line in messages)


def test_exact_is_yes_or_no(task):
    with pytest.raises(ArgumentTypeError, match="exact"):
        calibrate(task[0], Watching(1.0), exact="yes")


class Elsewhere(Watching):
    """Runs models where only what TensorFlow itself has can be run."""

    def evaluate(self, graph, outputs):
        if "PyFunc" in {operation.type for operation in graph.get_operations()}:
            raise RuntimeError("there is no PyFunc here")
        return super().evaluate(graph, outputs)


@in_lite
def test_an_evaluator_that_cannot_run_a_graph_of_this_process_gets_the_simulation(task, messages):
    arguments, limit = task
    evaluator = Elsewhere(limit)
    result = calibrate(arguments, evaluator, **OPTIONS)
    metrics, model = metrics_of(result), result.model_file.read_bytes()
    assert result.target_met and not any(evaluator.in_integers)
    assert result.evaluations == len(evaluator.in_integers) > 2
    report = json.loads(result.model_file.with_name("report.json").read_text("utf-8"))
    assert not any(each["in_integers"] for each in report["evaluations"])
    (said,) = (line for line in messages if "simulated from here on" in line)
    assert "no PyFunc here" in said
    exact = calibrate(arguments, Watching(limit), exact=True, **OPTIONS)
    assert metrics == metrics_of(exact) and model == exact.model_file.read_bytes()


class Failing(Watching):
    """Fails whatever it evaluates, but for the original model."""

    def evaluate(self, graph, outputs):
        result = super().evaluate(graph, outputs)
        if len(self.in_integers) > 1:
            raise RuntimeError(f"call {len(self.in_integers)} fails")
        return result


@in_lite
def test_an_evaluator_that_fails_anyway_raises_its_own_error(task):
    arguments, limit = task
    evaluator = Failing(limit)
    with pytest.raises(EvaluatorError, match="call 3 fails"):
        calibrate(arguments, evaluator, **OPTIONS)
    assert evaluator.in_integers == [False, True, False]


@in_onednn
def test_an_evaluator_that_fails_with_a_graph_of_any_process_is_not_asked_again(task):
    """As what it has been given could be run anywhere."""
    arguments, limit = task
    evaluator = Failing(limit)
    with pytest.raises(EvaluatorError, match="call 2 fails"):
        calibrate(arguments, evaluator, **OPTIONS)
    assert evaluator.in_integers == [False, True]
