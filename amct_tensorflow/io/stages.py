"""Measures where the time of a run goes.

Every moment belongs to one stage, the one that was entered last and not left yet. A stage is entered wherever its work
is done, by ``with stage("rounding weights"):`` or by ``@stage("rounding weights")``, which do nothing unless somebody
measures. Work of TensorFlow's threads belongs to the stage that waits for it; other processes are not measured.

Runs in several threads have a clock each. What a run does in other threads than its own enters stages only as
``counted_here`` says so, or ``counted_beside`` where the run goes on meanwhile.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import NamedTuple, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

OTHER = "everything else"


class Spent(NamedTuple):
    """What a stage has taken so far.

    Attributes:
        stage: its name.
        seconds: by the clock on the wall.
        processor_seconds: by the clock of the process, of all of its threads together; None for a stage beside others,
            which these seconds count to.
    """

    stage: str
    seconds: float
    processor_seconds: float | None


class StageClock:
    """Adds up the time of stages; it begins outside of any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # calibration goes on in a thread of TensorFlow, while the caller's waits
        self._spent: dict[str, tuple[float, float]] = {}
        self._stage, self._since = OTHER, _now()
        self._beside: list[StageClock] = []

    def enter(self, stage: str) -> str:
        """Goes over to a stage; returns the one that is left."""
        with self._lock:
            now = _now()
            seconds, processor_seconds = self._spent.get(self._stage, (0.0, 0.0))
            self._spent[self._stage] = (
                seconds + now[0] - self._since[0],
                processor_seconds + now[1] - self._since[1],
            )
            self._spent.setdefault(stage, (0.0, 0.0))
            left, self._stage, self._since = self._stage, stage, now
        return left

    def add(self, beside: "StageClock") -> None:
        """Takes the clock of work that goes on beside what this one measures."""
        with self._lock:
            self._beside.append(beside)

    def spent(self) -> tuple[Spent, ...]:
        """Returns all stages so far, in the order in which they were entered first; what is outside of any is last.

        Behind them come the stages beside.
        """
        self.enter(self._stage)
        found = [Spent(stage, *times) for stage, times in self._spent.items() if stage != OTHER]
        beside = [
            each._replace(processor_seconds=None)
            for clock in self._beside
            for each in clock.spent()
            if each.stage != OTHER
        ]
        return (*found, Spent(OTHER, *self._spent[OTHER]), *beside)


_running: ContextVar[StageClock | None] = ContextVar("running", default=None)


@contextmanager
def measured_stages() -> Iterator[StageClock]:
    """Measures the stages that are entered inside the block; blocks in it share its clock."""
    outer = _running.get()
    if outer is not None:
        yield outer
        return
    clock = StageClock()
    token = _running.set(clock)
    try:
        yield clock
    finally:
        _running.reset(token)


def counted_here(action: Callable[_P, _T]) -> Callable[_P, _T]:
    """Returns an action whose stages count to whoever measures here and now, in whatever thread it is called."""
    context = copy_context()
    return lambda *args, **kwargs: context.copy().run(action, *args, **kwargs)


def counted_beside(action: Callable[_P, _T]) -> Callable[_P, _T]:
    """Returns an action for another thread, whose stages count beside those that go on here meanwhile."""
    clock = _running.get()
    if clock is None:
        return action

    def count(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        own = StageClock()
        clock.add(own)
        token = _running.set(own)
        try:
            return action(*args, **kwargs)
        finally:
            _running.reset(token)

    return count


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Counts the time of the block, but for stages that it enters in turn, to a stage."""
    clock = _running.get()
    if clock is None:
        yield
        return
    left = clock.enter(name)
    try:
        yield
    finally:
        clock.enter(left)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
