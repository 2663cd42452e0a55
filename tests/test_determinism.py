"""Equal inputs give equal files, whatever the order of hashing and the number of threads."""

import json
import os
import subprocess
import sys

import pytest
from killing import BUNDLED, results
from programs import run_program
from small_sample import SAMPLE, small_sample

from amct_tensorflow.io.onednn import same_onednn

SIZES = [pytest.param("small"), pytest.param("bundled", marks=pytest.mark.campaign)]


@pytest.fixture(scope="module", params=SIZES)
def run(request, tmp_path_factory):
    """Runs the sample on a network, in a folder of its own; returns what it leaves."""
    models = tmp_path_factory.mktemp("models")
    arguments = small_sample(models) if request.param == "small" else BUNDLED

    def run(start):
        folder = tmp_path_factory.mktemp("run")
        done = start(folder, [SAMPLE, *arguments, "--expected_acc_loss", "0.6"])
        assert done.returncode in (0, 3), done.stderr
        return results(folder)

    return run


@pytest.fixture(scope="module")
def reference(run):
    return run(lambda folder, command: run_program(*command, folder=folder))


def test_the_order_of_hashing_changes_nothing(reference, run):
    """Python chooses it when it starts: here a given one, and at random where the reference was forked from."""
    assert len(reference) == 11
    # The reference was forked from a process with TensorFlow, too late for the program to switch oneDNN on.
    environment = {**os.environ, "PYTHONHASHSEED": "1", **same_onednn()}

    def start(folder, command):
        return subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    assert run(start) == reference


@pytest.mark.campaign
def test_the_number_of_threads_changes_nothing(reference, run):
    """But the last digits of what TensorFlow sums in another order then: similarities, and biases in older versions."""
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    again = run(lambda folder, command: run_program(*command, folder=folder, **one_thread))
    (corrections,) = (name for name in reference if name.endswith("bias_correction.json"))
    (ranking,) = (name for name in reference if name.endswith("ranking_information.json"))
    reports = [name for name in reference if name.rpartition("/")[2].startswith("report.")]  # they tell these digits
    loose = {corrections: b"", ranking: b"", **dict.fromkeys(reports, b"")}
    assert {**again, **loose} == {**reference, **loose}
    for layer, expected in json.loads(reference[corrections]).items():
        found = json.loads(again[corrections])[layer]
        assert {key: found[key] for key in ("factors", "weights")} == {
            key: expected[key] for key in ("factors", "weights")
        }
        if "bias_correction" in expected:
            assert found["bias_correction"] == pytest.approx(expected["bias_correction"], rel=1e-4, abs=1e-7)
    found, expected = (dict(json.loads(results[ranking])) for results in (again, reference))
    assert found == pytest.approx(expected, rel=1e-6)
