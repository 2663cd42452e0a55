"""What workers tell of themselves."""

from dataclasses import dataclass

from amct_tensorflow.errors import AmctError
from amct_tensorflow.workers.greeting import Greeting


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

    greeting: Greeting


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
