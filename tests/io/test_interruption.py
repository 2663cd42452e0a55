"""Signals end a run even if they arrive where Python ignores exceptions."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = """
import os, signal, time
from amct_tensorflow.io.run_as_command import Terminated, Signals
Signals().raise_from_now_on()

class Slow:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.2)

try:
    Slow()
    print("destructor done", flush=True)
    time.sleep(5)
except Terminated:
    print("terminated")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(("name", "end"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated")])
def test_a_signal_within_a_destructor_is_not_lost(name, end, workdir):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.endswith(f"{end}\n")
    assert "Exception ignored" not in done.stderr


LIBRARY = """
import os, signal, sys
from amct_tensorflow.console import run_as_command

def work():
    try:
        os.kill(os.getpid(), signal.{name})
    except KeyboardInterrupt:
        raise RuntimeError("generator didn't stop") from None

sys.exit(run_as_command(work, "Go on with --resume."))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_of_which_a_library_makes_an_error_counts(name, code, workdir):
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY.format(name=name)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code
    failure, end = done.stderr.splitlines()[-2:]
    assert "generator didn't stop" in failure and end.endswith("Go on with --resume.")
