"""What the README and the guide tell people to type does what they say."""

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import load_script
from documents import GUIDE, ROOT, codes, commands

from amct_tensorflow import FloatModel
from amct_tensorflow.__main__ import _EXIT_CODES as EXIT_CODES
from amct_tensorflow.__main__ import _parser as parser
from amct_tensorflow.data import find_files, parse_records, read_records, scan_records

sample = load_script("src/mobilenet_v2_accuracy_based_auto_calibration.py")

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *GUIDE)}
COMMANDS = [command for text in TEXTS.values() for command in commands(text)]
(STEPS,) = codes(TEXTS["README.md"])
CONSTANTS, PREPROCESS, FREEZE = codes(TEXTS["own_model.md"])
(GRAPH_EVALUATOR,) = codes(TEXTS["own_data.md"])
(EVALUATOR,) = codes(TEXTS["command_line.md"])
SEARCH, DEVICE, SIMULATE = codes(TEXTS["python.md"])

SHORT = ("--num_images", "100", "--expected_acc_loss", "5")

# Where each command is tried: by the test of that name, by CI, or (only ATC) nowhere.
TRIED = {
    "make demo": "test_make.py::test_demo",
    "make test": "CI",
    "make model ARCHIVE=": "test_make.py::test_model_from_an_archive",
    "pip install -r requirements.txt": "CI",
    "pip install .": "test_packaging.py::test_installed_package_works_outside_of_the_checkout",
    "python src/mobilenet_v2_accuracy_based_auto_calibration.py": "test_make.py::test_demo",
    "python ./src/mobilenet_v2_accuracy_based_auto_calibration.py --dataset":
        "test_real_model.py::test_five_lines_and_eight_files",
    "python src/images_to_tfrecords.py": "test_guide.py::test_images_become_records",
    "python -m amct_tensorflow inspect": "cli/test_inspect.py::test_what_the_guide_shows",
    "python -m amct_tensorflow auto-calibrate": "test_guide.py::test_any_model_from_the_command_line",
    "python -m amct_tensorflow compare": "cli/test_compare.py::test_json_of_data",
    "python -m amct_tensorflow check": "cli/test_check.py::test_json_alone_is_on_stdout",
    "python -m amct_tensorflow report": "test_guide.py::test_any_model_from_the_command_line",
    "python -m amct_tensorflow export": "cli/test_export.py::test_json",
    "python -m amct_tensorflow calibration": "test_guide.py::test_any_model_from_the_command_line",
    "eval ": "cli/test_command_line.py::test_what_the_readme_has_typed_into_a_shell",
    "cp src/": "test_guide.py::test_another_model",
    "python src/my_model.py": "test_guide.py::test_another_model",
    "atc ": "nowhere",
}  # fmt: skip


def tried(command):
    """Returns where a command is tried: what the longest key that it begins with says."""
    return TRIED[max((key for key in TRIED if command.startswith(key)), key=len)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_tried(command):
    where = tried(command)
    if where == "CI":
        target = command.removeprefix("make ")
        ci, makefile = (ROOT / ".ci" / "run").read_text(), (ROOT / "Makefile").read_text()
        assert f"make {target}" in ci or command[12:] in makefile
    elif where != "nowhere":
        file, _, name = where.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), where
    assert (where == "nowhere") == command.startswith("atc ")


@pytest.mark.parametrize("command", [command for command in COMMANDS if "-m amct_tensorflow" in command])
def test_commands_are_understood(command):
    """Options exist, and take such values."""
    arguments = parser().parse_args(shlex.split(command)[3:])
    arguments.command.check(arguments.parser, arguments)


