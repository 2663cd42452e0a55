"""Fixtures shared by all tests: quiet TensorFlow, a private working directory, and the optional real inputs."""

import importlib.util
import logging
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

# With it OpenVINO's converter tells its makers of each use, from forks of the process that uses it.
sys.modules["openvino_telemetry"] = None

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("AMCT_SHARED", ROOT.parent / "shared"))


def load_script(path):
    """Imports a script of the project once; a relative path starts at its root."""
    name = Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


LONGEST = {
    f"test_{name}.py"
    for name in ("killing", "real_model", "real_networks", "make", "determinism", "real_workers", "quiet", "guide")
}


def pytest_collection_modifyitems(items):
    """What takes longest begins first, so that in the end no process waits for another."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test showed may hold names of files that are no text; between processes only text can be passed."""
    report = yield
    report.sections = [(name, shown.encode("utf-8", "backslashreplace").decode()) for name, shown in report.sections]
    return report


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, so that relative results and logs do not meet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session", autouse=True)
def figures():
    """Leaves out the figures of reports, which take longer than small runs; ``with figures()`` draws them."""
    from amct_tensorflow.results.report import page  # noqa: PLC0415 - TensorFlow is to be quiet when it is imported

    names = ("search_figure", "along_figure", "sorted_figure")
    drawn = {name: getattr(page, name) for name in names}

    @contextmanager
    def with_figures():
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                patch.setattr(page, name, drawn[name])
            yield

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(page, name, lambda _: "<svg></svg>")
        yield with_figures


@pytest.fixture
def shared():
    """The folder with the real model and images."""
    if not (SHARED / "model").is_dir():
        pytest.skip(f"the real model and images are not at {SHARED} (set AMCT_SHARED)")
    return SHARED


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project without what was installed or made in it."""
    folder = tmp_path / "checkout"
    wanted = ["Makefile", "pyproject.toml", "requirements.txt", "amct_tensorflow", "src", "data", "model"]
    folder.mkdir()
    for name in wanted:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*_1.0_*"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def messages():
    """Collects what is logged."""
    from amct_tensorflow.utils.log import LOGGER  # noqa: PLC0415 - likewise

    records = []

    class Collector(logging.Handler):
        def emit(self, record):
            records.append(f"{record.levelname} {record.getMessage()}")

    handler = Collector()
    LOGGER.logger.addHandler(handler)
    yield records
    LOGGER.logger.removeHandler(handler)


@pytest.fixture
def main(monkeypatch):
    """The command line without what it does to its process."""
    from amct_tensorflow import __main__ as command_line  # noqa: PLC0415 - likewise

    monkeypatch.setattr(command_line, "quiet_tensorflow", lambda: None)
    monkeypatch.setattr("amct_tensorflow.io.run_as_command.Signals.raise_from_now_on", lambda self: None)
    return command_line.main
