"""A search whose evaluations are shared out leaves what one without leaves; what cannot be shared out is refused."""

import pickle
import shutil
from collections import OrderedDict, deque
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase, AutoCalibrationStrategyBase
from graphs import PLAIN, normal, tf1
from test_auto_calibration import calibrate, contents, edit_config, prepare

from amct_tensorflow.errors import ArgumentTypeError, ArgumentValueError, EvaluatorError, WorkerError
from amct_tensorflow.log import LOG_DIR
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.results.report.report_json import read_report
from amct_tensorflow.search.roll_back import RollBack
from amct_tensorflow.search.workers.handshake import worker_handshake
from amct_tensorflow.search.workers.pool import Finished, Ready
from amct_tensorflow.search.workers.serialization import deserialize
from amct_tensorflow.search.workers.shares import Share

IMAGES = normal((20, 12, 12, 3), 50)
STATE = "accuracy_based_auto_calibration_state"


class Sharing(AutoCalibrationEvaluatorBase):
    """Per image, the largest probability, times 1000; it may fall by so much, on average."""

    def __init__(self, limit=1e9):
        self.limit = limit

    def run(self, graph, outputs, images):
        with tf1.Session(graph=graph) as session:
            return session.run(outputs[0] + ":0", {"input:0": images})

    def calibration(self, graph, outputs):
        self.run(graph, outputs, IMAGES[:8])

    def evaluate_share(self, graph, outputs, share):
        """Runs batch by batch: the last digits of some kernels depend on how many images there are at a time."""
        images = IMAGES[np.array(share.of(len(IMAGES), 4), int)]
        batches = [images[start : start + 4] for start in range(0, len(images), 4)]
        return [1000 * value for batch in batches for value in self.run(graph, outputs, batch).max(axis=1)]

    def metric_eval(self, original, new):
        return abs(original - new) <= self.limit, abs(original - new)


class HerePool:
    """Its workers are in this process; a share is evaluated when somebody waits."""

    made = ()
    cut = 0

    def __init__(self, size, evaluator):
        self.waits = self.together = 0
        self.size = size
        self.evaluator = deserialize(evaluator)
        self.news, self.models, self.given = deque(), {}, []
        HerePool.made = (*HerePool.made, self)

    def start(self, worker):
        self.news.append((worker, None))

    def give(self, worker, task, candidate):
        if candidate is not None:
            self.models[task.candidate] = candidate
        self.given.append(self.models[task.candidate].title)
        self.news.append((worker, task))

    def wait(self, seconds):
        worker, task = self.news.popleft()
        self.waits += task is not None
        if self.cut and self.waits == self.cut:
            raise KeyboardInterrupt
        self.together += len({other.candidate for _, other in [(worker, task), *self.news] if other}) > 1
        if task is None:
            return [Ready(worker, worker_handshake(self.evaluator))]
        model = self.models[task.candidate]
        graph = import_graph(tf1.GraphDef.FromString(model.model), model.title)
        return [Finished(worker, pickle.dumps(self.evaluator.evaluate_share(graph, list(model.outputs), task.share)))]

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    """The workers of the runs in the test, which are in this process."""
    module = import_module("amct_tensorflow.accuracy_based_auto_calibration")  # the function has the same name
    monkeypatch.setattr(module, "ProcessPool", HerePool)
    HerePool.made = ()
    return lambda: HerePool.made[-1]


@pytest.fixture
def task(workdir):
    """A task for which layers have to be rolled back, and the loss that is allowed."""
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    loss = calibrate(arguments, Sharing()).loss
    shutil.rmtree(LOG_DIR / STATE)
    return arguments, loss * 0.6


class Sweep(AutoCalibrationStrategyBase):
    """Tries one layer in float after the other, and then keeps the first; so it knows what comes next."""

    honest = True

    def initialize(self, ranking_info):
        self.layers, self.step = list(ranking_info), 0

    def update_quant_config(self, metric_eval):
        self.step += 1
        return {"stop_flag": self.step == 4, "roll_back_config": self.configuration(self.step % 4)}

    def next_config(self):
        return self.configuration(self.step + 1 if self.honest else -1) if self.step < 3 else None

    def configuration(self, index):
        return OrderedDict((name, number != index % len(self.layers)) for number, name in enumerate(self.layers))


class Wrong(Sweep):
    honest = False


def everything(arguments, evaluator, **options):
    """Runs; returns the files that are left, those of the state among them."""
    result = calibrate(arguments, evaluator, **options)
    (state,) = (LOG_DIR / STATE).iterdir()
    files = {**contents(Path()), **{path.name: path.read_bytes() for path in state.iterdir()}}
    shutil.rmtree(LOG_DIR / STATE)
    return files, result


@pytest.mark.parametrize(
    "strategy", ["BinarySearch", "PredictiveSearch", Sweep], ids=["BinarySearch", "PredictiveSearch", "Sweep"]
)
def test_files_and_state_are_those_of_one_process(task, here, strategy):
    arguments, limit = task
    strategy = strategy if isinstance(strategy, str) else strategy()
    options = {"strategy": strategy, "sensitivity": "OutputDivergence"}
    expected, result = everything(arguments, Sharing(limit), **options)
    assert result.evaluations >= 3 and not HerePool.made
    for workers in (2, 7):  # and fewer batches than workers
        files, again = everything(arguments, Sharing(limit), num_workers=workers, **options)
        assert files == expected
        assert again.evaluations == result.evaluations and again.loss_interval == result.loss_interval
        assert here().size == workers


