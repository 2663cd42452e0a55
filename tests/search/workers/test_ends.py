"""However a run ends, so does its worker, busy or not."""

import signal
import time
from pathlib import Path

import pytest
from conftest import ROOT
from programs import Program

# It is busy telling what its data is.
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
        with Scheduler(ProcessPool(1, serialize(Busy())), own_handshake({})) as scheduler:
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


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.campaign), "SIGKILL"])
def test_the_worker_ends_with_the_run(workdir, name):
    Path("program.py").write_text(PROGRAM)
    program = Program("program.py", PYTHONPATH=ROOT)
    assert wait_for(lambda: list(workdir.glob("pid*")), 60)
    (worker,) = (int(path.name.removeprefix("pid")) for path in workdir.glob("pid*"))
    program.send_signal(signal.Signals[name])
    program.wait(30)
    assert program.stdout == ("" if name == "SIGKILL" else "interrupted\n")
    assert wait_for(lambda: not is_alive(worker))
