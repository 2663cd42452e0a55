"""Schedules the shares of evaluations on workers, repeats those of dead workers, and shows one progress bar."""

import logging
import pickle
import time
from collections import deque
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from amct_tensorflow.errors import WorkerError
from amct_tensorflow.io.progress import Progress, ProgressBar
from amct_tensorflow.log import log_for
from amct_tensorflow.search.workers.handshake import Handshake, check_handshake
from amct_tensorflow.search.workers.pool import Died, Event, Failed, Finished, Logged, Pool, Progressed, Ready
from amct_tensorflow.search.workers.shares import MODELS_KEPT, Candidate, Share, Task


class SharesBar:
    """Shows the progress of all shares of an evaluation together.

    If the evaluator shows progress, it is the sum of that, in the same units; if not, shares are counted.
    """

    def __init__(self, title: str, shares: int, seconds: float = 0.0) -> None:
        """Begins a bar for a number of shares; their work began ``seconds`` ago."""
        self._shares = shares
        self._seconds = seconds
        self._done: dict[int, float] = {}
        self._totals: dict[int, float] = {}
        self._bar: ProgressBar | None = None
        self._lines = Progress(f"Shares of {title}", shares, "workers")

    def __enter__(self) -> "SharesBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, share: int, news: Progressed) -> None:
        """Takes the progress of a share; one that is repeated starts over."""
        if self._bar is None:
            self._bar = ProgressBar(news.title, None, news.unit)
            self._bar.start_t -= self._seconds
        self._done[share] = news.done
        if news.total is not None:
            self._totals[share] = news.total
        self._update(self._bar)

    def finish(self, share: int) -> None:
        """Marks a share as done."""
        if self._bar is None:
            self._lines.advance()
            return
        self._done[share] = self._totals.setdefault(share, self._done.get(share, 0))
        self._update(self._bar)

    def _update(self, bar: ProgressBar) -> None:
        if self._totals:  # until all have begun, the others are taken to be as large
            bar.total = round(sum(self._totals.values()) * self._shares / len(self._totals))
        bar.update(sum(self._done.values()) - bar.n)


# A share that takes its worker with it so often will do so again.
_MOST_ATTEMPTS = 4
# Importing TensorFlow takes seconds, on a cold network file system a minute; a cluster may first have to grow.
_SECONDS_TO_BEGIN = 600.0
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(eq=False)
class _Evaluation:
    """A model that is being evaluated.

    Attributes:
        candidate: the model.
        waiting: the shares that no worker has.
        results: what ``evaluate_share`` returned, by the index of the share.
        attempts: how often each share was begun, by its index.
        progress: the progress of the shares, by their index.
        begun: when the first share was; None if none is.
        ended: when the last one was.
    """

    candidate: Candidate
    waiting: deque[Share]
    results: dict[int, Any] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    progress: dict[int, Progressed] = field(default_factory=dict)
    begun: float | None = None
    ended: float = 0.0


@dataclass(frozen=True)
class ShareResults:
    """The results of the shares of an evaluation.

    Attributes:
        results: what ``evaluate_share`` returned, in the order of the shares.
        seconds: from the beginning of the first share to the end of the last one.
    """

    results: list[Any]
    seconds: float


