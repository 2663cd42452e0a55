"""The sample on the real MobileNet V2 and 600 real images, where they are present."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from conftest import ROOT, SHARED, load_script
from graphs import PLAIN, tf1

import amct_tensorflow as amct
from amct_tensorflow.data import find_files, scan_records
from amct_tensorflow.model.model_file import import_graph, load_graph, read_model
from amct_tensorflow.quantize.record.record_file import read_balance, read_record

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        not (SHARED / "model").is_dir(), reason=f"the real model and images are not at {SHARED} (set AMCT_SHARED)"
    ),
]

MODEL = SHARED / "model" / "mobilenet_v2_1.0_224_frozen.pb"
DATASET = SHARED / "imagenet_sample"
SAMPLE = ROOT / "src" / "mobilenet_v2_accuracy_based_auto_calibration.py"
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
RESULTS = Path("outputs/accuracy_based_auto_calibration")
SEARCHED = 360  # images on which a search of several evaluations judges
FILES = [
    RESULTS / "config.json",
    RESULTS / "record.txt",
    RESULTS / "mobilenet_v2_quantized.pb",
    RESULTS / "mobilenet_v2_quant.json",
    RESULTS / "accuracy_based_auto_calibration_final_config.json",
    RESULTS / "accuracy_based_auto_calibration_ranking_information.json",
    Path("amct_log/amct_tensorflow.log"),
    Path("amct_log/accuracy_based_auto_calibration_record.json"),
]


# A process begins with the peak of the one that started it, and the tests take more than the sample.
_MEASURED = """
import pathlib, resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
pathlib.Path("peak").write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs the sample once, as a user does."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, str(SAMPLE), "--dataset", str(DATASET), "--model", str(MODEL)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    return folder, done, int((folder / "peak").read_text())


@pytest.fixture(scope="module")
def images():
    """The 600 preprocessed images and their labels, as the sample feeds them."""
    sample = load_script(SAMPLE)
    dataset = scan_records(find_files(DATASET), sample.FEATURES)
    batches = [(x.numpy(), y.numpy()) for x, y in sample.MobileNetV2Evaluator(dataset, 50).batches(224, 224)]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


@pytest.fixture(scope="module")
def float_softmax(images):
    return predict(read_model(MODEL).graph_def, images[0])


def predict(graph_def, images):
    graph = import_graph(graph_def, "model")
    with tf1.Session(graph=graph) as session:
        return np.concatenate([session.run(f"{OUTPUT}:0", {"input:0": part}) for part in np.split(images, 12)])


def mean_kl(reference, other):
    return float(np.mean(np.sum(reference * np.log(np.maximum(reference, 1e-30) / np.maximum(other, 1e-30)), axis=1)))


def test_five_lines_and_eight_files(run):
    folder, done, peak = run
    assert done.returncode == 0, done.stderr
    lines = [line.split(" - ", 1)[1] for line in done.stderr.splitlines() if "[AMCT]:[AMCT]" in line][-5:]
    number = r"(\d+\.?\d*)"
    patterns = [
        f"Accuracy of original model is         {number}",
        f"Accuracy of global quantized model is {number}",
        f"Accuracy of saved model is            {number}",
        r"The generated model is stored in dir: \./outputs/accuracy_based_auto_calibration",
        r"The records is stored in dir: \./outputs/accuracy_based_auto_calibration",
    ]
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(r"INFO - \[AMCT\]:\[AMCT\]: " + pattern, line)
    assert float(lines[0].split()[-1]) == pytest.approx(87.8333333)
    assert all((folder / file).stat().st_size > 0 for file in FILES)
    assert peak < 3e6  # KiB


def test_all_layers_are_quantized_with_little_loss(run, images, float_softmax):
    folder, done, _ = run
    path = folder / RESULTS / "mobilenet_v2_quantized.pb"
    assert path.stat().st_size < 4.2e6
    graph_def = read_model(path).graph_def
    assert sum(node.op == "AscendDequant" for node in graph_def.node) == 54
    softmax = predict(graph_def, images[0])
    top1 = 100 * np.mean(softmax.argmax(axis=1) == images[1])
    logged = float(re.search(r"Accuracy of saved model is +(\S+)", done.stderr)[1])
    assert logged == pytest.approx(top1, abs=1e-6)
    assert 87.8333333 - top1 < 0.5
    assert mean_kl(float_softmax, softmax) < 0.010
    history = json.loads((folder / FILES[-1]).read_text())
    assert len(history) == 1 and all(history[0]["roll_back_config"].values())


def test_record_agrees_with_the_original_toolkit(run):
    folder, _, _ = run
    ours = read_record(folder / RESULTS / "record.txt")
    original = read_record(SHARED / "records" / "mobilenet_v2_record.txt")
    assert set(ours) == set(original)
    balanced = set(read_balance(folder / RESULTS / "record.txt"))
    assert balanced <= {"MobilenetV2/expanded_conv_1/expand/Conv2D"}  # which the original balances only if asked
    changed = {*balanced, "MobilenetV2/expanded_conv/project/Conv2D"} if balanced else balanced
    channels = small = 0
    for name, theirs in original.items():
        if name in changed:
            channels += len(theirs.scale_w)
        elif name.endswith("Conv2D"):
            pairs = np.array([ours[name].scale_w, theirs.scale_w]).T
            taken_for_dead = pairs[:, 1] == 1
            np.testing.assert_allclose(*pairs[~taken_for_dead].T, rtol=1e-5)  # some grow by a few floats
            assert np.all(pairs[taken_for_dead, 0] < 1e-4)  # small weights, and a bias of no more than 2**23 units
            channels += len(theirs.scale_w)
            small += np.count_nonzero(taken_for_dead)
    assert (channels, small) == (9920 + 1, 9)
    relu6 = [name for name, theirs in original.items() if theirs.offset_d == -128]
    close = [abs(ours[name].scale_d / original[name].scale_d - 1) < 0.015 for name in relu6]
    assert len(close) == 36 and sum(close) >= 27
    assert all(ours[name].offset_d == -128 for name in relu6)


