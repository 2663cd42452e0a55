"""What goes on beside evaluations: nothing of the user's, and nothing that changes a result."""

import gc
import signal
import threading
import time
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from graphs import small_net, tf1
from test_auto_calibration import IMAGES, OUTPUT, Evaluator, calibrate, prepare

from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.log import LOG_FILE_HANDLER, log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantization import make_quant_config
from amct_tensorflow.quantize.calibration import calibrator as calibrators
from amct_tensorflow.quantize.calibration import layer_moments
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.calibration.feed import Feed
from amct_tensorflow.quantize.calibration.layer_analysis import LayerAnalyser, LayerAnalysis
from amct_tensorflow.quantize.calibration.observers import ActivationObservers
from amct_tensorflow.results.report.plots import sorted_figure
from amct_tensorflow.search import beginning, runner, start
from amct_tensorflow.search.beginning import Beginning
from amct_tensorflow.search.sensitivity.measures import CosineSimilaritySensitivity


class Calls:
    """The user's functions that were called, and whether one ever ran beside an evaluation."""

    def __init__(self):
        self.names = []
        self.running = []
        self.overlap = False

    @contextmanager
    def call(self, name):
        self.names.append(name)
        self.running.append(name)
        self.overlap |= len(self.running) > 1 and "evaluate" in self.running
        time.sleep(0.01)
        yield
        self.running.remove(name)


class Noted(Evaluator):
    """Notes its calls; the calibration may go on beside its evaluations, if it is told so."""

    calibration_may_overlap = False

    def __init__(self, calls, may_overlap=True):
        super().__init__()
        self.calls = calls
        self.calibration_may_overlap = may_overlap

    def calibration(self, graph, outputs):
        with self.calls.call("calibration"):
            super().calibration(graph, outputs)

    def evaluate(self, graph, outputs):
        with self.calls.call("evaluate"):
            return super().evaluate(graph, outputs)


class NotedSensitivity(CosineSimilaritySensitivity):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def compare(self, data, other):
        with self.calls.call("compare"):
            return super().compare(data, other)

    def layer_comparison(self):
        return self


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path)


def test_batches_are_run_first_and_the_rest_goes_on_beside_the_evaluation(arguments):
    calls = Calls()
    calibrate(arguments, Noted(calls))
    assert calls.names == ["calibration", "evaluate", "evaluate"] and not calls.overlap


def test_a_large_model_is_evaluated_before_it_is_calibrated(arguments, monkeypatch):
    """Its copies would take memory beside those of the evaluation."""
    monkeypatch.setattr(calibrators, "_SMALL_BYTES", 0)
    calls = Calls()
    calibrate(arguments, Noted(calls))
    assert calls.names == ["evaluate", "calibration", "evaluate"]


class Holding(Noted):
    """Notes before each evaluation how many graphs that were prepared for calibration are still alive."""

    def __init__(self, calls, prepared):
        super().__init__(calls)
        self.prepared = prepared
        self.held = []

    def evaluate(self, graph, outputs):
        gc.collect()
        self.held.append(sum(one() is not None for one in self.prepared))
        return super().evaluate(graph, outputs)


@pytest.mark.parametrize(("smallest", "expected"), [(0, [0, 0]), (1 << 26, [1, 0])], ids=["large", "small"])
def test_nothing_that_is_prepared_of_a_large_model_takes_memory_while_it_is_evaluated(
    arguments, monkeypatch, smallest, expected
):
    prepared, prepare_calibration = [], beginning.prepare_calibration

    def note(model, *arguments, **options):
        prepared.append(weakref.ref(model.graph))
        return prepare_calibration(model, *arguments, **options)

    monkeypatch.setattr(calibrators, "_SMALL_BYTES", smallest)
    monkeypatch.setattr(beginning, "prepare_calibration", note)
    evaluator = Holding(Calls(), prepared)
    result = calibrate(arguments, evaluator)
    assert evaluator.held == expected and len(prepared) == (2 if smallest == 0 else 1)
    assert result.loss == calibrate(arguments, Noted(Calls())).loss


def test_a_sensitivity_of_the_users_is_never_asked_beside_an_evaluation(arguments):
    calls = Calls()
    calibrate(arguments, Noted(calls), sensitivity=NotedSensitivity(calls))
    assert calls.names[0] == "evaluate" and "compare" in calls.names and not calls.overlap


def test_any_other_evaluator_is_called_in_the_order_of_the_original_toolkit(arguments):
    calls = Calls()
    calibrate(arguments, Noted(calls, may_overlap=False))
    assert calls.names == ["evaluate", "calibration", "evaluate"]


@pytest.mark.parametrize("may_overlap", [True, False])
def test_figures_are_drawn_beside_the_evaluation_if_the_user_draws_nothing_meanwhile(arguments, figures, may_overlap):
    sorted_figure.cache_clear()
    with figures():
        calibrate(arguments, Noted(Calls(), may_overlap))
    found = sorted_figure.cache_info()
    assert (found.misses, found.hits) == (1, int(may_overlap))


