"""What there is to know of workers, wherever they run, and what they tell of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from amct_tensorflow.errors import AmctError
from amct_tensorflow.search.workers.handshake import Handshake
from amct_tensorflow.search.workers.shares import Candidate, Task


@dataclass(frozen=True)
class Event:
    """Something that a worker tells, or that is found out about it.

    Attributes:
        worker: its number.
    """

    worker: int


@dataclass(frozen=True)
class Ready(Event):
    """It has the evaluator, and waits for a first task."""

    handshake: Handshake


@dataclass(frozen=True)
class Progressed(Event):
    """How far the evaluator is with its task, as it would show.

    Attributes:
        title: what it does.
        unit: plural of what it counts.
        done: how many are done.
        total: how many there are in the share; None if it does not know.
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
    """Its task is done.

    Attributes:
        result: what ``evaluate_share`` returned, pickled.
    """

    result: bytes


@dataclass(frozen=True)
class Failed(Event):
    """The evaluator failed, as it would again; the worker itself is well."""

    error: AmctError


@dataclass(frozen=True)
class Died(Event):
    """It is no more, and what it was doing is lost.

    Attributes:
        reason: what is known of why.
    """

    reason: str


class Pool(Protocol):
    """Workers, by their numbers from 0; each does one task at a time.

    Attributes:
        size: how many there are.
    """

    size: int

    def start(self, worker: int) -> None:
        """Starts a worker, or another one in the place of one that died; it tells when it is ready."""

    def give(self, worker: int, task: Task, candidate: Candidate | None) -> None:
        """Gives a worker that has nothing to do a task; the candidate only if it does not have it yet."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns what has happened, as soon as something has; nothing, if nothing does for so long."""

    def close(self) -> None:
        """Ends all workers, whatever they do."""
