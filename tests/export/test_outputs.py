"""What the outputs of a file have lost, where their mean divergence is small."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from test_every_format import OneBatch

import amct_tensorflow as amct
from amct_tensorflow.errors import CalibrationError, ExportError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.target import Exported, Target
from amct_tensorflow.export.tflite.tflite_target import TFLITE
from amct_tensorflow.export.verification import OutputErrors
from amct_tensorflow.results.comparison.tensor_error import TensorError
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase


def enlarging():
    """Adds details to an image: what the layers yield is a small part of the output.

    Between them stands a float op, and the range that it reads is that of a single channel.
    """
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    spread = np.ones(8, np.float32)
    spread[0] = 100.0
    y = tf.nn.conv2d(x, normal((3, 3, 3, 8), 1, 0.2) * spread, 1, "SAME", name="conv1")
    y = tf.nn.conv2d(tf.tanh(y), normal((3, 3, 8, 3), 2, 0.02), 1, "SAME", name="conv2")
    tf.add(x, y, name="out")


def test_a_warning_tells_where_an_output_has_lost_much(messages):
    x = normal((4, 8, 8, 3), 9, 0.5)
    calibrate_and_save(build(enlarging), x)
    checked = CheckedEvaluator(OneBatch(x))
    document = export_model(Path("results/net_quantized.pb"), [], TFLITE, checked, Path("results/net"), 0.01)
    (output,) = document["outputs"]
    assert output["name"] == "out" and document["within_limit"]
    assert output["simulation_db"] > 40 and output["exported_db"] < 26 and output["lost_db"] > 14
    (told,) = [message for message in messages if "Output 'out' of results/net.tflite has" in message]
    assert "rounded to 8 bits once more" in told


def errors(signal_to_noise):
    error = TensorError()
    expected = np.ones(4)
    error.add(expected, expected * (1 + 10 ** (-signal_to_noise / 20)))
    return error


@pytest.mark.parametrize(
    ("simulated", "exported", "lost"),
    [(44.9, 21.1, 18.9), (30, 25, 5), (70, 45, 0), (np.inf, 35, 5), (20, -5, 20), (-np.inf, -np.inf, 0)],
)
def test_what_is_lost_counts_below_what_is_noticed(simulated, exported, lost):
    found = OutputErrors(errors(simulated), errors(exported)).lost
    assert found == pytest.approx(lost, abs=0.05)


def shifted_image():
    """A sum that is both asked for and read by a layer that padding keeps it out of."""
    x = tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
    y = tf.add(x, [0.5, -1.0, 2.0], name="sum")
    y = tf.nn.relu(tf.nn.conv2d(y, normal((3, 3, 3, 4), 1), 1, "SAME"))
    tf.nn.conv2d(y, normal((3, 3, 4, 2), 1), 1, "SAME", name="out")


class AllOutputs(AutoCalibrationEvaluatorBase):
    """Runs one batch, and keeps what comes out."""

    def __init__(self, values):
        self.values = values
        self.runs = []

    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            self.runs.append(session.run([f"{name}:0" for name in outputs], {"x:0": self.values}))
        return 0.0


@pytest.mark.parametrize("name", TARGETS)
def test_an_output_that_a_layer_reads_stays_in_float(workdir, name):
    """ONNX Runtime would quantize it, as its quantizer stood behind a Transpose."""
    if name != "tflite":
        pytest.importorskip("tf2onnx" if name == "onnx" else name, reason=f"the extra {name} is not installed")
    x = normal((4, 6, 6, 3), 9)
    calibrate_and_save(build(shifted_image), x)
    amct.save_model("float.pb", ["sum", "out"], "record.txt", "results/net")
    evaluator = AllOutputs(x)
    document = export_model(
        Path("results/net_quantized.pb"), [], TARGETS[name], CheckedEvaluator(evaluator), Path("results/net"), 0.01
    )
    assert document["layers"][0]["int8"]
    np.testing.assert_allclose(evaluator.runs[-1][0], x + np.float32([0.5, -1, 2]), rtol=0, atol=1e-6)


def test_calibration_must_run_all_layers(workdir):
    x = normal((4, 6, 6, 3), 9)
    calibrate_and_save(build(shifted_image), x)
    amct.save_model("float.pb", ["sum", "out"], "record.txt", "results/net")
    first_output_alone = CheckedEvaluator(OneBatch(x))
    with pytest.raises(CalibrationError, match=r"nothing through the layer 'Conv2D'\. Run all outputs"):
        export_model(Path("results/net_quantized.pb"), [], TFLITE, first_output_alone, Path("results/net"), 0.01)


class StridesLeftOut:
    """A runtime that computes every position where every second one was asked for."""

    def run(self, inputs):
        return [np.zeros((len(inputs["x"]), 16, 16, 3), np.float32)]

    def layers(self, inputs):
        return {}


def test_a_runtime_that_yields_another_shape_is_told(messages, workdir):
    x = normal((4, 8, 8, 3), 9, 0.5)
    calibrate_and_save(build(enlarging), x)
    before = sorted(Path("results").iterdir())
    target = Target("strides", (".x",), lambda plan, evaluator: Exported({".x": b""}, {}, [], StridesLeftOut()))
    with pytest.raises(ExportError, match=r"output 'out' the shape \[4, 16, 16, 3\]; .* shape \[4, 8, 8, 3\]"):
        export_model(
            Path("results/net_quantized.pb"), [], target, CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
        )
    assert sorted(Path("results").iterdir()) == before