def test_the_record_of_the_original_toolkit_is_read_as_it_was_meant(workdir, images, messages):
    """Its scales of the 17 depthwise layers are those of weights without BatchNorm, which it does not say."""
    amct.convert_model(str(MODEL), [OUTPUT], str(SHARED / "records" / "mobilenet_v2_record.txt"), "net")
    (warning,) = [text for text in messages if "skip_fusion" in text]
    assert "17 layers" in warning and warning.count("/depthwise/depthwise") == 17
    top1 = 100 * np.mean(predict(read_model("net_quantized.pb").graph_def, images[0]).argmax(axis=1) == images[1])
    assert top1 == pytest.approx(86.33, abs=0.2)


class DivergenceEvaluator(AutoCalibrationEvaluatorBase):
    """A smooth metric: 100 times the mean KL divergence to the float softmax; runs on ready images and takes times."""

    def __init__(self, images, softmax, limit):
        self.images = images
        self.softmax = softmax
        self.limit = limit
        self.seconds = self.calibration_seconds = self.forward_seconds = 0.0

    def calibration(self, graph, outputs):
        start = time.perf_counter()
        with tf1.Session(graph=graph) as session:
            session.run(outputs[0] + ":0", {"input:0": self.images[:32]})
        self.calibration_seconds = time.perf_counter() - start
        self.seconds += self.calibration_seconds

    def evaluate(self, graph, outputs):
        start = time.perf_counter()
        times, probabilities = [], []
        with tf1.Session(graph=graph) as session:
            for begin in range(0, len(self.images), 32):
                part = time.perf_counter()
                feed = {"input:0": self.images[begin : begin + 32]}
                probabilities.append(session.run(outputs[0] + ":0", feed))
                times.append(time.perf_counter() - part)
        self.forward_seconds = self.forward_seconds or float(np.median(times))
        self.seconds += time.perf_counter() - start
        return 100 * mean_kl(self.softmax, np.concatenate(probabilities))

    def metric_eval(self, original_metric, new_metric):
        return new_metric <= self.limit, new_metric - original_metric


def calibrate_without_bias_correction(evaluator, **options):
    graph = load_graph(MODEL)
    amct.create_quant_config("config.json", graph)
    config = json.loads(Path("config.json").read_text())
    Path("config.json").write_text(json.dumps({**config, **PLAIN}))
    return amct.accuracy_based_auto_calibration(
        str(MODEL), [OUTPUT], "out/record.txt", "config.json", "out/net", evaluator, **options
    )


def test_search_without_bias_correction(workdir, images, float_softmax):
    """Rolls layers back; final configuration, history, ranking and saved model agree."""
    evaluator = DivergenceEvaluator(images[0][:SEARCHED], float_softmax[:SEARCHED], limit=2.5)
    start = time.perf_counter()
    result = calibrate_without_bias_correction(evaluator)
    engine_seconds = time.perf_counter() - start - evaluator.seconds
    rolled_back = {name for name, kept in result.roll_back_config.items() if not kept}
    assert result.target_met and 0 < len(rolled_back) < 54
    assert result.evaluations <= 8
    final = json.loads(Path("out/accuracy_based_auto_calibration_final_config.json").read_text())
    assert {name for name in result.roll_back_config if not final[name]["quant_enable"]} == rolled_back
    ranking = json.loads(Path("out/accuracy_based_auto_calibration_ranking_information.json").read_text())
    assert {name for name, _ in ranking[: len(rolled_back)]} == rolled_back
    assert set(read_record("out/record.txt")) == set(result.roll_back_config) - rolled_back
    graph_def = read_model("out/net_quantized.pb").graph_def
    assert sum(node.op == "AscendDequant" for node in graph_def.node) == 54 - len(rolled_back)
    saved = 100 * mean_kl(evaluator.softmax, predict(graph_def, evaluator.images))
    assert saved == pytest.approx(result.saved_metric, rel=1e-3)
    print(
        f"engine {engine_seconds:.1f} s, calibration {evaluator.calibration_seconds:.2f} s "
        f"= {evaluator.calibration_seconds / evaluator.forward_seconds:.1f} forward passes"
    )


def test_predictive_search_in_hard_mode(workdir, images, float_softmax):
    """Without bias correction, 100 times the KL divergence below 1.8: few layers, few evaluations, no repetition."""
    evaluator = DivergenceEvaluator(images[0][:SEARCHED], float_softmax[:SEARCHED], limit=1.8)
    result = calibrate_without_bias_correction(evaluator, strategy="PredictiveSearch", sensitivity="OutputDivergence")
    rolled_back = {name for name, kept in result.roll_back_config.items() if not kept}
    assert result.target_met and result.saved_metric < 1.8
    assert 0 < len(rolled_back) <= 6
    assert result.evaluations <= 5
    assert result.float_mac_share < 0.1
    history = json.loads(Path("amct_log/accuracy_based_auto_calibration_record.json").read_text())
    assert len(history) == result.evaluations - 1  # without that of the original model
    ranking = json.loads(Path("out/accuracy_based_auto_calibration_ranking_information.json").read_text())
    assert len(ranking) == 54 and ranking[0][0] == "MobilenetV2/expanded_conv/depthwise/depthwise"
