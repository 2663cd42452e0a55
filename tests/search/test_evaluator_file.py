"""Evaluators from files, and targets on the command line."""

from pathlib import Path

import pytest

from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.search.evaluator_file import Target, derived_evaluator, load_evaluator

CLASS = "class E:\n    def calibration(self, graph, outputs):\n        return outputs\n"


def load(text, file="e.py"):
    Path(file).write_text(text)
    return load_evaluator(file)


def test_the_instance_is_found():
    evaluator = load(f"{CLASS}x = 1\ncustomize_evaluator = E()\nagain = customize_evaluator\n")
    assert type(evaluator).__name__ == "E" and evaluator.calibration(None, 2) == 2
    with pytest.raises(EvaluatorError, match=r"e.py: derive E from"):
        derived_evaluator(evaluator, "e.py")


def test_it_may_import_what_stands_beside_it(monkeypatch):
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    Path("folder").mkdir()
    Path("folder/beside_evaluator.py").write_text(CLASS)
    assert load("from beside_evaluator import E\ne = E()\n", "folder/main.py").calibration(None, 1) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "makes no evaluator.* evaluator = MyEvaluator"),
        (CLASS, r"makes no evaluator.* evaluator = E\(...\)"),
        (f"{CLASS}a = E()\nb = E()", "makes several evaluators: a, b. Leave one"),
        ("x = 1\nx = y\n", "e.py, line 2: NameError: name 'y' is not defined. Correct the file"),
        ("x = (\n", "e.py, line 1: '.' was never closed. Correct the file"),
        ("import sys\nsys.exit(3)\n", "e.py, line 2: SystemExit: 3"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ],
)
def test_files_that_make_none(text, words):
    with pytest.raises(EvaluatorError, match=words):
        load(text)


def test_files_that_are_none():
    with pytest.raises(EvaluatorError, match=r"nowhere.py is no file"):
        load_evaluator("nowhere.py")
    with pytest.raises(EvaluatorError, match=r"its name must end in .py"):
        load("", "evaluator.txt")


def test_targets():
    assert Target(0.5)(70, 69.5) == (True, 0.5) and Target(0.5)(70.0, 69.25) == (False, 0.75)
    assert Target(0.0)(70, 70) == (True, 0) and Target(0.5)(70, 80) == (True, -10)
    assert Target(0.5, lower_is_better=True)(3.0, 3.75) == (False, 0.75)
    with pytest.raises(EvaluatorError, match=r"returns a number, not dict"):
        Target(1.0)({}, {})
