"""The real MobileNet V2 in every format, where it is present."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SHARED, load_script
from graphs import tf1

import amct_tensorflow as amct
from amct_tensorflow.data import find_files, scan_records
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.model.model_file import load_graph
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        not (SHARED / "model").is_dir(), reason=f"the real model and images are not at {SHARED} (set AMCT_SHARED)"
    ),
]
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

MODEL = SHARED / "model" / "mobilenet_v2_1.0_224_frozen.pb"
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
# Of 53 layers with weights and a pool: what stays in float (docs/exports.md).
IN_FLOAT = {
    "tflite": {"MobilenetV2/Logits/AvgPool", "MobilenetV2/Logits/Conv2d_1c_1x1/Conv2D"},
    "onnx": {"MobilenetV2/Logits/Conv2d_1c_1x1/Conv2D"},
    "openvino": set(),
}


class Images(AutoCalibrationEvaluatorBase):
    """Runs 32 images, whatever is asked."""

    def __init__(self, images):
        self.images = images

    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return float(session.run(f"{outputs[0]}:0", {"input:0": self.images}).max())


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    sample = load_script(ROOT / "src" / "mobilenet_v2_accuracy_based_auto_calibration.py")
    dataset = scan_records(find_files(SHARED / "imagenet_sample"), sample.FEATURES, 32)
    images, _ = next(iter(sample.MobileNetV2Evaluator(dataset, 32).batches(224, 224)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("mobilenet"))
        graph = load_graph(MODEL)
        amct.create_quant_config("config.json", graph)
        amct.quantize_model(graph, "config.json", "record.txt", [OUTPUT])
        evaluator = Images(images.numpy())
        evaluator.calibration(graph, [OUTPUT])
        amct.save_model(str(MODEL), [OUTPUT], "record.txt", "net")
        checked = CheckedEvaluator(evaluator)
        plan = plan_export(Path("net_quantized.pb").absolute(), [], checked)
    # Layers are compared on two images: TensorFlow Lite's kernels that can be looked into are slow.
    return replace(plan, images={name: values[:2] for name, values in plan.images.items()}), checked


def test_its_residual_adds_become_int8_kernels(quantized):
    plan, evaluator = quantized
    with_sums = plan_export(plan.model, [], evaluator, sums_in_int8=True)
    assert len(with_sums.sums) == 10
    exported = TARGETS["onnx"].export(replace(with_sums, images=plan.images), evaluator)
    assert exported.in_float.keys() == IN_FLOAT["onnx"]
    assert check_export(with_sums, exported, evaluator).exported.divergence < 0.008


@pytest.mark.parametrize("target", TARGETS)
def test_it_computes_what_the_simulation_does(quantized, target):
    plan, evaluator = quantized
    exported = TARGETS[target].export(plan, evaluator)
    assert exported.in_float.keys() == IN_FLOAT[target]
    weights = sum(layer.weights.size for layer in plan.layers.values() if layer.weights is not None)
    assert len(exported.files[TARGETS[target].suffixes[-1]]) < 1.25 * weights
    check = check_export(plan, exported, evaluator)
    assert check.exported.divergence < 0.008 and check.exported.images == 32
    assert check.exported.agreement is not None and check.exported.agreement >= 28 / 32
    assert check.layers["MobilenetV2/Conv/Conv2D"].sqnr > 40
    assert np.median([error.sqnr for error in check.layers.values()]) > 15
