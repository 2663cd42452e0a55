"""What the READMEs tell people to type does what they say; both languages say the same."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, load_script

from amct_tensorflow import FloatModel
from amct_tensorflow.data import find_files, parse_records, read_records, scan_records

sample = load_script("src/mobilenet_v2_accuracy_based_auto_calibration.py")

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_CN.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"(?m)^    ((?:make|pip|python|cp|atc|eval|\.venv/bin/python)\b.*)$")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)

CONSTANTS, PREPROCESS, FREEZE, EVALUATOR, STEPS, SEARCH, SIMULATE = PYTHON.findall(ENGLISH)

# Where each command is tried: by the test of that name, by CI, or (only ATC) nowhere.
TRIED = {
    "make demo": "test_make.py::test_demo",
    "make test": "CI",
    "make model": "test_fetch_mobilenet_v2.py::test_it_is_fetched_from_an_address_with_progress",
    "make model ARCHIVE=": "test_make.py::test_model_from_an_archive",
    "make setup": "test_make.py::test_setup_installs_once",
    "make lint": "CI",
    "make format": "test_readme.py::test_developers_commands",
    "make dist": "test_packaging.py::test_wheel",
    "make fuzz": "test_readme.py::test_developers_commands",
    "make kill": "test_readme.py::test_developers_commands",
    "make browser": "test_readme.py::test_developers_commands",
    "make lock": "test_readme.py::test_developers_commands",
    "make audit": "test_readme.py::test_developers_commands",
    "make bench": "test_readme.py::test_developers_commands",
    "make bench-accuracy": "test_readme.py::test_developers_commands",
    "make bench-exports": "test_readme.py::test_developers_commands",
    "make bench-peers": "test_readme.py::test_developers_commands",
    "make clean": "test_readme.py::test_developers_commands",
    "pip install -r requirements.txt": "CI",
    "pip install .": "test_packaging.py::test_installed_package_works_outside_of_the_checkout",
    ".venv/bin/python src/mobilenet_v2_accuracy_based_auto_calibration.py":
        "test_readme.py::test_bundled_run_with_the_normal_target",
    "python ./src/mobilenet_v2_accuracy_based_auto_calibration.py --dataset":
        "test_real_model.py::test_five_lines_and_eight_files",
    "python src/images_to_tfrecords.py": "test_readme.py::test_images_become_records",
    "python -m amct_tensorflow inspect": "commands/test_inspect.py::test_what_the_readme_shows",
    "python -m amct_tensorflow auto-calibrate": "test_readme.py::test_any_model_from_the_command_line",
    "python -m amct_tensorflow compare": "test_readme.py::test_any_model_from_the_command_line",
    "python -m amct_tensorflow report": "commands/test_report_command.py::test_two_runs_are_compared",
    "python -m amct_tensorflow export": "test_readme.py::test_any_model_from_the_command_line",
    "python -m amct_tensorflow calibration": "test_readme.py::test_any_model_from_the_command_line",
    "eval ": "commands/test_command_line.py::test_what_the_readme_has_typed_into_a_shell",
    "cp src/": "test_readme.py::test_another_model",
    "python src/my_model.py": "test_readme.py::test_another_model",
    "atc ": "nowhere",
}  # fmt: skip


def commands(text):
    return COMMAND.findall(text)


def tried(command):
    """Returns where a command is tried: what the longest key that it begins with says."""
    return TRIED[max((key for key in TRIED if command.startswith(key)), key=len)]


def test_every_command_is_tried():
    for command in commands(ENGLISH):
        where = tried(command)
        if where == "CI":
            target = command.removeprefix("make ")
            ci, makefile = (ROOT / ".ci" / "run").read_text(), (ROOT / "Makefile").read_text()
            assert f"make {target}" in ci or f"test: {target}" in makefile or command[12:] in makefile
        elif where != "nowhere":
            file, _, name = where.partition("::")
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(), where
    assert [command for command in commands(ENGLISH) if tried(command) == "nowhere"] == [
        command for command in commands(ENGLISH) if command.startswith("atc ")
    ]


def run(checkout, command, *more):
    """Runs a command as a shell would, with the Python of the tests."""
    arguments = [sys.executable if word.endswith("python") else word for word in shlex.split(command)]
    return subprocess.run([*arguments, *more], cwd=checkout, capture_output=True, text=True, check=False)


def command_of(part):
    (command,) = (command for command in commands(ENGLISH) if part in command)
    return command


def test_bundled_run_with_the_normal_target(checkout):
    """The run without the demo's configuration ends as the README shows, and leaves its report."""
    done = run(checkout, command_of("--dataset data/fashion_mnist --model model/mobilenet_v2_0.35"))
    assert done.returncode == 0, done.stderr
    shown = ENGLISH.split("normal settings")[1].split("second command")[0]
    for line in re.findall(r"Accuracy of .* model is +", shown):
        said = float(re.search(re.escape(line) + r"([\d.]+)", shown)[1])
        found = float(re.search(re.escape(line) + r"([\d.]+)", done.stderr)[1])
        assert found == pytest.approx(said, abs=0.3)
    assert "layers in float         | 0 of 54" in shown and "layers in float         | 0 of 54" in done.stderr
    page = (checkout / "outputs" / "accuracy_based_auto_calibration" / "report.html").read_text(encoding="utf-8")
    assert "<title>Target met" in page


