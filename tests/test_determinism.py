"""Equal inputs give equal files, whatever the order of hashing and the number of threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from killing import RUN, results


def run(folder, **environment):
    folder.mkdir()
    sample = ROOT / "src" / "mobilenet_v2_accuracy_based_auto_calibration.py"
    done = subprocess.run(
        [sys.executable, str(sample), *RUN], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return results(folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return run(tmp_path_factory.mktemp("determinism") / "reference", PYTHONHASHSEED="0")


def test_the_order_of_hashing_changes_nothing(reference, workdir):
    assert len(reference) == 11
    assert run(Path(workdir) / "again", PYTHONHASHSEED="1") == reference


def test_the_number_of_threads_changes_nothing(reference, workdir):
    """But the last digits of what TensorFlow sums in another order then: similarities, and biases in older versions."""
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    again = run(Path(workdir) / "again", **one_thread)
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
