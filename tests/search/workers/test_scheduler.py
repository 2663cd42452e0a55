"""Who does which share, whose share is done again, and what is said when it is no use; with workers made up here."""

import pickle
from collections import deque
from dataclasses import replace

import pytest

from amct_tensorflow.errors import EvaluatorError, WorkerError
from amct_tensorflow.search.workers import scheduler as scheduling
from amct_tensorflow.search.workers.handshake import Handshake, check_handshake
from amct_tensorflow.search.workers.pool import Died, Failed, Finished, Logged, Progressed, Ready
from amct_tensorflow.search.workers.scheduler import Scheduler
from amct_tensorflow.search.workers.shares import Candidate

SAME = Handshake("here", {"tensorflow": "2"}, {"dataset": "[]"})
ONE, TWO, THREE = (Candidate(name.encode(), ("out",), name) for name in ("one", "two", "three"))


class MadeUpPool:
    """Its workers do a task, in turn, whenever somebody waits; ``at`` says what else happens at the so manyth task."""

    def __init__(self, size, handshake=SAME, **at):
        self.size = size
        self.handshake = handshake
        self.at = at
        self.started, self.tasks, self.models = [], [], []
        self.busy = deque()
        self.closed = False

    def start(self, worker):
        self.started.append(worker)
        self.busy.append((worker, None))

    def give(self, worker, task, candidate):
        assert worker not in [one for one, _ in self.busy], "it has something to do"
        self.busy.append((worker, task))
        self.tasks.append((task.candidate, task.share.index))
        if candidate is not None:
            self.models.append((worker, candidate.title))

    def wait(self, seconds):
        if not self.busy:
            return []
        worker, task = self.busy.popleft()
        if task is None:
            return [self.at["start"](worker) if "start" in self.at else Ready(worker, self.handshake)]
        news = self.at.get(f"task{len(self.tasks)}", self.at.get("task"))
        special = news(worker, task) if news else None
        return special or [Finished(worker, pickle.dumps((task.candidate, task.share.index)))]

    def close(self):
        self.closed = True


def results(scheduler, candidate):
    return [index for identity, index in scheduler.finish(candidate).results if identity == candidate.identity]


def test_results_are_in_order_and_a_model_reaches_each_worker_once():
    pool = MadeUpPool(3)
    with Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
        for candidate in (ONE, TWO, ONE):
            assert results(scheduler, candidate) == [0, 1, 2]
    assert pool.closed
    assert sorted(pool.models) == sorted((worker, name) for worker in range(3) for name in ("one", "two"))


def test_two_models_at_once():
    pool = MadeUpPool(2)
    with Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
        scheduler.begin(ONE)
        scheduler.begin(TWO)
        assert results(scheduler, TWO) == [0, 1]
        done = len(pool.tasks)
        assert results(scheduler, ONE) == [0, 1]
    assert done == len(pool.tasks) == 4
    assert pool.tasks[:2] == [(ONE.identity, 0), (ONE.identity, 1)]


def test_what_is_forgotten_is_not_begun():
    pool = MadeUpPool(1)
    with Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
        scheduler.begin(ONE)
        scheduler.begin(TWO)
        scheduler.forget(TWO.identity)
        scheduler.forget(ONE.identity)  # this one was begun, and its share is finished in vain
        assert results(scheduler, THREE) == [0]
    assert [identity for identity, _ in pool.tasks] == [ONE.identity, THREE.identity]


def dies_once(died=[]):  # noqa: B006 - what is remembered between calls
    def once(worker, task):
        if task.share.index == 1 and not died:
            died.append(worker)
            return [Died(worker, "process 7 was killed by SIGKILL")]
        return None

    return once


def test_the_share_of_a_worker_that_dies_is_done_again(messages):
    pool = MadeUpPool(3, task=dies_once())
    with Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
        assert results(scheduler, ONE) == [0, 1, 2]
        assert results(scheduler, TWO) == [0, 1, 2]
    assert pool.tasks.count((ONE.identity, 1)) == 2
    assert len(pool.started) == 4
    assert any("died (process 7 was killed by SIGKILL)" in line for line in messages)


def test_a_share_that_takes_every_worker_with_it_ends_the_run():
    pool = MadeUpPool(2, task=lambda worker, task: [Died(worker, "killed")] if task.share.index == 1 else None)
    words = r"each of the 4 times that share 2 of 2 for one .*enough memory"
    with pytest.raises(WorkerError, match=words), Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
        scheduler.finish(ONE)
    assert pool.closed


def test_workers_that_do_not_begin_end_the_run():
    pool = MadeUpPool(2, start=lambda worker: Died(worker, "ended with exit code 1"))
    words = "before they have begun; the last one: ended with exit code 1"
    with pytest.raises(WorkerError, match=words), Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
    assert pool.closed