def test_float_and_quantized_model_are_evaluated_at_once(workdir, here):
    calibrate(prepare(workdir), Sharing(), num_workers=2)
    assert here().given == ["the original model"] * 2 + ["the model with all layers quantized"] * 2
    times = [each.stage for each in read_report(workdir / "out").times]
    assert times.index("waiting for workers") < times.index("calibrating")


def test_no_model_is_made_or_checked_ahead_while_workers_evaluate(workdir, here, monkeypatch):
    """They would wait for the next model meanwhile."""
    monkeypatch.setattr(Sharing, "calibration_may_overlap", True)
    made = []
    monkeypatch.setattr(RollBack, "make_ahead", lambda *_: made.append(1))
    calibrate(prepare(workdir), Sharing(), num_workers=2)
    assert not made


def test_what_a_strategy_names_is_evaluated_with_what_it_decided(task, here):
    arguments, limit = task
    calibrate(arguments, Sharing(limit), strategy=Sweep(), num_workers=2)
    steps = [title.removeprefix("the model of fine search step ") for title in here().given[4:]]
    assert steps == ["1", "1", "2", "2", "3", "3", "4", "4"]
    assert here().together >= 3  # of steps 1 and 2, of 2 and 3, and of the first two models


def test_a_strategy_that_decides_for_another_is_told_of(task, here, messages):
    arguments, limit = task
    result = calibrate(arguments, Sharing(limit), strategy=Wrong(), num_workers=2)
    assert any("Wrong named a configuration as its next, and decided for another" in line for line in messages)
    assert result.evaluations == 6


@pytest.mark.parametrize("at", [3, 8])
def test_a_run_that_was_cut_off_goes_on_with_another_number_of_workers(task, here, monkeypatch, at):
    arguments, limit = task
    expected, _ = everything(arguments, Sharing(limit), num_workers=2)
    monkeypatch.setattr(HerePool, "cut", at)
    with pytest.raises(KeyboardInterrupt):
        calibrate(arguments, Sharing(limit), num_workers=2)
    monkeypatch.setattr(HerePool, "cut", 0)
    files, _ = everything(arguments, Sharing(limit), num_workers=3, resume=True)
    assert files == expected
    assert len(here().given) < 3 * 5


def test_the_whole_is_a_share():
    evaluator = Sharing()
    evaluator.evaluate_share = lambda graph, outputs, share: [1.0, 2.0, 6.0][share.of(3).start : share.of(3).stop]
    assert evaluator.image_results() is None
    assert evaluator.evaluate(tf.Graph(), ["out"]) == 3.0
    assert evaluator.image_results() == [1.0, 2.0, 6.0]
    parts = [evaluator.evaluate_share(None, [], Share(index, 2)) for index in range(2)]
    assert evaluator.join_shares(parts) == 3.0


class Alone(Sharing):
    def evaluate(self, graph, outputs):
        return 1.0


class Without(AutoCalibrationEvaluatorBase):
    def calibration(self, graph, outputs):
        pass

    def evaluate(self, graph, outputs):
        return 1.0


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"ray": "auto"}], ids=str)
@pytest.mark.parametrize(
    ("evaluator", "words"),
    [(Alone(), "Alone overrides evaluate.*but not evaluate_share"), (Without(), "Without has no evaluate_share")],
    ids=["overridden", "none"],
)
def test_an_evaluator_that_cannot_be_shared_out_is_refused_at_once(workdir, evaluator, words, options):
    with pytest.raises(EvaluatorError, match=words):
        calibrate(prepare(workdir), evaluator, **options)


def test_one_worker_on_this_machine_is_this_process(workdir):
    assert calibrate(prepare(workdir), Without.__new__(Judged), num_workers=1).target_met


class Judged(Without):
    def calibration(self, graph, outputs):
        Sharing().calibration(graph, outputs)

    def metric_eval(self, original, new):
        return True, 0.0


def test_an_evaluator_that_cannot_be_sent_is_refused_at_once(workdir):
    evaluator = Sharing()
    evaluator.graph = tf.Graph()
    with pytest.raises(WorkerError, match="Sharing cannot be sent to other processes"):
        calibrate(prepare(workdir), evaluator, num_workers=2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_workers": 0}, ArgumentValueError, "num_workers is 0; it must be above 0"),
        ({"num_workers": 2.0}, ArgumentTypeError, "num_workers must be int"),
        ({"num_workers": True}, ArgumentTypeError, "num_workers must be int"),
        ({"ray": ""}, ArgumentValueError, "ray is empty"),
        ({"ray": 6379}, ArgumentTypeError, "ray must be str"),
    ],
    ids=str,
)
def test_wrong_arguments(workdir, options, error, words):
    with pytest.raises(error, match=words):
        calibrate(prepare(workdir), Sharing(), **options)
