"""Fixtures shared by all tests: quiet TensorFlow, a private working directory, and the optional real inputs."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("AMCT_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, so that relative results and logs do not meet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shared():
    """The folder with the real model and images."""
    if not (SHARED / "model").is_dir():
        pytest.skip(f"the real model and images are not at {SHARED} (set AMCT_SHARED)")
    return SHARED
