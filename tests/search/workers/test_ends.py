"""However a run ends, so do its workers, busy or not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

# They are busy telling what their data is.
PROGRAM = """
import os, pathlib, time
from amct_tensorflow.io.run_as_command import Signals
from amct_tensorflow.search.workers.scheduler import Scheduler
from amct_tensorflow.search.workers.handshake import own_handshake
from amct_tensorflow.search.workers.serialization import serialize
from amct_tensorflow.search.workers.process_pool import ProcessPool

class Busy:
    def identity(self):
        pathlib.Path(f"pid{os.getpid()}").touch()
        time.sleep(60)

if __name__ == "__main__":
    Signals().raise_from_now_on()
    try:
        with Scheduler(ProcessPool(2, serialize(Busy())), own_handshake({})) as scheduler:
            scheduler.gather()
    except KeyboardInterrupt:
        print("interrupted")
"""


def is_alive(pid):
    """Tells whether a process does anything any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_workers_end_with_the_run(workdir, name):
    Path("program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "program.py"], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert wait_for(lambda: len(list(workdir.glob("pid*"))) == 2)
    workers = [int(path.name.removeprefix("pid")) for path in workdir.glob("pid*")]
    process.send_signal(signal.Signals[name])
    shown, _ = process.communicate(timeout=30)
    assert name == "SIGKILL" or shown == "interrupted\n"
    assert wait_for(lambda: not any(map(is_alive, workers)))
