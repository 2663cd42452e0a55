"""Runs that are cut off, and go on: nothing is evaluated twice, and the end is that of an uninterrupted run."""

import contextlib
import json
import runpy
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, load_script
from graphs import PLAIN
from programs import Program
from small_sample import LAYERS, SAMPLE, small_sample
from test_auto_calibration import Evaluator, calibrate, contents, edit_config, prepare

from amct_tensorflow.data import find_files, scan_records
from amct_tensorflow.errors import EvaluatorError, OutputError
from amct_tensorflow.io import publishing
from amct_tensorflow.log import LOG_DIR
from amct_tensorflow.model.model_file import import_graph, read_model

STATES = "accuracy_based_auto_calibration_state"
OPTIONS = {"strategy": "PredictiveSearch", "sensitivity": "OutputDivergence"}


class Interrupted(KeyboardInterrupt):
    """Stands for whatever ends a run."""


class Repeatable(Evaluator):
    """What it returns does not depend on what it was asked before. It may end the run at its so manyth evaluation."""

    reference_outputs = None

    def __init__(self, limit, at=None, error=None):
        super().__init__(limit)
        self.reference = self.reference_outputs
        self.calibrations = 0
        self.at, self.error = at, error

    def calibration(self, graph, outputs):
        self.calibrations += 1
        super().calibration(graph, outputs)

    def evaluate(self, graph, outputs):
        if len(self.evaluated) == self.at:
            raise self.error
        return super().evaluate(graph, outputs)


