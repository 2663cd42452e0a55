"""Tables in int8 in every format: the file computes what the simulation does, and has no floats of them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, tf1
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")

ROWS, WIDTH = 2000, 24
TABLE = normal((ROWS, WIDTH), 1) * np.exp(normal((ROWS, 1), 2))
TABLE[5] = 0
IDS = np.random.default_rng(0).integers(0, ROWS, (6, 4)).astype(np.int32)
IDS[0] = [5, 0, ROWS - 1, 5]
OUTPUTS = ["out", "rows"]


def model(dtype=tf.float32):
    """One table that is looked up twice, once by the op of TensorFlow 1; ``out`` and ``rows`` are the outputs."""

    def make():
        x = tf1.placeholder(tf.int32, [None, 4], name="x")
        table = tf.constant(TABLE, dtype, name="table")
        looked_up = tf.gather(table, x, name="words"), tf1.raw_ops.Gather(params=table, indices=x[:, :1], name="first")
        rows = tf.add(*(tf.cast(each, tf.float32) for each in looked_up), name="rows")
        y = tf.nn.relu(tf.matmul(tf.reshape(rows, [-1, 4 * WIDTH]), normal((4 * WIDTH, 8), 3)))
        tf.nn.softmax(tf.matmul(y, normal((8, 3), 4)), name="out")

    return build(make)


def export(target):
    evaluator = CheckedEvaluator(OneBatch(IDS))
    return export_model(Path("results/net_quantized.pb"), OUTPUTS, target, evaluator, Path("results/net"), 0.01)


def outputs(name):
    """Returns the outputs of an exported file, computed in float32."""
    if name == "tflite":
        interpreter = tf.lite.Interpreter("results/net.tflite")
        interpreter.allocate_tensors()
        (given,) = interpreter.get_input_details()
        parts = []
        for ids in IDS:
            interpreter.set_tensor(given["index"], ids[np.newaxis])
            interpreter.invoke()
            parts.append([interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()])
        return [np.concatenate(values) for values in zip(*parts, strict=True)]
    if name == "onnx":
        runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        session = runtime.InferenceSession("results/net.onnx", providers=["CPUExecutionProvider"])
        return session.run([f"{output}:0" for output in OUTPUTS], {"x:0": IDS})
    openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    compiled = openvino.Core().compile_model("results/net.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"x:0": IDS})
    return [np.array(found[f"{output}:0"]) for output in OUTPUTS]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", [tf.float32, tf.float16])
def test_a_table_in_int8(name, dtype):
    if name == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    quantized = calibrate_and_save(model(dtype), IDS, weight_compress_only=True)
    document = export(TARGETS[name])
    # Integers and scales, and what a small model takes besides.
    assert document["file_bytes"] < ROWS * WIDTH + 4 * ROWS + 30_000
    out, rows = outputs(name)
    expected, expected_rows = run(quantized, OUTPUTS, {"x": IDS})
    # Runtimes may leave float16 out on the way.
    np.testing.assert_allclose(
        rows, expected_rows, rtol=0, atol=0 if dtype == tf.float32 else 2**-10 * np.abs(TABLE).max()
    )
    np.testing.assert_allclose(out, expected, atol=0.02)
