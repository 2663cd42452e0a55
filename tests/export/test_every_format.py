"""Every op type in every format: the exported file computes what the simulation does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from grids import grid
from layers import LAYERS

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.onnx import onnx_forms
from amct_tensorflow.export.tflite import tflite_forms, tflite_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

IMAGES = (None, 8, 9, 6)
# How a format has op types; of those without a form it has no int8 kernel.
FORMS = {"tflite": tflite_forms.FORMS, "onnx": onnx_forms.FORMS, "openvino": onnx_forms.FORMS}
# Of these it has none either, or the converter does not keep their weights.
IN_FLOAT = {"tflite": {"AvgPool"}, "onnx": {"Conv2DBackpropInput", "BatchMatMul"}, "openvino": set()}


WIDE = "{ ifmr_quantize: { dst_type: INT16 } }"


class OneBatch(AutoCalibrationEvaluatorBase):
    """Runs one batch through ``x``."""

    def __init__(self, values):
        self.values = values

    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return float(session.run(f"{outputs[0]}:0", {"x:0": self.values}).sum())


def make_model(op_type, simplified="", images=4):
    """Quantizes a layer with a bias and a Relu, whose output is summed with a part of itself, before a last layer."""
    layer = LAYERS[op_type]

    def make():
        y = layer(tf1.placeholder(tf.float32, layer.shape, name="x"))
        y = tf.nn.relu(tf.nn.bias_add(y, normal((y.shape[-1],), 2)))
        y = tf.add(y, tf.multiply(y, 0.5))
        y = tf.reduce_mean(y, list(range(1, len(layer.shape) - 1))) if len(layer.shape) > 2 else y
        tf.nn.softmax(tf.matmul(y, normal((y.shape[-1], 4), 4)), name="out")

    x = normal([images if length is None else length for length in layer.shape], 3)
    calibrate_and_save(build(make), x, simplified=simplified)
    return x


@grid(0, op_type=LAYERS, name=TARGETS)
def test_a_layer_of_every_type_that_reads_16_bits(op_type, name):
    """The layer before it hands its values on with as many bits as it reads, so that no format loses what 8 lose."""
    x = make_model(op_type, f'override_layer_types: {{ layer_type: "{op_type}" calibration_config: {WIDE} }}')
    document = export_model(
        Path("results/net_quantized.pb"), [], TARGETS[name], CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
    )
    assert document["kl"] < 3e-4, (name, document)
    first = document["layers"][0]
    in_integers = name == "tflite" and op_type in tflite_forms.FORMS
    in_integers &= tflite_model._PRODUCTS_ARE_RIGHT or op_type != "BatchMatMulV2"
    assert first["kernel_bits"] == (16 if in_integers else None)
    assert not first["int8"] and ("16 bits" in first["reason"] or name == "tflite"), (name, first)
    # TensorFlow Lite forbids weights of -128, and rounds some of them again.
    assert first["snr_db"] is None or first["snr_db"] > (40 if name == "tflite" else 60), (name, first)


@pytest.mark.parametrize("op_type", LAYERS)
def test_a_layer_of_every_type(op_type):
    x = make_model(op_type)
    for target in TARGETS.values():
        document = export_model(
            Path("results/net_quantized.pb"), [], target, CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
        )
        assert document["kl"] < 2e-4, (target.name, document)
        assert document["images"] == 4
        first, last = document["layers"]
        has_form = LAYERS[op_type].weights is None or op_type in FORMS[target.name]
        assert first["int8"] == (has_form and op_type not in IN_FLOAT[target.name]), (target.name, first)
        assert first["int8"] == (first["reason"] is None)
        assert last["snr_db"] is None or last["snr_db"] > 25
        assert first["snr_db"] is None or first["snr_db"] > 30, (target.name, document)
        assert json.loads(Path(f"results/net_export_{target.name}.json").read_text()) == document
        assert sum(Path(f"results/net{suffix}").stat().st_size for suffix in target.suffixes) == document["file_bytes"]


def test_a_format_may_have_no_form_of_an_op_type(monkeypatch):
    # The simulation rounds what it reads, the file does not; what that costs is a matter of chance in a few images.
    x = make_model("Conv2D", images=64)
    for forms in (onnx_forms.FORMS, tflite_forms.FORMS):
        monkeypatch.delitem(forms, "Conv2D")
    for target in TARGETS.values():
        document = export_model(
            Path("results/net_quantized.pb"), [], target, CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
        )
        first = document["layers"][0]
        assert not first["int8"] and "Conv2D" in first["reason"], (target.name, document)
        assert document["kl"] < 3e-4, (target.name, document)


CLIPS = {
    "older Keras": lambda y: tf.maximum(tf.minimum(tf.nn.relu(y), 6.0), 0.0),
    "another bound": lambda y: tf.minimum(tf.nn.relu(y), 2.0),
    "both sides": lambda y: tf.clip_by_value(y, -1.0, 1.0),
}


@grid(1, clip=CLIPS, name=TARGETS)
def test_nothing_is_rounded_before_it_is_clipped(clip, name):
    """Values reach 60 here: steps that hold them are 10 to 60 times as wide as those that hold what is left."""

    def make():
        y = tf1.placeholder(tf.float32, IMAGES, name="x")
        for seed in (1, 2):
            y = CLIPS[clip](tf.nn.conv2d(y, normal((3, 3, 6, 6), seed), 1, "SAME"))
        tf.nn.softmax(tf.matmul(tf.reduce_mean(y, [1, 2]), normal((6, 4), 4)), name="out")

    x = normal((8, 8, 9, 6), 3, 3.0)
    calibrate_and_save(build(make), x)
    document = export_model(
        Path("results/net_quantized.pb"), [], TARGETS[name], CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
    )
    assert document["layers"][0]["snr_db"] > 30, document
    assert document["kl"] < {"tflite": 3e-4, "onnx": 3e-5, "openvino": 2e-4}[name], document


def test_what_a_runtime_refuses_is_not_the_evaluators_fault(monkeypatch):
    x = make_model("MatMul")

    class Refusing:
        def run(self, inputs):
            raise ExportError("Give batches of one size.")

    target = TARGETS["tflite"]
    refusing = replace(target, export=lambda *plan: replace(target.export(*plan), runtime=Refusing()))
    with pytest.raises(ExportError, match=r"^Give batches of one size"):
        export_model(
            Path("results/net_quantized.pb"), [], refusing, CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
        )