class Task:
    """One for which layers have to be rolled back: its folder, before it and after it; and how it is done."""

    def __init__(self, folder):
        self.folder = folder / "task"
        self.folder.mkdir()
        self.saved = folder
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            self.arguments = prepare(self.folder)
            edit_config(self.arguments, **PLAIN)
            float_graph = import_graph(read_model(self.arguments["model_file"]).graph_def, "net.pb")
            self.reference_outputs = Evaluator().predict(float_graph, self.arguments["outputs"])
            patch.setattr(Repeatable, "reference_outputs", self.reference_outputs)
            self.limit = 0.3 * calibrate(self.arguments, Repeatable(limit=1e9)).loss
            shutil.rmtree(LOG_DIR / STATES)
            shutil.copytree(self.folder, folder / "before")
            evaluator = Repeatable(self.limit)
            calibrate(self.arguments, evaluator, **OPTIONS)
            self.evaluated = tuple(evaluator.evaluated)
            assert len(self.evaluated) >= 4
            self.expected = contents(Path())
            shutil.copytree(self.folder, folder / "done")

    def restore(self, name):
        """Makes the contents of the folder what they were then."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.copytree(self.saved / name, self.folder, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def shared_task(tmp_path_factory):
    return Task(tmp_path_factory.mktemp("resume"))


@pytest.fixture
def task(shared_task, monkeypatch):
    """A task that was not begun, whose folder this is, and the loss that is allowed."""
    shared_task.restore("before")
    monkeypatch.chdir(shared_task.folder)
    monkeypatch.setattr(Repeatable, "reference_outputs", shared_task.reference_outputs)
    return dict(shared_task.arguments), shared_task.limit


@pytest.fixture
def done(task, shared_task):
    """The task was done, and nothing interrupted it: what that left, and how many models were evaluated."""
    shared_task.restore("done")
    return dict(shared_task.expected), list(shared_task.evaluated)


@pytest.fixture
def reference(done):
    """The same without the state."""
    shutil.rmtree(LOG_DIR / STATES)
    return done


@pytest.mark.parametrize(
    ("at", "error"),
    [
        (0, Interrupted()),
        (1, Interrupted()),
        (2, Interrupted()),
        (3, Interrupted()),
        (2, EvaluatorError("lost connection")),
        (2, OSError("disk full")),
    ],
)
def test_it_goes_on_where_it_was_cut_off(task, reference, at, error):
    arguments, limit = task
    expected, evaluated = reference
    first = Repeatable(limit, at, error)
    with pytest.raises((Interrupted, EvaluatorError)):
        calibrate(arguments, first, **OPTIONS)
    second = Repeatable(limit)
    result = calibrate(arguments, second, resume=True, **OPTIONS)
    assert first.evaluated + second.evaluated == evaluated
    assert first.calibrations + second.calibrations == 1
    assert result.evaluations == len(evaluated)
    assert contents(Path()) == expected


def test_the_best_result_so_far_is_saved_if_it_is_interrupted(task, reference, messages):
    """From the second quantized model on; before that earlier results stay."""
    arguments, limit = task
    expected, _ = reference
    for at in (0, 1):
        with pytest.raises(Interrupted):
            calibrate(arguments, Repeatable(limit, at, Interrupted()), **OPTIONS)
        assert contents(Path()) == expected
    evaluator = Repeatable(limit, 2, Interrupted())
    with pytest.raises(Interrupted):
        calibrate(arguments, evaluator, **OPTIONS)
    history = json.loads((LOG_DIR / "accuracy_based_auto_calibration_record.json").read_text())
    assert len(history) == 1
    final = json.loads(Path("out/accuracy_based_auto_calibration_final_config.json").read_text())
    assert all(layer["quant_enable"] for layer in final.values() if isinstance(layer, dict))
    assert any("interrupted" in line for line in messages)


def test_without_resume_nothing_old_is_used(task, reference):
    arguments, limit = task
    _, evaluated = reference
    with pytest.raises(Interrupted):
        calibrate(arguments, Repeatable(limit, 3, Interrupted()), **OPTIONS)
    evaluator = Repeatable(limit)
    calibrate(arguments, evaluator, **OPTIONS)
    assert evaluator.evaluated == evaluated


def test_another_target_or_strategy_uses_the_same_evaluations(task, reference):
    """They decide which models are evaluated, not what the evaluations give."""
    arguments, limit = task
    with pytest.raises(Interrupted):
        calibrate(arguments, Repeatable(limit, 3, Interrupted()), **OPTIONS)
    evaluator = Repeatable(limit * 100)
    result = calibrate(arguments, evaluator, resume=True)
    assert evaluator.evaluated == [] and result.target_met and result.evaluations == 2


class Identified(Repeatable):
    """Says on which data it works."""

    data = "one"

    def identity(self):
        return {"dataset": self.data, "batch size": 4}


class OtherData(Identified):
    data = "two"


OtherData.__name__ = "Identified"


def change_configuration(arguments):
    edit_config(arguments, activation_offset=False)


def change_model(arguments):
    """Another weight in the first layer."""
    graph_def = read_model(arguments["model_file"]).graph_def
    node = next(node for node in graph_def.node if node.op == "Const" and node.attr["value"].tensor.tensor_content)
    content = bytearray(node.attr["value"].tensor.tensor_content)
    content[0] ^= 1
    node.attr["value"].tensor.tensor_content = bytes(content)
    Path(arguments["model_file"]).write_bytes(graph_def.SerializeToString())


@pytest.mark.parametrize(
    ("change", "again", "named"),
    [
        (lambda arguments: None, Identified, None),
        (change_configuration, Identified, "configuration has changed"),
        (lambda arguments: None, OtherData, "dataset has changed"),
        (change_model, Identified, "model has changed"),
        (change_configuration, OtherData, "dataset, configuration have changed"),
    ],
)
def test_what_has_changed_is_named_and_nothing_old_is_used(task, messages, change, again, named):
    arguments, limit = task
    calibrate(arguments, Identified(limit))
    change(arguments)
    evaluator = again(limit)
    calibrate(arguments, evaluator, resume=True)
    assert bool(evaluator.evaluated) == (named is not None)
    if named:
        assert any(named in line and "Starting from the beginning" in line for line in messages)


MINE = """
from amct_tensorflow.common.auto_calibration import SensitivityBase
from test_resume import Repeatable

SCALE = 2.0


