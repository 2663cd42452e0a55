"""What is sent to another process arrives there, and whatever its class needs; what cannot is refused."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from amct_tensorflow.errors import WorkerError
from amct_tensorflow.search.workers.serialization import deserialize, refuse_while_deserializing, serialize

PROGRAM = """
import pathlib, sys
from amct_tensorflow.search.workers.serialization import serialize

class Thing:
    def __init__(self, value):
        self.value = value

    def doubled(self):
        return FACTOR * self.value

FACTOR = 2
if __name__ == "__main__":
    pathlib.Path("serialized").write_bytes(serialize(Thing(21)))
"""
ARRIVE = """
import inspect, pathlib
from amct_tensorflow.search.workers.serialization import deserialize
thing = deserialize(pathlib.Path("serialized").read_bytes())
print(thing.doubled(), "return FACTOR" in inspect.getsource(thing.doubled), type(thing).__module__)
"""


class Known:
    """This module is found by its name."""


def python(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_classes_of_the_program_and_their_source(workdir):
    Path("program.py").write_text(PROGRAM)
    python("program.py")
    Path("program.py").unlink()  # as on a machine that does not see it
    assert python("-c", ARRIVE).split() == ["42", "True", "__mp_main__"]


def test_classes_of_a_file_that_was_loaded_by_its_path(workdir, monkeypatch):
    spec = inspect.importlib.util.spec_from_file_location("loaded_by_path", workdir / "file.py")
    (workdir / "file.py").write_text("class Thing:\n    value = 3\n")
    module = inspect.importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "loaded_by_path", module)
    data = serialize(module.Thing())
    monkeypatch.delitem(sys.modules, "loaded_by_path")
    assert deserialize(data).value == 3


def test_a_class_of_a_module_is_that_of_the_module():
    assert type(deserialize(serialize(Known()))) is Known


def test_what_cannot_be_sent_is_refused():
    class Local:
        pass

    with pytest.raises(WorkerError, match=r"Local cannot be sent to other processes.*top level"):
        serialize(Local())
    known = Known()
    known.attribute = lambda: None
    with pytest.raises(WorkerError, match="Known cannot be sent"):
        serialize(known)


def test_a_class_without_a_file_is_refused(monkeypatch):
    thing = type("Typed", (), {"__module__": "nowhere_to_be_found"})()
    with pytest.raises(WorkerError, match="source of module nowhere_to_be_found cannot be read"):
        serialize(thing)


def test_a_program_that_would_begin_anew_in_a_worker_says_so(workdir, monkeypatch):
    refuse_while_deserializing()
    (workdir / "anew.py").write_text(
        "from amct_tensorflow.search.workers.serialization import refuse_while_deserializing\n"
        "class Thing:\n    pass\n"
        "if not __name__.startswith('first'):\n    refuse_while_deserializing()\n"
    )
    source = (workdir / "anew.py").read_text()
    module = type(sys)("anew_by_path")
    module.__file__ = str(workdir / "anew.py")
    exec(source.replace("if not", "if False and not"), module.__dict__)
    monkeypatch.setitem(sys.modules, "anew_by_path", module)
    data = serialize(module.Thing())
    monkeypatch.delitem(sys.modules, "anew_by_path")
    with pytest.raises(WorkerError, match="if __name__ == '__main__'"):
        deserialize(data)
    refuse_while_deserializing()