def test_images_become_records(checkout):
    """Into a folder per class, and back into what the sample reads."""
    for name, level in (("cat", 50), ("ant", 200)):
        image = checkout / "IMAGES" / name / "1.png"
        image.parent.mkdir(parents=True)
        image.write_bytes(tf.io.encode_png(np.full((8, 8, 3), level, np.uint8)).numpy())
    (checkout / "CLASSES").write_text("cat\nant\n")
    done = run(checkout, command_of("images_to_tfrecords.py"))
    assert done.returncode == 0, done.stderr
    dataset = scan_records(find_files(checkout / "DATASET"), sample.FEATURES)
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
    scope = {"tf": tf}
    exec(PREPROCESS, scope)
    records = read_records(find_files(ROOT / "data" / "fashion_mnist"))
    examples = [parse_records(record, sample.FEATURES) for record in records]
    images = np.stack([scope["preprocess"](example[sample.IMAGE_KEY], 28, 28) for example in examples])
    labels = np.stack([example[sample.LABEL_KEY] for example in examples])
    model.compile(tf.keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=50, epochs=epochs, verbose=0)
    model.save(file)


def test_another_model(checkout):
    """The worked example, step by step: copy, edit, run."""
    make_keras_model(checkout / "my_model.keras")
    assert run(checkout, command_of("cp src/")).returncode == 0
    copied = checkout / "src" / "my_model.py"
    text = copied.read_text()
    for line in CONSTANTS.splitlines():
        text, count = re.subn(rf"(?m)^{line.split()[0]} = .*$", lambda _, line=line: line, text)
        assert count == 1
    text, count = re.subn(
        r"(?s)^def preprocess\(.*?(?=\n\n\n)", lambda _: PREPROCESS.rstrip(), text, flags=re.MULTILINE
    )
    assert count == 1
    copied.write_text(text)
    done = run(checkout, command_of("src/my_model.py --dataset"))
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"Accuracy of original model is +([\d.]+)", done.stderr)[1]) > 40
    results = checkout / "outputs" / "accuracy_based_auto_calibration"
    assert (results / "my_model_quantized.pb").is_file() and (results / "my_model_frozen.pb").is_file()


def test_any_model_from_the_command_line(checkout):
    """The evaluator and the commands, one after the other."""
    (checkout / "my_evaluator.py").write_text(EVALUATOR)
    dataset = scan_records(find_files(checkout / "data" / "fashion_mnist"), sample.FEATURES, 200)
    images, labels = next(iter(sample.MobileNetV2Evaluator(dataset, 200).batches(48, 48)))
    np.save(checkout / "images.npy", images)
    np.save(checkout / "labels.npy", labels)
    parts = ("auto-calibrate", "amct_tensorflow compare", "amct_tensorflow export", "amct_tensorflow calibration")
    for part in parts:
        done = run(checkout, command_of(part))
        assert done.returncode == 0, done.stderr
        if part == "auto-calibrate":
            assert float(re.search(r"Accuracy of original model is +([\d.]+)", done.stderr)[1]) > 70
        elif "compare" in part:
            assert done.stdout.split()[0] == "damage" and "compared on data of images.npy" in done.stdout
        elif "export" in part:
            assert "net.tflite: " in done.stdout and "compared with the simulation on 200 images" in done.stdout
        else:
            assert "The model is saved in results/net_quantized.pb" in done.stderr


