"""oneDNN is switched on where it pays; the user's own setting stands."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from amct_tensorflow.io import onednn
from amct_tensorflow.io.onednn import VARIABLE, onednn_is_on, pays, same_onednn, use_onednn
from amct_tensorflow.log import LOG_FILE

HASWELL = {"SSE2", "AVX", "AVX2", "FMA3"}
SKYLAKE = {*HASWELL, "AVX512F", "AVX512_SKX"}
CASCADE_LAKE = {*SKYLAKE, "AVX512VNNI"}

# A program on a processor of some kind, as far as it can tell.
START = """
import sys
from amct_tensorflow.io import onednn
from amct_tensorflow.log import log_for
onednn._processor_features = lambda: set(sys.argv[1].split())
onednn.use_onednn()
"""


@pytest.mark.parametrize(
    ("features", "environment", "expected"),
    [
        (HASWELL, {}, True),
        (SKYLAKE, {}, True),
        (CASCADE_LAKE, {}, False),  # TensorFlow has it on
        ({"SSE2", "AVX"}, {}, False),
        ({"NEON", "ASIMD"}, {}, False),
        (set(), {}, False),
        (HASWELL, {"TF_ENABLE_ONEDNN_OPTS": "0"}, False),
        (HASWELL, {"TF_ENABLE_ONEDNN_OPTS": "1"}, False),
        (HASWELL, {"TF_ENABLE_ONEDNN_OPTS": ""}, False),
        (HASWELL, {"OMP_NUM_THREADS": "1"}, True),
    ],
)
def test_where_it_pays(features, environment, expected):
    assert pays(features, environment) is expected


def test_the_processor_is_asked():
    if os.uname().machine == "x86_64":
        assert "SSE2" in onednn._processor_features()


def python(code, features=HASWELL, **setting):
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {"PYTHONPATH": str(ROOT), **setting}
    command = [sys.executable, "-c", START + code, " ".join(features)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_the_log_file_says_so_and_is_not_begun_for_it(workdir):
    assert python("").stderr == "" and list(workdir.iterdir()) == []
    shown = python("log_for().info('mine')").stderr
    first, second = LOG_FILE.read_text().splitlines()
    assert " - INFO - [AMCT]:[onednn]: oneDNN is switched on (TF_ENABLE_ONEDNN_OPTS=1)" in first
    assert "mine" in second and "oneDNN" not in shown


def test_a_log_that_warns_only_does_not_say_it(workdir):
    python("from amct_tensorflow.log import set_logging_level; set_logging_level('error', 'warning')\n"
           "log_for().warning('mine')")  # fmt: skip
    assert len(LOG_FILE.read_text().splitlines()) == 1


@pytest.mark.parametrize("setting", [{"TF_ENABLE_ONEDNN_OPTS": "0"}, {"TF_ENABLE_ONEDNN_OPTS": "1"}])
def test_the_setting_of_the_user_stands(workdir, setting):
    told = python("import os; log_for().info('mine'); print(os.environ[onednn.VARIABLE])", **setting)
    assert told.stdout == f"{setting[VARIABLE]}\n" and "onednn" not in LOG_FILE.read_text()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="oneDNN is of TensorFlow for x86")
def test_tensorflow_takes_it():
    assert python("print('tensorflow' in sys.modules, onednn.onednn_is_on())").stdout == "False True\n"


def test_nothing_is_changed_once_tensorflow_is_there(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(onednn, "_processor_features", lambda: HASWELL)
    use_onednn()  # the tests have imported it
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(("on", "value"), [(True, "1"), (False, "0")])
def test_other_processes_compute_alike(monkeypatch, on, value):
    monkeypatch.setattr(onednn, "onednn_is_on", lambda: on)
    assert same_onednn() == {"TF_ENABLE_ONEDNN_OPTS": value}


def test_this_process_can_tell():
    assert onednn_is_on() in (True, False)