def test_workers_that_do_not_come_end_the_run(monkeypatch):
    monkeypatch.setattr(scheduling, "_SECONDS_TO_BEGIN", 0.0)
    pool = MadeUpPool(2)
    pool.wait = lambda seconds: []
    with pytest.raises(WorkerError, match="0 of 2 workers were ready"), Scheduler(pool, SAME) as scheduler:
        scheduler.gather()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Handshake("there", {"tensorflow": "1"}, SAME.data), "there has tensorflow 1, and this process 2"),
        (Handshake("there", {}, SAME.data), "there has tensorflow not at all"),
        (Handshake("there", SAME.software, {"dataset": "[1]"}), "The dataset of the worker there differs"),
        (Handshake("there", SAME.software, {}), "The dataset of the worker there differs"),
    ],
)
def test_other_software_or_data_is_refused_before_anything_is_evaluated(other, words):
    pool = MadeUpPool(2, other)
    with pytest.raises(WorkerError, match=words), Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
    assert not pool.tasks


def test_an_error_of_the_evaluator_is_not_tried_again():
    error = EvaluatorError("Mine.evaluate_share failed")
    pool = MadeUpPool(2, task=lambda worker, _: [Failed(worker, error)])
    with pytest.raises(EvaluatorError, match="Mine"), Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
        scheduler.finish(ONE)
    assert len(pool.tasks) == 2


def test_one_bar_for_all(capsys, messages):
    def tell(worker, task):
        half = Progressed(worker, "quantized model", "images", 5, 10)
        return [
            Logged(worker, 30, "mine", "said there", True),
            half,
            Finished(worker, pickle.dumps((task.candidate, 0))),
        ]

    with Scheduler(MadeUpPool(2, task=tell), SAME) as scheduler:
        scheduler.gather()
        scheduler.finish(ONE)
    shown = capsys.readouterr().err
    assert "quantized model: 20 of 20 images" in shown
    assert messages.count("WARNING said there") == 2


def test_a_share_without_images_shows_nothing(capsys):
    def tell(worker, task):
        done = Finished(worker, pickle.dumps((task.candidate, 0)))
        return [done] if task.share.index else [Progressed(worker, "quantized model", "images", 0, 10), done]

    with Scheduler(MadeUpPool(3, task=tell), SAME) as scheduler:
        scheduler.gather()
        scheduler.finish(ONE)
    assert "quantized model: 10 of 10 images" in capsys.readouterr().err


def test_what_was_done_before_anybody_waited_is_shown_with_its_speed(capsys, monkeypatch):
    def tell(worker, task):
        return [Progressed(worker, "m", "images", 0, 10), Finished(worker, pickle.dumps((task.candidate, 0)))]

    with Scheduler(MadeUpPool(1, task=tell), SAME) as scheduler:
        scheduler.gather()
        scheduler.begin(ONE)
        monkeypatch.setattr(scheduling.time, "monotonic", lambda now=scheduling.time.monotonic: now() + 100)
        scheduler.finish(TWO)
        scheduler.finish(ONE)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["m: 10 of 10 images, 10.00s/ images, 00:00 left"]


def test_when_no_worker_is_left_and_none_comes(monkeypatch):
    pool = MadeUpPool(1, task=lambda worker, _: [Died(worker, "its machine is lost")])
    with pytest.raises(WorkerError, match="No worker is left"), Scheduler(pool, SAME) as scheduler:
        scheduler.gather()
        pool.start = lambda worker: None
        monkeypatch.setattr(scheduling, "_SECONDS_TO_BEGIN", 0.0)
        scheduler.finish(ONE)


def test_workers_that_have_nothing_to_do_are_told_of_once(messages):
    def tell(worker, task):
        return [Finished(worker, pickle.dumps([] if task.share.index else [1.0]))]

    with Scheduler(MadeUpPool(3, task=tell), SAME) as scheduler:
        scheduler.gather()
        scheduler.finish(ONE)
        scheduler.finish(TWO)
    assert len([line for line in messages if "2 of 3 workers have nothing to evaluate" in line]) == 1


def test_workers_must_run_integers_where_we_do():
    """Else their candidates would be others than ours; unless nothing is to run in integers anyway."""
    ours, theirs = replace(SAME, no_integers=None), replace(SAME, no_integers="no VNNI")
    with pytest.raises(WorkerError, match=r"cannot run models in integers \(no VNNI\).*--exact"):
        check_handshake(ours, theirs)
    check_handshake(theirs, ours)
    check_handshake(replace(ours, no_integers="not asked for"), theirs)
