"""A worker, on whatever pool; and the program of a worker process."""

import os
import pickle
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from amct_tensorflow.errors import AmctError, EvaluatorError, WorkerError, core_message, first_line
from amct_tensorflow.io.memory import import_tensorflow
from amct_tensorflow.io.progress import redirected_progress
from amct_tensorflow.log import redirect_log
from amct_tensorflow.search.workers.handshake import worker_handshake
from amct_tensorflow.search.workers.pool import Event, Failed, Finished, Logged, Progressed, Ready
from amct_tensorflow.search.workers.serialization import deserialize
from amct_tensorflow.search.workers.shares import MODELS_KEPT, Candidate, Task

# Each report wakes the other side; a person does not look more often.
_SECONDS_BETWEEN_REPORTS = 0.5


class Worker:
    """Evaluates shares with a serialized evaluator."""

    def __init__(self, number: int, report: Callable[[Event], None]) -> None:
        """Passes events, and log messages, to ``report`` while a share is evaluated."""
        self._number = number
        self._report = report
        self._evaluator: Any = None
        self._candidates: OrderedDict[str, Candidate] = OrderedDict()
        redirect_log(lambda level, module, text, console: report(Logged(number, level, module, text, console)))

    def handshake(self, evaluator: bytes) -> Event:
        """Takes the evaluator, and returns the handshake, or the failure to make one."""
        try:
            self._evaluator = deserialize(evaluator)
            return Ready(self._number, worker_handshake(self._evaluator))
        except AmctError as error:
            return Failed(self._number, error)
        except Exception as error:
            return Failed(
                self._number,
                WorkerError(
                    f"The evaluator does not arrive in a worker: {type(error).__name__}: {first_line(error)}. Whatever "
                    "its file imports must be installed there."
                ),
            )

    def work(self, task: Task, candidate: Candidate | None) -> Event:
        """Does a task.

        Args:
            task: the task.
            candidate: its model; None if this worker has it already.
        """
        if candidate is not None:
            self._candidates[task.candidate] = candidate
            while len(self._candidates) > MODELS_KEPT:
                self._candidates.popitem(last=False)
        model = self._candidates[task.candidate]
        try:
            with redirected_progress(self._show, _SECONDS_BETWEEN_REPORTS):
                return Finished(self._number, pickle.dumps(self._evaluate(task, model)))
        except AmctError as error:
            return Failed(self._number, error)
        except Exception as error:
            return Failed(self._number, _failure(self._evaluator, task, model, error))

    def _evaluate(self, task: Task, model: Candidate) -> Any:
        # A worker shakes hands first, and TensorFlow reads when it is imported how many threads it may have.
        import tensorflow as tf  # noqa: PLC0415

        from amct_tensorflow.model.model_file import import_graph  # noqa: PLC0415

        graph = import_graph(tf.compat.v1.GraphDef.FromString(model.model), model.title)
        return self._evaluator.evaluate_share(graph, list(model.outputs), task.share)

    def _show(self, title: str, unit: str, done: float, total: float | None) -> None:
        self._report(Progressed(self._number, title, unit, done, total))


def _failure(evaluator: object, task: Task, model: Candidate, error: Exception) -> EvaluatorError:
    return EvaluatorError(
        f"{type(evaluator).__name__}.evaluate_share failed on {task.share} for {model.title}: {type(error).__name__}: "
        f"{core_message(error)}"
    )


def main(descriptor: int, number: int) -> None:
    """Works until the connection is closed.

    Args:
        descriptor: the descriptor of the connection.
        number: the number of the worker.
    """
    link = _Link(descriptor)
    import_tensorflow()  # which the evaluator needs
    worker = Worker(number, link.send)
    link.send(worker.handshake(link.receive()))
    while True:
        link.send(worker.work(*link.receive()))


class _Link:
    """The connection. A thread reads from it, so that this process ends with the other one even while it works."""

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._sending = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def receive(self) -> Any:
        """Waits for the next message."""
        return pickle.loads(self._received.get())

    def send(self, event: Event) -> None:
        """Sends an event; there may be several threads."""
        data = pickle.dumps(event)
        with self._sending, suppress(OSError):  # then the thread that reads ends the process
            self._connection.send_bytes(data)

    def _read(self) -> None:
        try:
            while True:
                self._received.put(self._connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)  # nobody waits for what is being computed
