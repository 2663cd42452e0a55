"""Workers on a Ray cluster, one actor per CPU. No other file uses Ray.

Ray does not restart actors here: a new one, on whatever machine, must first pass the handshake.
"""

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from amct_tensorflow.errors import WorkerError, first_line
from amct_tensorflow.io.onednn import same_onednn
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.search.workers.pool import Died, Event, Progressed
from amct_tensorflow.search.workers.shares import MODELS_KEPT, Candidate, Task

_SECONDS_BETWEEN_POLLS = 1.0
_SECONDS_TO_ANSWER = 10.0


class RayPool:
    """Actors on an existing cluster.

    Attributes:
        size: how many there are.
    """

    def __init__(self, size: int, evaluator: bytes, address: str) -> None:
        """Connects to the cluster.

        Args:
            size: how many actors; 0 for one per CPU.
            evaluator: the serialized evaluator.
            address: as ``ray.init`` takes it.

        Raises:
            WorkerError: Ray is not installed, or the cluster does not exist or has not so many CPUs.
        """
        self._ray, self._leaves = _connect(address)
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        self.size = size or cpus
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}  # what a worker is to answer, and its number
        self._polls: dict[Any, int] = {}
        self._polled: dict[int, float] = {}
        self._models: dict[str, Any] = {}
        if not 0 < self.size <= cpus:
            self.close()
            raise WorkerError(
                f"The Ray cluster {address} has {plural(cpus, 'CPU')}, too few for {plural(self.size or 1, 'worker')}. "
                "Ask for fewer (--num_workers, in code num_workers), or add machines to it."
            )
        self._evaluator = self._ray.put(evaluator)
        self._settings = same_onednn()
        self._actor_class = self._ray.remote(num_cpus=1, max_restarts=0, max_concurrency=2)(_RayWorker)

    def start(self, worker: int) -> None:
        """Starts an actor."""
        self._forget(worker)
        self._actors[worker] = self._actor_class.remote(worker, os.getcwd(), self._settings)  # noqa: PTH109
        self._calls[self._actors[worker].handshake.remote(self._evaluator)] = worker

    def give(self, worker: int, task: Task, candidate: Candidate | None) -> None:
        """Sends a task; each machine fetches a model once, from Ray's object store."""
        model = None
        if candidate is not None:
            if task.candidate not in self._models:
                self._models[task.candidate] = self._ray.put(candidate)
                while len(self._models) > MODELS_KEPT + 1:  # one may still be on its way to the last worker
                    del self._models[next(iter(self._models))]
            model = self._models[task.candidate]
        self._calls[self._actors[worker].work.remote(task, model)] = worker
        self._polled[worker] = time.monotonic()

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns the answers of actors, and the deaths of others."""
        self._poll()
        calls = [*self._calls, *self._polls]
        if not calls:
            return []
        self._ray.wait(calls, timeout=seconds)  # for the first answer; then all that are there
        answered, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        events: list[Event] = []
        for call in answered:
            worker = self._calls.pop(call, None)
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                dead = self._polls.pop(call, None) if worker is None else worker
                if dead is not None and dead in self._actors:
                    events.append(Died(dead, _reason(error)))
                    self._forget(dead)
                continue
            if worker is None:
                busy = self._polls.pop(call, None) in self._calls.values()
                events.extend(event for event in answer if busy or not isinstance(event, Progressed))
            else:
                events.extend(answer)
        return events

    def close(self) -> None:
        """Ends all actors; leaves the cluster, if it was entered for them."""
        busy = set(self._calls.values())
        for worker, actor in list(self._actors.items()):
            if worker in busy:
                self._forget(worker)
            else:  # so that TensorFlow removes its temporary files
                actor.__ray_terminate__.remote()
        if self._leaves:
            self._ray.shutdown()

    def _poll(self) -> None:
        """Asks busy actors for their progress, at intervals."""
        now = time.monotonic()
        for worker in set(self._calls.values()) - set(self._polls.values()):
            if now - self._polled.get(worker, now) >= _SECONDS_BETWEEN_POLLS:
                self._polled[worker] = now
                self._polls[self._actors[worker].news.remote()] = worker

    def _forget(self, worker: int) -> None:
        actor = self._actors.pop(worker, None)
        if actor is not None:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
        for calls in (self._calls, self._polls):
            for call in [call for call, number in calls.items() if number == worker]:
                del calls[call]


class _RayWorker:
    """A worker in an actor, which can be asked for its progress while it works."""

    def __init__(self, number: int, folder: str, settings: Mapping[str, str]) -> None:
        self._number = number
        self._news: list[Event] = []
        self._lock = threading.Lock()
        with suppress(OSError):  # paths that begin there will not be found then, and handshake() tells
            os.chdir(folder)
        # TensorFlow reads these when it is imported. One core is what the actor has asked for.
        os.environ.update(settings)
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(name, "1")

        from amct_tensorflow.search.workers.worker import Worker  # noqa: PLC0415 - only now

        self._worker = Worker(number, self._keep)

    def handshake(self, evaluator: bytes) -> list[Event]:
        """Takes the evaluator, and returns the worker's handshake."""
        event = self._worker.handshake(evaluator)
        return [*self.news(), event]

    def work(self, task: Task, candidate: Candidate | None) -> list[Event]:
        """Does a task."""
        event = self._worker.work(task, candidate)
        return [*self.news(), event]

    def news(self) -> list[Event]:
        """Returns the events since the last call."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def _keep(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Progressed):  # only the latest tells something
                self._news = [one for one in self._news if not isinstance(one, Progressed)]
            self._news.append(event)


def _connect(address: str) -> tuple[Any, bool]:
    """Connects to a cluster; returns Ray, and whether this process was not connected before.

    Raises:
        WorkerError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray  # noqa: PLC0415 - an extra; it takes a second, too
    except ImportError as error:
        raise WorkerError(
            "Ray is not installed. Install it on every machine of the cluster, and here: "
            "pip install 'amct-tensorflow-open[ray]'."
        ) from error
    if ray.is_initialized():
        return ray, False
    try:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise WorkerError(
            f"The Ray cluster {address} cannot be reached ({type(error).__name__}: {first_line(error)}). Start one "
            "with 'ray start --head', or give the address of its head (and Ray its token, if it asks for one); "
            "--num_workers alone takes processes on this machine."
        ) from error
    log_for("workers").info("Connected to the Ray cluster %s.", address)
    return ray, True


def _check_reachable(address: str) -> None:
    """Checks in seconds that the address accepts connections, for which Ray takes minutes.

    Raises:
        OSError: it does not.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])