def test_freezing_by_a_program_of_ones_own(workdir, capsys):
    """What it writes computes the same as what is frozen on the way, and calls its output the same."""
    make_keras_model(workdir / "my_model.keras", epochs=0)
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


def test_engine(checkout, monkeypatch):
    """The four steps, the search around an evaluator, and the simulation of its result; one after the other."""
    monkeypatch.chdir(checkout)
    scope = {}
    exec(STEPS, scope)
    assert Path("record.txt").read_text().count("scale_d") == 54
    exec(SIMULATE, scope)
    (softmax,) = scope["scores"].shape[:1]
    assert softmax == 32
    exec(SEARCH, scope)
    result = scope["result"]
    assert result.original_metric == 100 and result.target_met and result.saved_metric > 95
    exec(SIMULATE, scope)
    assert (
        np.mean(scope["scores"].argmax(axis=1) == scope["Agreement"]().predict(scope["graph"], [scope["output"]])) == 1
    )


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("format", "ruff format"),
        ("bench", "benchmarks/search.py"),
        ("lock", "pip-compile"),
        ("audit", "pip-audit"),
        ("bench-accuracy", "benchmarks/accuracy.py"),
        ("bench-models", "benchmarks/models.py"),
        ("bench-peers", "benchmarks/peers.py"),
        ("fuzz", "tests/test_fuzz.py"),
        ("kill", "tests/killing.py"),
        ("browser", "apt-get install"),
        ("clean", "rm -rf .venv"),
    ],
)
def test_developers_commands(target, expected):
    """They exist and call what they should; running them takes long, changes the code, or removes what is installed."""
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and expected in done.stdout


def test_arguments_are_those_of_the_sample():
    section = ENGLISH.split("### Arguments")[1].split("###")[0]
    documented = dict(re.findall(r"(?m)^\| `--(\w+)[^|]*\| ([^|]+) \|", section))
    arguments = vars(sample.parse_arguments(["--dataset", "data"]))
    assert list(documented) == ["dataset", "keyword", "num_parallel_reads", "batch_size", "model", "expected_acc_loss",
                                "num_images", "calibration_batches", "config_defination", "strategy",
                                "sensitivity", "num_workers", "ray", "resume", "exact"]  # fmt: skip
    assert set(documented) == set(arguments)
    for name, default in arguments.items():
        if default not in (None, "", "data", False):
            assert str(default) in documented[name]


# ---------------------------------------------------------------------------------------------- Both languages


def test_both_languages_show_the_same_commands_and_code():
    assert commands(CHINESE) == commands(ENGLISH)
    without_comments = [
        re.sub(r" *#.*|\"\"\".*?\"\"\"", "", "".join(PYTHON.findall(text))) for text in (ENGLISH, CHINESE)
    ]
    assert without_comments[0] == without_comments[1]


def test_both_languages_have_the_same_tables():
    """As many tables, each with as many rows and columns, and the same figures in each row."""
    tables = [re.findall(r"(?m)(?:^\|.*\n)+", text) for text in (ENGLISH, CHINESE)]
    assert len(tables[0]) == len(tables[1]) >= 8
    for english, chinese in zip(*tables, strict=True):
        rows = [[(row.count("|"), figures(row)) for row in table.splitlines()[2:]] for table in (english, chinese)]
        assert rows[0] == rows[1]


def figures(text):
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def test_both_languages_give_the_same_figures():
    """Paragraph by paragraph would be too strict for a translation; section by section it is."""
    sections = [re.split(r"(?m)^#{2,3} .*$", text) for text in (ENGLISH, CHINESE)]
    assert len(sections[0]) == len(sections[1])
    for english, chinese in zip(*sections, strict=True):
        assert figures(english) == figures(chinese), textwrap.shorten(english, 80)


def test_links_lead_somewhere():
    for text in (ENGLISH, CHINESE):
        links = re.findall(r"\]\(([^)]+)\)", text)
        assert len(links) > 5
        assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
