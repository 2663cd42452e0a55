"""Workers that are processes on this machine.

Each is a new process, since TensorFlow's threads do not survive a fork. It runs a program of the package, since
Python's ``multiprocessing`` cannot set its environment, and runs the user's program in each process even if that does
not define the evaluator. Workers end with this process, however it ends, as their connection breaks.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING

from amct_tensorflow.errors import WorkerError
from amct_tensorflow.io.onednn import same_onednn
from amct_tensorflow.search.workers.pool import Died, Event
from amct_tensorflow.search.workers.shares import Candidate, Task

if TYPE_CHECKING:
    _Connection = Connection[object, object]
    _Popen = subprocess.Popen[bytes]
else:  # at run time these are not generic in every version
    _Connection = Connection
    _Popen = subprocess.Popen

_PROGRAM = "import sys; from amct_tensorflow.search.workers.worker import main; main(*map(int, sys.argv[1:]))"
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class _Process:
    process: _Popen
    connection: _Connection


class ProcessPool:
    """Processes on this machine, which share its cores.

    Attributes:
        size: how many there are.
    """

    def __init__(self, size: int, evaluator: bytes) -> None:
        """``evaluator`` is the serialized evaluator."""
        self.size = size
        self._evaluator = evaluator
        self._processes: dict[int, _Process] = {}
        # What processes leave that are killed, such as the code that TensorFlow generates, goes with it.
        self._folder = tempfile.TemporaryDirectory(prefix="amct_workers_", ignore_cleanup_errors=True)

    def start(self, worker: int) -> None:
        """Starts a process.

        Raises:
            WorkerError: the system refuses.
        """
        self._end(worker)
        try:
            self._processes[worker] = self._begin(worker)
        except OSError as error:
            raise WorkerError(
                f"Worker {worker + 1} of {self.size} cannot be started: {error}. Ask for fewer."
            ) from error
        self._send(worker, self._evaluator)

    def give(self, worker: int, task: Task, candidate: Candidate | None) -> None:
        """Sends a task."""
        self._send(worker, (task, candidate))

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns the events that the processes have sent, and the deaths of others."""
        workers = {each.connection: worker for worker, each in self._processes.items()}
        return [self._receive(workers[connection]) for connection in wait(list(workers), seconds)]  # type: ignore[index]

    def close(self) -> None:
        """Kills all workers, which hold nothing of value."""
        for each in self._processes.values():
            each.process.kill()
        for worker in list(self._processes):
            self._end(worker)
        self._folder.cleanup()

    def _begin(self, worker: int) -> _Process:
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        ours, theirs = Pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(worker)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_threads(self.size), **same_onednn(), "PYTHONPATH": path, "TMPDIR": self._folder.name},
            start_new_session=True,  # Ctrl-C is for this process, which ends them
        )
        theirs.close()  # so that ours breaks when the process ends
        return _Process(process, ours)

    def _send(self, worker: int, message: object) -> None:
        with suppress(OSError):  # it is dead, which its connection tells whoever waits
            self._processes[worker].connection.send_bytes(pickle.dumps(message))

    def _receive(self, worker: int) -> Event:
        try:
            event: Event = pickle.loads(self._processes[worker].connection.recv_bytes())
        except (EOFError, OSError):
            return Died(worker, self._end(worker))
        return event

    def _end(self, worker: int) -> str:
        """Ends a process, and returns how it ended."""
        each = self._processes.pop(worker, None)
        if each is None:
            return ""
        each.connection.close()
        with suppress(subprocess.TimeoutExpired):  # it has closed its connection, and is about to end
            each.process.wait(timeout=5)
        each.process.kill()
        return f"process {each.process.pid} {_end_of(each.process.wait())}"


def _threads(processes: int) -> dict[str, str]:
    """Returns the number of TensorFlow's threads per process: its part of the cores, unless the user has set it."""
    cores = max(1, len(os.sched_getaffinity(0)) // processes)
    return {name: os.environ.get(name, str(cores)) for name in _THREADS}


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
