"""The make targets: what a newcomer types."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
RESULTS = Path("outputs/accuracy_based_auto_calibration")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")

# It stands in for Python: makes an environment whose Python is this script again, and notes how it was called.
STUB = """#!/bin/sh
echo "$(basename "$(dirname "$0")")/$(basename "$0") $*" >> "{log}"
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-c "*) exit {supported} ;;
esac
"""


def make(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture
def python(tmp_path):
    """A stand-in for Python, and the file where its calls are noted."""
    stub, log = tmp_path / "stub" / "python", tmp_path / "calls"
    stub.parent.mkdir()
    stub.write_text(STUB.format(log=log, supported=0))
    stub.chmod(0o755)
    log.touch()
    return stub, log


def test_help_lists_every_target():
    targets = re.search(r"\.PHONY: (.*)", MAKEFILE)[1].split()
    listed = [line.split()[0] for line in make(ROOT, "help").stdout.splitlines() if not line.startswith("make")]
    assert listed == targets
    assert make(ROOT).stdout == make(ROOT, "help").stdout


def test_setup_installs_once(checkout, python):
    stub, log = python
    assert make(checkout, "setup", f"PYTHON={stub}").returncode == 0
    calls = log.read_text()
    assert "stub/python -m venv .venv" in calls
    assert "bin/python -m pip install" in calls and "stub/python -m pip" not in calls
    assert make(checkout, "setup", f"PYTHON={stub}").returncode == 0
    assert log.read_text() == calls
    # New requirements are installed.
    stamp = (checkout / ".venv" / ".installed").stat().st_mtime
    os.utime(checkout / "pyproject.toml", (stamp + 1, stamp + 1))
    make(checkout, "setup", f"PYTHON={stub}")
    assert log.read_text().count("-m pip install") == 2


def test_a_failed_installation_is_tried_again(checkout, python):
    stub, log = python
    stub.write_text(STUB.format(log=log, supported=0) + 'case "$*" in *install*) exit 1;; esac\n')
    assert make(checkout, "setup", f"PYTHON={stub}").returncode == 2
    stub.write_text(STUB.format(log=log, supported=0))
    assert make(checkout, "setup", f"PYTHON={stub}").returncode == 0
    assert log.read_text().count("-m pip install") == 2


def test_another_python_is_refused(checkout, python):
    stub, log = python
    stub.write_text(STUB.format(log=log, supported=1))
    done = make(checkout, "setup", f"PYTHON={stub}")
    assert done.returncode == 2 and "Python 3.10 to 3.12" in done.stderr
    assert not (checkout / ".venv").exists()
    done = make(checkout, "setup", "PYTHON=")
    assert done.returncode == 2 and "Python 3.10 to 3.12" in done.stderr


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("format", "ruff format"),
        ("bench", "benchmarks/search.py"),
        ("docs", "-m sphinx -q -W"),
        ("lock", "pip-compile"),
        ("audit", "pip-audit"),
        ("bench-accuracy", "benchmarks/accuracy.py"),
        ("bench-dense", "benchmarks/dense.py"),
        ("bench-models", "benchmarks/models.py"),
        ("bench-real", "benchmarks/real_networks.py"),
        ("bench-exports", "benchmarks/exports.py"),
        ("bench-peers", "benchmarks/peers.py"),
        ("fuzz", "tests/test_fuzz.py"),
        ("kill", "tests/killing.py"),
        ("browser", "apt-get install"),
        ("clean", "rm -rf .venv"),
    ],
)
def test_developers_commands(target, expected):
    """They exist and call what they should; running them takes long, changes the code, or removes what is installed."""
    done = make(ROOT, "--dry-run", f"PYTHON={sys.executable}", target)
    assert done.returncode == 0 and expected in done.stdout


def in_this_environment(checkout, *arguments):
    """Runs make with the Python that runs the tests as if it had been set up."""
    return make(checkout, f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed", *arguments)


def test_demo(checkout):
    """The bundled run: all layers quantized miss the target, the search rolls some back, the saved model meets it."""
    done = in_this_environment(checkout, "demo")
    assert done.returncode == 0, done.stderr
    original, quantized, saved = (
        float(re.search(rf"Accuracy of {name} model is +([\d.]+)", done.stderr)[1])
        for name in ("original", "global quantized", "saved")
    )
    assert original - quantized > 0.2 > original - saved
    history = json.loads((checkout / "amct_log" / "accuracy_based_auto_calibration_record.json").read_text())
    assert len(history) > 1
    final = json.loads((checkout / RESULTS / "accuracy_based_auto_calibration_final_config.json").read_text())
    enabled = [layer["quant_enable"] for layer in final.values() if isinstance(layer, dict) and "quant_enable" in layer]
    assert len(enabled) == 54 and 0 < enabled.count(False) < 20


@pytest.mark.campaign
def test_model_from_an_archive(checkout, tmp_path):
    """What is no archive is refused in one line; a model that is there is left alone, without even looking."""
    (tmp_path / "archive").write_text("none")
    done = in_this_environment(checkout, "model", f"ARCHIVE={tmp_path / 'archive'}")
    assert done.returncode == 2 and "error: The archive is damaged or none" in done.stderr
    (checkout / "model" / "mobilenet_v2_1.0_224_frozen.pb").write_text("mine")
    done = in_this_environment(checkout, "model", "ARCHIVE=nowhere")
    assert done.returncode == 0 and (checkout / "model" / "mobilenet_v2_1.0_224_frozen.pb").read_text() == "mine"
