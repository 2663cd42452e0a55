"""Copies of the sample: a few changed lines adapt it, and an edit of one is noticed by a run that is resumed."""

import ast
import difflib
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, load_script
from programs import run_program

from amct_tensorflow.search.source_code import code_of

SAMPLE = ROOT / "src" / "mobilenet_v2_accuracy_based_auto_calibration.py"
RESULTS = "outputs/accuracy_based_auto_calibration"
PUBLIC = {
    "amct_tensorflow",
    "amct_tensorflow.classification",
    "amct_tensorflow.console",
    "amct_tensorflow.data",
    "amct_tensorflow.errors",
    "amct_tensorflow.utils.log",
}
# Another scaling of the images, labels that start at the first class, another name of the output.
LITE0 = {
    'OUTPUT = "MobilenetV2/Predictions/Reshape_1"': 'OUTPUT = "Identity"',
    "auto_calibration/mobilenet_v2": "auto_calibration/efficientnet_lite0",
    "FIRST_LABEL = 0": "FIRST_LABEL = 1",
    "values from -1 to 1": "values from -127 / 128 to 1",
    "return image / 127.5 - 1.0": "return (image - 127.0) / 128.0",
}


def copy_sample(name, changes):
    """Writes a changed copy beside nothing but the package; returns it and the number of lines that differ."""
    before = after = SAMPLE.read_text()
    for old, new in {"Path(__file__).resolve().parents[1]": f"Path({str(ROOT)!r})", **changes}.items():
        assert after.count(old) == 1, old
        after = after.replace(old, new)
    path = ROOT.__class__(name).resolve()
    path.write_text(after)
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line.startswith("+ ")]
    return path, len(changed) - 1  # where the package is does not count


def test_the_sample_is_short_and_uses_public_names_only():
    text = SAMPLE.read_text()
    assert len(text.splitlines()) <= 300
    nodes = ast.walk(ast.parse(text))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) if node.module.startswith("amct")}
    assert modules | {"amct_tensorflow"} == PUBLIC
    page = (ROOT / "docs" / "guide" / "python.md").read_text()
    assert [module for module in sorted(PUBLIC) if f"`{module}`" not in page] == []


@pytest.mark.campaign
def test_another_model_takes_a_few_lines(shared, workdir):
    copy, changed = copy_sample("lite0.py", LITE0)
    assert changed <= 6
    command = [sys.executable, str(copy), "--dataset", str(shared / "imagenet_sample"), "--expected_acc_loss", "2",
               "--model", str(shared / "model" / "efficientnet_lite0_keras_frozen.pb")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    accuracy = float(re.search(r"Accuracy of original model is +([\d.]+)", done.stderr)[1])
    assert accuracy == pytest.approx(85.1666667)
    assert (workdir / RESULTS / "efficientnet_lite0_quantized.pb").is_file()
    assert len(json.loads((workdir / RESULTS / "config.json").read_text())) > 50


def test_labels_below_that_of_the_first_class_are_refused(workdir):
    copy, _ = copy_sample("from_one.py", {"FIRST_LABEL = 0": "FIRST_LABEL = 1"})
    model = ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb"
    done = run_program(copy, "--dataset", ROOT / "data" / "fashion_mnist", "--model", model)
    assert done.returncode == 1
    assert re.search(r"record \d+: image/class/label \(one integer, at least 1\) is 0\. ", done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "change", [LITE0["return image / 127.5 - 1.0"], "FIRST_LABEL = 1"], ids=["preprocess", "constant"]
)
def test_an_edit_of_a_copy_is_noticed(change):
    """Although most of its evaluator is the package's."""
    old = next((old for old, new in LITE0.items() if new == change))
    codes = []
    for name, changes in (("unchanged", {}), ("changed", {old: change}), ("unchanged", {})):
        copy, _ = copy_sample(f"{name}.py", changes)
        codes.append(code_of(load_script(copy).MobileNetV2Evaluator, "evaluator"))
    assert codes[0] == codes[2] != codes[1]