def scaled(metric):
    return metric * SCALE


class Base(Repeatable):
    def evaluate(self, graph, outputs):
        return scaled(super().evaluate(graph, outputs))


class Mine(Base):
    offset = 1


class Near(SensitivityBase):
    def __init__(self, power=2):
        self.power = power

    def compare(self, data, other):
        return -float((abs(data - other) ** self.power).mean())
"""
EDITS = {
    "a method": ("super().evaluate(graph, outputs)", "1 + super().evaluate(graph, outputs)"),
    "a helper": ("metric * SCALE", "metric + SCALE"),
    "a constant": ("SCALE = 2.0", "SCALE = 3.0"),
    "an attribute": ("offset = 1", "offset = 2"),
}


def written(text, file="mine.py"):
    """Writes a module, and returns what stands in it."""
    Path(file).write_text(text)
    return runpy.run_path(file)


def executed(text):
    """Returns what a module holds of which there is no file, as in an interactive session."""
    names = {"__name__": "__main__"}
    exec(text, names)
    return names


@pytest.mark.parametrize("make", [written, executed])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_evaluator_that_was_edited_is_noticed(task, messages, make, edit):
    arguments, limit = task
    calibrate(arguments, make(MINE)["Mine"](limit))
    same = make(MINE)["Mine"](limit)
    calibrate(arguments, same, resume=True)
    assert same.evaluated == []
    edited = make(MINE.replace(*edit))["Mine"](limit)
    calibrate(arguments, edited, resume=True)
    assert edited.evaluated
    assert any("The evaluator's code has changed" in line for line in messages)
    assert any("source of evaluator Base cannot be read" in line for line in messages) == (make is executed)


def test_a_sensitivity_that_was_edited_is_noticed(task, messages):
    """What it said of each layer is kept together with the calibration."""
    arguments, limit = task
    evaluator = written(MINE)["Mine"]
    calibrate(arguments, evaluator(limit), sensitivity=written(MINE, "near.py")["Near"]())
    text = MINE.replace("abs(data - other)", "abs(data - 2 * other)")
    for module, power, again in ((MINE, 2, False), (text, 2, True), (text, 1, True)):
        mine = evaluator(limit)
        calibrate(arguments, mine, sensitivity=written(module, "near.py")["Near"](power), resume=True)
        assert bool(mine.evaluated) == again
        assert any("The sensitivity's code has changed" in line for line in messages) == again
        messages.clear()


class NamedLikeOurs(Repeatable):
    """Tells of things under the names that the engine has for its own."""

    told = "one"

    def identity(self):
        ours = ["evaluator", "evaluator's code", "model", "outputs", "configuration", "sensitivity", "use of oneDNN"]
        ours.append("software")
        return dict.fromkeys(ours, self.told)


def test_names_that_an_evaluator_uses_do_not_hide_ours(task, messages, monkeypatch):
    arguments, limit = task
    calibrate(arguments, NamedLikeOurs(limit))
    change_model(arguments)
    evaluator = NamedLikeOurs(limit)
    calibrate(arguments, evaluator, resume=True)
    assert evaluator.evaluated
    assert any("The model has changed" in line for line in messages)
    monkeypatch.setattr(NamedLikeOurs, "told", "two")
    evaluator = NamedLikeOurs(limit)
    calibrate(arguments, evaluator, resume=True)
    assert evaluator.evaluated
    assert any("model of identity()" in line and "have changed" in line for line in messages)


def state_file(name="state.json"):
    (found,) = (LOG_DIR / STATES).glob(f"*/{name}")
    return found


DAMAGE = {
    "empty": lambda document: "",
    "truncated": lambda document: json.dumps(document)[:-20],
    "no object": lambda document: "[]",
    "another version": lambda document: json.dumps({**document, "version": 99}),
    "no key": lambda document: json.dumps({**document, "key": None}),
    "no evaluation": lambda document: json.dumps({**document, "evaluations": {"original": []}}),
    "no metric": lambda document: json.dumps({**document, "evaluations": {"original": {}}}),
    "no calibration": lambda document: json.dumps({**document, "calibration": {"calibration": {}}}),
    "deep": lambda document: "[" * 100_000,
    "another record": lambda document: json.dumps(document).replace("conv/Conv2D", "other/Conv2D"),
    "nan": lambda document: json.dumps(document).replace("scale_d: 0", "scale_d: nan"),
    "other arrays": lambda document: json.dumps(document).replace('"sha256": "', '"sha256": "0'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_not_used(task, done, damage, messages):
    arguments, limit = task
    expected, evaluated = done
    file = state_file()
    file.write_text(damage(json.loads(file.read_text())))
    evaluator = Repeatable(limit)
    calibrate(arguments, evaluator, resume=True, **OPTIONS)
    assert evaluator.evaluated == evaluated and contents(Path()) == expected
    assert any("Starting from the beginning" in line for line in messages)
    assert set(json.loads(file.read_text())) == {"version", "key", "choices", "evaluations", "calibration"}


def test_arrays_that_were_tampered_with_are_not_used(task, done, messages):
    arguments, limit = task
    _, evaluated = done
    arrays = state_file("calibration.npz")
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"!")
    evaluator = Repeatable(limit)
    calibrate(arguments, evaluator, resume=True, **OPTIONS)
    assert evaluator.evaluated == evaluated


class Odd(Repeatable):
    """Returns metrics that no JSON file holds exactly."""

    def evaluate(self, graph, outputs):
        return np.float32(super().evaluate(graph, outputs))


def test_a_metric_that_cannot_be_kept_is_measured_again(task, messages):
    arguments, limit = task
    calibrate(arguments, Odd(limit))
    evaluator = Odd(limit)
    result = calibrate(arguments, evaluator, resume=True)
    assert len(evaluator.evaluated) == result.evaluations
    assert any("cannot be kept in a file" in line for line in messages)


# ----------------------------------------------------------------------------------------------------- Disk faults


class Replaces(Repeatable):
    """Replaces the model file while it is evaluated."""

    def evaluate(self, graph, outputs):
        Path("net.pb").write_bytes(b"another model")
        return super().evaluate(graph, outputs)


def test_a_model_file_that_is_replaced_meanwhile_does_not_matter(task, reference):
    arguments, limit = task
    calibrate(arguments, Replaces(limit), **OPTIONS)
    others = ("net.pb", "report.html", "report.json")  # a report tells by which evaluator it is
    expected = {path: data for path, data in reference[0].items() if path.name not in others}
    assert {path: data for path, data in contents(Path()).items() if path.name not in others} == expected
    files = json.loads(Path("out/report.json").read_text())["reproduction"]["files"]
    assert files == json.loads(reference[0][Path("out/report.json")])["reproduction"]["files"]


class FillsTheDisk(Repeatable):
    """Takes what is left of the disk when the first model is evaluated."""

    def evaluate(self, graph, outputs):
        with contextlib.suppress(OSError), open("/dev/zero", "rb") as zeros, open("rest", "ab", buffering=0) as rest:  # noqa: PTH123
            while rest.write(zeros.read(1024)):
                pass
        return super().evaluate(graph, outputs)


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """This directory on a file system of 2 MiB, where mounting one is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    monkeypatch.chdir(folder)
    yield folder
    monkeypatch.chdir(tmp_path)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk, monkeypatch, messages):
    """The run goes on without its state, and says at its end that there is no room; earlier results stay."""
    arguments = prepare(small_disk)
    calibrate(arguments)
    before = contents(Path())
    with pytest.raises(OutputError, match="No space left on device"):
        calibrate(arguments, FillsTheDisk(1e9))
    Path("rest").unlink()
    assert contents(Path()) == before
    assert any("could not be resumed from here" in line for line in messages)
    assert calibrate(arguments).target_met


