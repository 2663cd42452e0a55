"""Runs that are killed at moments spread over their life (see ``killing``)."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_sample import small_sample


def kill(moments, *arguments):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killing.py")), "--moments", str(moments), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{moments} moments: every file whole" in done.stdout


def test_a_run_that_is_killed_loses_nothing(workdir):
    kill(3, *small_sample(workdir))


@pytest.mark.campaign
def test_the_bundled_run():
    kill(12)
