"""The interface of a pool of workers, and the events that it reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from amct_tensorflow.errors import AmctError
from amct_tensorflow.search.workers.handshake import Handshake
from amct_tensorflow.search.workers.shares import Candidate, Task


@dataclass(frozen=True)
class Event:
    """An event of a worker.

    Attributes:
        worker: its number.
    """

    worker: int


@dataclass(frozen=True)
class Ready(Event):
    """The worker has the evaluator, and waits for its first task."""

    handshake: Handshake


@dataclass(frozen=True)
class Progressed(Event):
    """The progress of the evaluator in its task.

    Attributes:
        title: the title of its progress bar.
        unit: the plural of the unit.
        done: number of units done.
        total: number of units in the share; None if it is not known.
    """

    title: str
    unit: str
    done: float
    total: float | None


@dataclass(frozen=True)
class Logged(Event):
    """A message of the package's logger.

    Attributes:
        level: as of ``logging``.
        module: where it comes from.
        text: the message.
        console: whether it is meant for the console, too.
    """

    level: int
    module: str
    text: str
    console: bool


@dataclass(frozen=True)
class Finished(Event):
    """The worker has done its task.

    Attributes:
        result: what ``evaluate_share`` returned, pickled.
    """

    result: bytes


@dataclass(frozen=True)
class Failed(Event):
    """The evaluator failed, and would fail again; the worker itself can go on."""

    error: AmctError


@dataclass(frozen=True)
class Died(Event):
    """The worker has died, and its task is lost.

    Attributes:
        reason: the reason, as far as it is known.
    """

    reason: str


class Pool(Protocol):
    """Workers, by their numbers from 0; each does one task at a time.

    Attributes:
        size: how many there are.
    """

    size: int

    def start(self, worker: int) -> None:
        """Starts a worker, or replaces one that died; an event says when it is ready."""

    def give(self, worker: int, task: Task, candidate: Candidate | None) -> None:
        """Gives an idle worker a task, and the candidate if the worker does not have it yet."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns events as soon as there are any; nothing after ``seconds`` without one."""

    def close(self) -> None:
        """Ends all workers, even in the middle of a task."""
