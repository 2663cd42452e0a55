"""The bundled run, killed at moments spread over its life (see ``killing``)."""

import subprocess
import sys
from pathlib import Path

MOMENTS = 12


def test_a_run_that_is_killed_loses_nothing():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killing.py")), "--moments", str(MOMENTS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{MOMENTS} moments: every file whole" in done.stdout
