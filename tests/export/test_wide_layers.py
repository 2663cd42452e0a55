"""Files of models in which layers that read 16 bits stand between others: they compute what the simulation does."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from grids import grid

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.export_report import format_document
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

NAMES = ("first", "second", "third", "fourth")
X = normal((4, 8, 9, 4), 3)


_WIDE = "calibration_config: { ifmr_quantize: { dst_type: INT16 } }"


class OneBatch(AutoCalibrationEvaluatorBase):
    """Runs one batch through ``x``."""

    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return float(session.run(f"{outputs[0]}:0", {"x:0": X}).sum())


def chain():
    """Convolutions one behind the other, each but the last with a bias and a Relu."""
    y = tf1.placeholder(tf.float32, [None, 8, 9, 4], name="x")
    for seed, name in enumerate(NAMES, 1):
        y = tf.nn.conv2d(y, normal((3, 3, 4, 4), seed, 0.3), 1, "SAME", name=name)
        y = y if name == NAMES[-1] else tf.nn.relu(tf.nn.bias_add(y, normal((4,), seed + 9)))
    tf.identity(tf.reduce_mean(y, [1, 2]), name="out")


def residual():
    """The sum of the first two is read by the third and by the fourth."""
    y = tf1.placeholder(tf.float32, [None, 8, 9, 4], name="x")
    for seed, name in enumerate(NAMES, 1):
        found = tf.nn.conv2d(y, normal((3, 3, 4, 4), seed, 0.3), 1, "SAME", name=name)
        y = tf.nn.relu(tf.add(y, found)) if name != NAMES[-1] else found
    tf.identity(tf.reduce_mean(y, [1, 2]), name="out")


def exported(make, wide, target):
    """Returns the report of an export of a model in which the layers ``wide`` read 16 bits."""
    overrides = " ".join(f'override_layer_configs: {{ layer_name: "{name}" {_WIDE} }}' for name in wide)
    calibrate_and_save(build(make), X, simplified=overrides)
    model = Path("results/net_quantized.pb")
    return export_model(model, [], TARGETS[target], CheckedEvaluator(OneBatch()), Path("results/net"), 0.01)


@grid(0, make=[chain, residual], wide=[("second",), ("first", "third"), ("second", "third"), NAMES], target=TARGETS)
def test_files_compute_what_the_simulation_does(make, wide, target):
    document = exported(make, wide, target)
    layers = {each["name"]: each for each in document["layers"]}
    assert document["kl"] < (3e-4 if target == "tflite" else 3e-5), document
    for name, layer in layers.items():
        if name in wide:
            assert not layer["int8"]
            assert layer["kernel_bits"] == (16 if target == "tflite" and name != "fourth" else None)
        elif target == "openvino":
            assert layer["int8"], (name, layer)
    if target == "openvino":
        assert all("OpenVINO has no kernel" in layers[name]["reason"] for name in wide)


def test_what_hands_on_16_bits_computes_in_16_bits():
    """The layer in front of one that reads 16 bits reads 8; what it yields is not rounded to 8."""
    document = exported(chain, ("second",), "tflite")
    first, second, third, _ = document["layers"]
    assert [each["kernel_bits"] for each in document["layers"]] == [16, 16, 8, None]
    assert first["reason"] == "16 bits of its output are read" and second["reason"] == "it reads 16 bits"
    assert min(first["snr_db"], second["snr_db"]) > 38 and third["reason"] is None
    text = format_document(document)
    assert "1 of 4 layers in int8, 2 in 16 bits" in text and "second (16 bits)" in text


def test_the_interpreter_agrees_with_integers():
    """The first layer of the file, from its own integers in int64: at most one step off, and half of one on average."""
    exported(chain, NAMES, "tflite")
    interpreter = tf.lite.Interpreter(
        "results/net.tflite",
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], X[:1])
    interpreter.invoke()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    convolution = next(each for each in interpreter._get_ops_details() if each["op_name"] == "CONV_2D")
    data, weights, bias = (interpreter.get_tensor(index) for index in convolution["inputs"])
    made = interpreter.get_tensor(convolution["outputs"][0])
    assert [each.dtype for each in (data, weights, bias, made)] == [np.int16, np.int8, np.int64, np.int16]
    padded = np.pad(data.astype(np.int64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    sums = np.einsum("nhwcyx,oyxc->nhwo", windows, weights.astype(np.int64)) + bias
    scales = [details[index]["quantization_parameters"]["scales"].astype(np.float64) for index in convolution["inputs"]]
    np.testing.assert_allclose(scales[2], scales[0] * scales[1], rtol=1e-6)
    step = details[convolution["outputs"][0]]["quantization_parameters"]["scales"].astype(np.float64)
    expected = np.clip(sums * scales[2] / step, 0, 32767)
    assert np.abs(made - expected).max() < 1.5 and np.abs(made - expected).mean() < 0.5


def test_onnx_has_16_bits_from_opset_21_on():
    onnx = pytest.importorskip("onnx")
    exported(chain, ("second",), "onnx")
    model = onnx.load("results/net.onnx")
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == 21
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    types = [constants[node.input[2]].dtype.name for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(types)[0] == "int16" and set(types[1:]) <= {"int16", "uint8"} and types.count("int16") == 1
    exported(chain, (), "onnx")
    assert onnx.load("results/net.onnx").opset_import[0].version == 17


def test_onnx_products_of_matrices_are_not_rounded_to_8_bits():
    """ONNX Runtime would by default; what the comparison shows is what the note asks for."""

    def make():
        y = tf.matmul(tf1.placeholder(tf.float32, [None, 8, 9, 4], name="x"), normal((4, 64), 1), name="first")
        y = tf.matmul(tf.nn.relu(y), normal((64, 64), 2, 0.2), name="second")
        tf.identity(tf.reduce_mean(tf.matmul(y, normal((64, 4), 3, 0.2), name="third"), [1, 2]), name="out")

    document = exported(make, ("first", "second", "third"), "onnx")
    assert all(each["snr_db"] > 80 for each in document["layers"]), document
    assert any("session.qdq_matmulnbits_accuracy_level" in note for note in document["notes"])
    assert json.loads(Path("results/net_export_onnx.json").read_text()) == document


def test_the_simulation_reads_16_bits():
    """A check of the models above: without it, they would compare 8 bits with 8 bits."""
    exported(residual, ("second", "third"), "openvino")
    graph_def = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    bits = [layer.input_grid.num_bits for layer in read_layers(GraphView(graph_def))]
    assert bits == [8, 16, 16, 8]