class Scheduler:
    """Evaluates models on a pool of workers, which starts and ends with the ``with`` block.

    Every model is divided into one share per worker: each further share would repeat the cost of its beginning (a
    session, an optimized graph, a pipeline that fills). A slow worker gets a share like all others.
    """

    def __init__(self, pool: Pool, expected: Handshake) -> None:
        """Takes a pool, and the handshake that its workers must match; the block starts them."""
        self._pool = pool
        self._expected = expected
        self._evaluations: dict[str, _Evaluation] = {}
        self._tasks: dict[int, tuple[_Evaluation, Share]] = {}
        self._idle: deque[int] = deque()
        self._models: dict[int, deque[str]] = {}
        self._failed_starts = 0
        self._told_of_empty = False
        self._shown: _Evaluation | None = None
        self._bar: SharesBar | None = None

    def __enter__(self) -> "Scheduler":
        try:
            for worker in range(self._pool.size):
                self._pool.start(worker)
        except BaseException:
            self._pool.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def gather(self) -> None:
        """Waits until every worker has passed the handshake.

        Raises:
            WorkerError: one has other software or data, or does not start.
        """
        deadline = time.monotonic() + _SECONDS_TO_BEGIN
        progress = Progress("Workers ready", self._pool.size, "workers")
        while len(self._idle) < self._pool.size:
            before = len(self._idle)
            self._look()
            if len(self._idle) > before:
                progress.advance(len(self._idle) - before)
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"{len(self._idle)} of {self._pool.size} workers were ready within {_SECONDS_TO_BEGIN:.0f} s. Ask "
                    "for no more than there is room for."
                )

    def begin(self, candidate: Candidate) -> None:
        """Queues a model for evaluation, unless it is queued already; this process can go on meanwhile."""
        if candidate.identity not in self._evaluations:
            shares = deque(Share(index, self._pool.size) for index in range(self._pool.size))
            self._evaluations[candidate.identity] = _Evaluation(candidate, shares)
            self._assign()

    def finish(self, candidate: Candidate) -> ShareResults:
        """Waits until a model is evaluated, and shows progress.

        Raises:
            AmctError: the evaluator failed.
            WorkerError: workers keep dying, or none is left.
        """
        self.begin(candidate)
        evaluation = self._evaluations[candidate.identity]
        seconds = 0.0 if evaluation.begun is None else time.monotonic() - evaluation.begun
        with SharesBar(candidate.title, self._pool.size, seconds) as self._bar:
            self._shown = evaluation
            for index, news in evaluation.progress.items():
                self._bar.show(index, news)
            for index in evaluation.results:
                self._bar.finish(index)
            alive = time.monotonic()
            while len(evaluation.results) < self._pool.size:
                self._look()
                alive = time.monotonic() if self._tasks else alive
                if time.monotonic() - alive > _SECONDS_TO_BEGIN:
                    raise WorkerError(f"No worker is left, and none has come within {_SECONDS_TO_BEGIN:.0f} s.")
        self._shown = self._bar = None
        del self._evaluations[candidate.identity]
        results = [evaluation.results[index] for index in range(self._pool.size)]
        self._tell_of_empty(results)
        return ShareResults(results, evaluation.ended - (evaluation.begun or evaluation.ended))

    def forget(self, identity: str) -> None:
        """Drops a model, by its identity; the results of shares that workers have begun are ignored."""
        evaluation = self._evaluations.pop(identity, None)
        if evaluation is not None:
            evaluation.waiting.clear()

    def _tell_of_empty(self, results: Sequence[Any]) -> None:
        """Logs once that some workers have nothing to do."""
        empty = sum(isinstance(result, Sized) and len(result) == 0 for result in results)
        if empty and not self._told_of_empty:
            self._told_of_empty = True
            log_for("workers").warning(
                "%d of %d workers %s nothing to evaluate: there are fewer batches. Use fewer workers, or smaller "
                "batches.",
                empty, len(results), "has" if empty == 1 else "have",
            )  # fmt: skip

    def _assign(self) -> None:
        """Gives waiting shares to idle workers, in the order of the models."""
        for evaluation in self._evaluations.values():
            while evaluation.waiting and self._idle:
                worker, share = self._idle.popleft(), evaluation.waiting.popleft()
                evaluation.begun = time.monotonic() if evaluation.begun is None else evaluation.begun
                evaluation.attempts[share.index] = evaluation.attempts.get(share.index, 0) + 1
                self._tasks[worker] = evaluation, share
                identity = evaluation.candidate.identity
                known = identity in self._models[worker]
                if not known:
                    self._models[worker].append(identity)
                self._pool.give(worker, Task(identity, share), None if known else evaluation.candidate)

    def _look(self) -> None:
        """Waits for events, and handles them."""
        for event in self._pool.wait(_SECONDS_BETWEEN_LOOKS):
            self._handle(event)
        self._assign()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Logged):
            log_for(event.module, console=event.console).log(event.level, "%s", event.text)
        elif isinstance(event, Ready):
            check_handshake(self._expected, event.handshake)
            self._failed_starts = 0
            self._models[event.worker] = deque(maxlen=MODELS_KEPT)
            self._idle.append(event.worker)
        elif isinstance(event, Failed):
            raise event.error
        elif isinstance(event, Died):
            self._replace(event)
        elif isinstance(event, (Progressed, Finished)):
            self._advance(event)

    def _advance(self, event: Progressed | Finished) -> None:
        evaluation, share = self._tasks[event.worker]
        if isinstance(event, Progressed):
            evaluation.progress[share.index] = event
        else:
            evaluation.results[share.index] = pickle.loads(event.result)
            evaluation.ended = time.monotonic()
            del self._tasks[event.worker]
            self._idle.append(event.worker)
        if self._bar is not None and evaluation is self._shown:
            if isinstance(event, Progressed):
                self._bar.show(share.index, event)
            else:
                self._bar.finish(share.index)

    def _replace(self, event: Died) -> None:
        """Replaces a dead worker; the first idle worker repeats its share.

        Raises:
            WorkerError: the share has failed too often.
        """
        evaluation, share = self._tasks.pop(event.worker, (None, None))
        if event.worker in self._idle:
            self._idle.remove(event.worker)
        elif evaluation is None:
            self._failed_starts += 1
        if self._failed_starts >= _MOST_ATTEMPTS:
            raise WorkerError(
                f"Workers end before they have begun; the last one: {event.reason}. What they said is above, or in the "
                "log file."
            )
        log_for("workers").log(logging.WARNING, "A worker has died (%s); another one takes its place.", event.reason)
        if evaluation is not None and share is not None:
            attempts = evaluation.attempts[share.index]
            if attempts >= _MOST_ATTEMPTS:
                raise WorkerError(
                    f"The worker died each of the {attempts} times that {share} for {evaluation.candidate.title} was "
                    f"begun, the last time: {event.reason}. Most often there is not enough memory: use fewer workers, "
                    "or smaller batches."
                )
            evaluation.waiting.appendleft(share)
        self._pool.start(event.worker)
