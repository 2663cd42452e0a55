"""Equal inputs give equal files, whatever the order of hashing and the number of threads."""

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
    assert len(reference) == 9
    assert run(Path(workdir) / "again", PYTHONHASHSEED="1") == reference


def test_the_number_of_threads_changes_nothing(reference, workdir):
    """Of the factors; what sums of products decide, integers and corrections, may differ in last digits."""
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    again = run(Path(workdir) / "again", **one_thread)
    (record,) = (name for name in reference if name.endswith("record.txt"))
    assert again[record] == reference[record]
    assert again.keys() == reference.keys()