def test_an_evaluator_that_fails_is_told_of_before_the_calibration_has_ended(arguments, monkeypatch):
    class Broken(Evaluator):
        calibration_may_overlap = True

        def evaluate(self, graph, outputs):
            raise EvaluatorError("no connection")

    corrected = []
    observe = ActivationObservers.observe

    def slowly(self, parts):
        observe(self, parts)
        time.sleep(0.5)

    monkeypatch.setattr(ActivationObservers, "observe", slowly)
    monkeypatch.setattr(layer_moments, "round_to_second_moments", lambda *_: corrected.append(1))
    with pytest.raises(EvaluatorError, match="no connection"):
        calibrate(arguments, Broken())
    assert not corrected


def test_an_interruption_does_not_wait_for_the_calibration_to_end(arguments, monkeypatch):
    evaluated, stopped, corrected = threading.Event(), threading.Event(), []
    look, stop, begin, main = Calibrator._look, Calibrator.stop, Beginning.start, threading.get_ident()

    def interrupts(self):
        look(self)
        assert evaluated.wait(60)
        time.sleep(0.3)
        signal.pthread_kill(main, signal.SIGINT)
        assert stopped.wait(60)

    monkeypatch.setattr(Calibrator, "_look", interrupts)
    monkeypatch.setattr(Calibrator, "stop", lambda self: (stop(self), stopped.set()))
    monkeypatch.setattr(Beginning, "start", lambda self: evaluated.set() or begin(self))
    monkeypatch.setattr(layer_moments, "round_to_second_moments", lambda *_: corrected.append(1))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process of the tests may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            calibrate(arguments, Noted(Calls()))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert not corrected


def with_late_input():
    small_net()
    late = tf1.placeholder(tf.float32, [None, 1], name="late")
    tf.add(tf1.get_default_graph().get_tensor_by_name(f"{OUTPUT}:0"), late, name="sum")


class WithLateInput(Noted):
    def predict(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return session.run("sum:0", {"input:0": IMAGES, "late:0": np.zeros((len(IMAGES), 1))})

    def calibration(self, graph, outputs):
        self.predict(graph, outputs)


def test_what_only_the_outputs_need_may_arrive_late(tmp_path, monkeypatch):
    """The first quantized model is tried with it, however soon it was made."""
    monkeypatch.chdir(tmp_path)
    arguments = {**prepare(tmp_path, with_late_input), "outputs": ["sum"]}
    computed, tried = threading.Event(), []
    compute, keep = Calibrator._compute, Feed._keep

    def computes(self):
        compute(self)
        computed.set()

    def keeps(self, source, value):
        if source == "late:0":
            assert computed.wait(60)
            time.sleep(0.3)
        keep(self, source, value)

    monkeypatch.setattr(Calibrator, "_compute", computes)
    monkeypatch.setattr(Feed, "_keep", keeps)
    monkeypatch.setattr(start, "IntegerExecution", lambda outputs, batches, **_: tried.extend(batches))
    calibrate(arguments, WithLateInput(Calls()))
    assert [batch.keys() for batch in tried] == [{"input:0", "late:0"}]


def test_an_error_of_the_measurement_ends_the_run(arguments, monkeypatch):
    def fail(*_):
        raise EvaluatorError("cannot be measured")

    monkeypatch.setattr(LayerAnalyser, "analyse", fail)
    with pytest.raises(EvaluatorError, match="cannot be measured"):
        calibrate(arguments, Evaluator())


def test_products_follow_from_shapes_and_else_from_what_was_counted(arguments, monkeypatch):
    model = FloatModel.load(arguments["model_file"], arguments["outputs"])
    layers = make_quant_config(model).enabled_layers()
    calibration = SimpleNamespace(
        factors=dict.fromkeys(layers), analyses={name: LayerAnalysis(1.0, 80) for name in layers}, images=8
    )
    nodes = [model.view.nodes[layer.name] for layer in model.layers]
    expected = sum(runner.multiply_accumulates(model.view, node) for node in nodes)
    assert runner._products_per_image(calibration, model) == expected > 12 * 12 * 27
    monkeypatch.setattr(runner, "multiply_accumulates", lambda *_: None)
    assert runner._products_per_image(calibration, model) == 10 * len(layers)


class InterruptedWhileItLogs(Noted):
    """Is interrupted in the evaluation of the quantized model, at the only place where a handler keeps its lock."""

    def evaluate(self, graph, outputs):
        if "evaluate" in self.calls.names:
            LOG_FILE_HANDLER.acquire()
            raise KeyboardInterrupt
        return super().evaluate(graph, outputs)


def test_an_interruption_inside_a_log_handler_ends_the_run(arguments, monkeypatch):
    """What goes on beside the evaluation logs, too, and the run waits for it."""
    keep = runner._keep

    def keeps(calibration, state):
        time.sleep(0.5)
        keep(calibration, state)
        log_for().info("kept")

    monkeypatch.setattr(runner, "_keep", keeps)
    ended = []

    def run():
        try:
            calibrate(arguments, InterruptedWhileItLogs(Calls()))
        except KeyboardInterrupt:
            ended.append("interrupted")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert ended == ["interrupted"]