def test_no_command_is_told_that_no_page_has():
    assert [key for key in TRIED if not any(command.startswith(key) for command in COMMANDS)] == []


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with what the commands name, as the working directory."""
    for name in ("src", "model", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*_1.0_*"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def command_of(part):
    (command,) = (command for command in COMMANDS if part in command)
    return command


def run_script(monkeypatch, command, *more):
    """Runs the script that a command names, in this process; returns its exit code."""
    _, path, *arguments = shlex.split(command)
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # workers would look for the evaluator there
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [path, *arguments, *more])
    return module.main()


def run_command(main, part):
    """Runs a command of the package in this process; returns its exit code."""
    return main(shlex.split(command_of(part))[3:])


def test_images_become_records(project, monkeypatch):
    """Into a folder per class, and back into what the sample reads."""
    for name, level in (("cat", 50), ("ant", 200)):
        image = project / "IMAGES" / name / "1.png"
        image.parent.mkdir(parents=True)
        image.write_bytes(tf.io.encode_png(np.full((8, 8, 3), level, np.uint8)).numpy())
    (project / "CLASSES").write_text("cat\nant\n")
    assert run_script(monkeypatch, command_of("images_to_tfrecords.py")) == 0
    dataset = scan_records(find_files(project / "DATASET"), sample.FEATURES)
    assert dataset.num_records == 2 and dataset.largest[sample.LABEL_KEY] == 2
    images, labels = next(iter(sample.MobileNetV2Evaluator(dataset, 2).batches(4, 4)))
    assert dict(zip(labels.numpy().tolist(), np.sign(images.numpy()[:, 0, 0, 0]), strict=True)) == {1: -1, 2: 1}


def make_keras_model(file, epochs=4):
    """Trains a small network for a moment, with images as the worked example prepares them."""
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input((28, 28, 3)),
            layers.Conv2D(16, 3, 2, activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, 1, activation="relu"),
            layers.Conv2D(32, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    if epochs:
        scope = {"tf": tf}
        exec(PREPROCESS, scope)
        records = read_records(find_files(ROOT / "data" / "fashion_mnist"))
        examples = [parse_records(record, sample.FEATURES) for record in records]
        images = np.stack([scope["preprocess"](example[sample.IMAGE_KEY], 28, 28) for example in examples])
        labels = np.stack([example[sample.LABEL_KEY] for example in examples])
        model.compile(tf.keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
        model.fit(images, labels, batch_size=50, epochs=epochs, verbose=0)
    model.save(file)


@pytest.mark.campaign
def test_another_model(project, monkeypatch, messages):
    """The worked example, step by step: copy, edit, run."""
    make_keras_model(project / "my_model.keras")
    _, source, copy = shlex.split(command_of("cp src/"))
    text = Path(source).read_text()
    for line in CONSTANTS.splitlines():
        text, count = re.subn(rf"(?m)^{line.split()[0]} = .*$", lambda _, line=line: line, text)
        assert count == 1
    text, count = re.subn(
        r"(?s)^def preprocess\(.*?(?=\n\n\n)", lambda _: PREPROCESS.rstrip(), text, flags=re.MULTILINE
    )
    assert count == 1
    Path(copy).write_text(text)
    assert run_script(monkeypatch, command_of("src/my_model.py --dataset"), *SHORT) == 0
    (accuracy,) = re.findall(r"Accuracy of original model is +([\d.]+)", "\n".join(messages))
    assert float(accuracy) > 40
    results = project / "outputs" / "accuracy_based_auto_calibration"
    assert (results / "my_model_quantized.pb").is_file() and (results / "my_model_frozen.pb").is_file()


def test_any_model_from_the_command_line(project, main, messages):
    """The evaluator with the commands, one after the other."""
    (project / "my_evaluator.py").write_text(EVALUATOR)
    save_images(16)
    assert run_command(main, "auto-calibrate model/") == 0
    accuracies = re.findall(r"Accuracy of original model is +([\d.]+)", "\n".join(messages))
    assert len(accuracies) == 1 and float(accuracies[0]) > 70
    assert run_command(main, "amct_tensorflow report") == 0
    assert "<title>Target met" in Path("results/report.html").read_text(encoding="utf-8")
    assert run_command(main, "amct_tensorflow calibration") == 0
    assert "The model is saved in results/net_quantized.pb" in messages[-1]


def save_images(number):
    """Saves bundled images and their labels, as the guide's evaluators read them."""
    dataset = scan_records(find_files(ROOT / "data" / "fashion_mnist"), sample.FEATURES, number)
    images, labels = next(iter(sample.MobileNetV2Evaluator(dataset, number).batches(48, 48)))
    np.save("images.npy", images)
    np.save("labels.npy", labels)


