"""A worker that is a process on this machine: what the program in it does."""

import os
import pickle
import queue
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from amct_tensorflow.workers.events import Event
from amct_tensorflow.workers.worker import Worker


def main(descriptor: int, number: int) -> None:
    """Works until the other side of the connection is gone.

    Args:
        descriptor: that of the connection.
        number: of the worker.
    """
    link = _Link(descriptor)
    worker = Worker(number, link.send)
    link.send(worker.greet(link.receive()))
    while True:
        link.send(worker.work(*link.receive()))


class _Link:
    """The connection. A thread reads from it, so that this process ends with the other even while it works."""

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