# ------------------------------------------------------------------------------------------ Other names, same folder


def test_a_run_with_another_prefix_completes_one_that_was_killed(workdir, monkeypatch):
    """Right after its commit, when none of its files had its name yet."""
    arguments = prepare(workdir)
    arguments["record_file"] = str(workdir / "records" / "record.txt")
    edit_config(arguments, **PLAIN)
    calibrate(arguments)
    expected = contents(Path())
    edit_config(arguments, bias_correction=True, weight_rounding="second_moments")
    calibrate(arguments)
    assert contents(Path()) != expected
    edit_config(arguments, **PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "finish", lambda *_: None)
        calibrate(arguments)
    other = {**arguments, "save_dir": str(workdir / "out" / "other"), "record_file": str(workdir / "out" / "other.txt")}
    calibrate(other)
    found = contents(Path())
    beside = ("other_bias_correction.json", "other_weights.npz")
    for name in ("other_quantized.pb", "other_quant.json", "other.txt", *beside):
        assert found.pop(Path("out") / name)
    for name in ("report.html", "report.json"):  # of the run that came last
        assert b"other_quantized.pb" in found.pop(Path("out") / name)
        assert b"net_quantized.pb" in expected.pop(Path("out") / name)
    assert found == expected


# ------------------------------------------------------------------------------------------- The sample's process


