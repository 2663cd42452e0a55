"""What is made beside the evaluation of the first quantized model is what would be made behind it."""

import json
from pathlib import Path

import pytest
from graphs import PLAIN
from test_auto_calibration import Evaluator, calibrate, edit_config, prepare

from amct_tensorflow.results import made_ahead
from amct_tensorflow.results.report.report_json import read_report
from amct_tensorflow.results.result_files import ResultFiles


class Overlapping(Evaluator):
    """Lets the calibration, and what is made ahead, go on beside its evaluations."""

    calibration_may_overlap = True


@pytest.fixture
def task(workdir):
    """A model, and the loss of its first quantized model."""
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    return arguments, calibrate(arguments, Evaluator()).loss


@pytest.fixture
def made(monkeypatch):
    """How often the files of a model, and the layers of a report, are made."""
    count = {"files": 0, "layers": 0}
    contents, describe = ResultFiles.contents_of_model, made_ahead.describe_layers

    def files(self, result):
        count["files"] += 1
        return contents(self, result)

    def layers(*arguments):
        count["layers"] += 1
        return describe(*arguments)

    monkeypatch.setattr(ResultFiles, "contents_of_model", files)
    monkeypatch.setattr(made_ahead, "describe_layers", layers)
    return count


def files_of(arguments):
    """The results of a run but for what tells times, and which evaluator it was."""
    folder = Path(arguments["save_dir"]).parent
    report = json.loads((folder / "report.json").read_text("utf-8"))
    del report["times"], report["reproduction"]
    paths = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith("report.")]
    return {path.name: path.read_bytes() for path in paths}, report


@pytest.mark.parametrize("share", [2, 0.3])
def test_files_and_report_are_those_of_a_run_in_turn(task, made, share):
    """Whether the first quantized model is saved, or layers have to be rolled back."""
    arguments, loss = task
    calibrate(arguments, Overlapping(loss * share))
    beside = dict(made)
    found = files_of(arguments)
    calibrate(arguments, Evaluator(loss * share))
    in_turn = {name: made[name] - beside[name] for name in made}
    assert found == files_of(arguments)
    assert beside == ({"files": 1, "layers": 1} if share > 1 else {"files": 2, "layers": 2})
    assert in_turn == {"files": 1, "layers": 1}


def test_an_error_ahead_is_one_of_the_end(task, monkeypatch):
    """Nothing is lost by it: what fails beside the evaluation is made again, and told then."""
    arguments, loss = task
    describe, calls = made_ahead.describe_layers, []

    def fail_once(*given):
        calls.append(given)
        if len(calls) == 1:
            raise ValueError("cannot be described")
        return describe(*given)

    monkeypatch.setattr(made_ahead, "describe_layers", fail_once)
    assert calibrate(arguments, Overlapping(loss * 2)).target_met
    assert len(calls) == 2 and len(read_report(Path(arguments["save_dir"]).parent).layers) > 2
