"""Runs that are killed at moments spread over their life (see ``killing``)."""

from pathlib import Path

import pytest
from programs import run_program
from small_sample import small_sample


def kill(moments, *arguments):
    done = run_program(Path(__file__).with_name("killing.py"), "--moments", moments, *arguments, seconds=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{moments} moments: every file whole" in done.stdout


def test_a_run_that_is_killed_loses_nothing(workdir):
    kill(2, *small_sample(workdir))


@pytest.mark.campaign
def test_the_bundled_run():
    kill(12)
