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


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONHASHSEED": "1"}, {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}],
    ids=["hash seed", "one thread"],
)
def test_two_runs_leave_the_same_bytes(reference, workdir, environment):
    assert len(reference) == 8
    again = run(Path(workdir) / "again", **environment)
    assert [name for name in reference if again.get(name) != reference[name]] == []
    assert again.keys() == reference.keys()