def test_freezing_by_a_program_of_ones_own(project, capsys):
    """What it writes computes the same as what is frozen on the way, and calls its output the same."""
    make_keras_model(project / "my_model.keras", epochs=0)
    exec(FREEZE, {})
    (output,) = re.findall(r"print.*# (\w+)", FREEZE)
    assert capsys.readouterr().out.split() == [output]
    images = np.random.default_rng(0).uniform(size=(2, 28, 28, 3))
    own, ours = FloatModel.load("model/my_model.pb", [output]), FloatModel.load("my_model.keras", [output])
    scores = []
    for model in (own, ours):
        with tf.compat.v1.Session(graph=model.graph) as session:
            (name,) = (op.name for op in model.graph.get_operations() if op.type == "Placeholder")
            scores.append(session.run(f"{output}:0", {f"{name}:0": images}))
    np.testing.assert_allclose(*scores, rtol=1e-5)


@pytest.mark.campaign
def test_from_python(project):
    """The four steps, the search around an evaluator, and the simulation of its result; one after the other."""
    save_images(32)
    scope = {}
    exec(STEPS, scope)
    assert Path("record.txt").read_text().count("scale_d") == 54
    exec(SEARCH, scope)
    result = scope["result"]
    assert result.original_metric == 100 and result.target_met and result.saved_metric > 95
    exec(SIMULATE, scope)
    predictions = scope["Agreement"]().predict(scope["graph"], [scope["output"]])
    np.testing.assert_array_equal(scope["scores"].argmax(axis=1), predictions)


def test_raw_files(project):
    """The evaluator of the guide takes raw files, and refuses outputs that moved too far."""
    save_images(32)
    Path("batches").mkdir()
    np.load("images.npy").astype(np.float32).tofile("batches/0.bin")
    scope = {}
    exec("import amct_tensorflow as amct\n" + GRAPH_EVALUATOR, scope)
    model = FloatModel.load("model/mobilenet_v2_0.35_48_fashion_mnist.pb", ["MobilenetV2/Predictions/Reshape_1"])
    evaluator = scope["evaluator"]
    metric = evaluator.evaluate(model.graph, ["MobilenetV2/Predictions/Reshape_1"])
    assert evaluator.metric_eval(metric, metric)[0]


def test_a_device_of_ones_own():
    scope = {}
    exec(DEVICE, scope)
    assert scope["npu"].name == "npu" and len(scope["npu"].rungs) == 3


def test_exit_codes_are_those_of_the_programs():
    table = TEXTS["README.md"].split("## Exit codes")[1].split("##")[0]
    documented = {code for row in re.findall(r"(?m)^\| ([\d, ]+) \|", table) for code in row.split(", ")}
    assert documented == set(re.findall(r"\b\d+\b", EXIT_CODES)) == {"0", "1", "2", "3", "130", "143"}


def test_arguments_are_those_of_the_sample():
    table = TEXTS["command_line.md"].split("| argument |")[1].split("\n\n")[0]
    documented = dict(re.findall(r"(?m)^\| `--(\w+)[^|]*\| ([^|]+) \|", table))
    arguments = vars(sample.parse_arguments(["--dataset", "data"]))
    assert list(documented) == ["dataset", "keyword", "num_parallel_reads", "batch_size", "model", "expected_acc_loss",
                                "num_images", "calibration_batches", "config_defination", "strategy",
                                "sensitivity", "device", "no_free_roll_back", "num_workers", "ray", "resume",
                                "exact"]  # fmt: skip
    switched_off = {name for name, default in arguments.items() if default is True}
    assert set(documented) == {f"no_{name}" if name in switched_off else name for name in arguments}
    for name, default in arguments.items():
        if default not in (None, "", "data", False, True):
            assert str(default) in documented[name]
