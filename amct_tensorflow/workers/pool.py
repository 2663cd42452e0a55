"""What there is to know of workers, wherever they run."""

from collections.abc import Sequence
from typing import Protocol

from amct_tensorflow.workers.candidate import Candidate, Task
from amct_tensorflow.workers.events import Event


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
