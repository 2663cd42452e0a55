"""Signals end a run even if they arrive where Python ignores exceptions."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = """
import os, signal, time
from amct_tensorflow.console.signals import Terminated, raise_on_signals
raise_on_signals()

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