def start(*more):
    """Starts a run of the sample in this directory, which has to roll layers back."""
    return Program(SAMPLE, *small_sample(Path.cwd(), "--expected_acc_loss", "0.6", *more))


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.campaign)],
    ids=["ctrl-c", "term"],
)
def test_signals(workdir, sent, code):
    """The run stops soon, saves the best model so far, says how to resume, and resumes."""
    program = start()
    assert program.says(f"Ranking {LAYERS} layers")
    program.send_signal(sent)
    assert program.wait(20) == code
    text = program.stderr
    assert "--resume" in text.splitlines()[-1] and "Traceback" not in text
    assert len(json.loads((LOG_DIR / "accuracy_based_auto_calibration_record.json").read_text())) == 1
    again = start("--resume")
    assert again.wait() == 0, again.stderr
    assert "(2 of them in the earlier run)" in again.stderr


def test_a_second_run_in_the_same_directory_is_refused(workdir):
    first = start()
    assert first.says("calibrated on")
    first.send_signal(signal.SIGSTOP)  # else it may end while the other starts
    before = contents(workdir)
    second = start()
    assert second.wait() == 1
    assert "Another run is writing to" in second.stderr.splitlines()[-1]
    assert contents(workdir) == before
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    log = (LOG_DIR / "amct_tensorflow.log").read_text()
    assert "Accuracy of saved model" in log and "Another run" not in log


def test_the_sample_notices_another_dataset(workdir, tmp_path):
    sample = load_script("src/mobilenet_v2_accuracy_based_auto_calibration.py")
    dataset = scan_records(find_files(ROOT / "data" / "fashion_mnist"), sample.FEATURES)
    fewer = scan_records(find_files(ROOT / "data" / "fashion_mnist"), sample.FEATURES, 100)
    one, other = (sample.MobileNetV2Evaluator(each).identity() for each in (dataset, fewer))
    assert {name for name in one if one[name] != other[name]} == {"dataset"}
    assert json.dumps(one)
    other = sample.MobileNetV2Evaluator(dataset, batch_size=8).identity()
    assert {name for name in one if one[name] != other[name]} == {"batch size"}


def test_a_result_of_another_model_is_not_used(task, done):
    """An evaluation is that of one model, to the byte."""
    arguments, limit = task
    expected, evaluated = done
    document = json.loads(state_file().read_text())
    for name, entry in document["evaluations"].items():
        entry["model"] = entry["model"] if name == "original" else "0" * 64
    state_file().write_text(json.dumps(document))
    evaluator = Repeatable(limit)
    calibrate(arguments, evaluator, resume=True, **OPTIONS)
    assert evaluator.evaluated == evaluated[1:] and contents(Path()) == expected
