"""What lies between layers, in 8 bits in the files that can have it so: residual Adds, and what only moves values."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from tensorflow.lite.python import schema_py_generated as schema
from test_every_format import OneBatch

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.export_report import format_document
from amct_tensorflow.export.tflite.tflite_editor import TfliteEditor
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

MODEL = Path("results/net_quantized.pb")
X = normal((4, 6, 6, 3), 9)


def conv(x, number):
    return tf.nn.conv2d(x, normal((1, 1, int(x.shape[-1]), 4), number, 0.5), 1, "SAME", name=f"conv{number}")


def finish(y):
    tf.nn.softmax(tf.matmul(tf.reduce_mean(conv(y, 9), [1, 2]), normal((4, 3), 8)), name="out")


def residual():
    """Two blocks; the first sum is read by a layer and the second sum, which ends in a Relu; a third adds the input."""
    x = tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
    trunk = conv(x, 1)
    first = tf.add(trunk, conv(tf.nn.relu(conv(trunk, 2)), 3), name="sum1")
    second = tf.nn.relu(tf.raw_ops.AddV2(x=first, y=conv(first, 4), name="sum2"))
    padded = tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, 1]])
    finish(conv(tf.add(conv(second, 5), padded, name="sum3"), 6))


def moving():
    """What only moves values stands between the first two layers, and a Relu in front of it."""
    x = tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
    padded = tf.pad(tf.nn.relu(conv(x, 1)), [[0, 0], [1, 1], [1, 1], [0, 0]])
    finish(conv(tf.nn.max_pool2d(padded, 2, 2, "VALID"), 2))


def chain():
    finish(tf.add(conv(tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x"), 1), 1.0))


def checked():
    return CheckedEvaluator(OneBatch(X))


def plan_of(graph):
    calibrate_and_save(build(graph), X)
    return plan_export(MODEL, [], checked(), sums_in_int8=True)


def adds_in_tflite(content):
    """Returns per Add of a file the types of what it reads and yields."""
    editor = TfliteEditor(content)
    return {
        name: {editor.tensor(int(index)).type for index in (*operator.inputs, *operator.outputs)}
        for operator in editor.operators
        if editor.op_type(operator) == "ADD"
        for name in editor.name(int(operator.outputs[0])).removesuffix("/int8").split(";")
        if name.startswith("sum")
    }


def adds_in_onnx(content):
    """Returns per Add that ONNX Runtime executes its op type."""
    return [node.op_type for node in executed(content) if "Add" in node.op_type]


def executed(content):
    """Returns the nodes that ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = "optimized.onnx"
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return onnx.load("optimized.onnx").graph.node


def test_the_sums_of_what_layers_yield_are_found():
    plan = plan_of(residual)
    assert list(plan.sums) == ["sum1", "sum2"]  # sum3 adds what is in float
    assert plan.output_grids["sum1"] == plan.layers["conv4"].input_grid
    assert plan.output_grids["sum2"] == plan.layers["conv5"].input_grid
    assert not plan_export(MODEL, [], checked()).sums


def test_tflite_adds_in_int8():
    plan = plan_of(residual)
    exported = TARGETS["tflite"].export(plan, checked())
    int8, float32 = {schema.TensorType.INT8}, {schema.TensorType.FLOAT32}
    assert adds_in_tflite(exported.files[".tflite"]) == {"sum1": int8, "sum2": int8, "sum3": float32}
    assert not exported.in_float.keys() & plan.sums.keys()
    assert check_export(plan, exported, checked()).exported.divergence < 5e-4
    editor = TfliteEditor(exported.files[".tflite"])
    unread = [each for each in editor.operators if not any(map(editor.readers, each.outputs))]
    assert [editor.op_type(each) for each in unread] == ["SOFTMAX"]  # no floats that only cost time


def test_onnx_runtime_adds_in_int8():
    plan = plan_of(residual)
    exported = TARGETS["onnx"].export(plan, checked())
    assert sorted(adds_in_onnx(exported.files[".onnx"])) == ["Add", "QLinearAdd", "QLinearAdd"]
    assert not exported.in_float.keys() & plan.sums.keys()
    assert check_export(plan, exported, checked()).exported.divergence < 5e-4


def test_what_only_moves_values_moves_integers():
    calibrate_and_save(build(moving), X)
    plan = plan_export(MODEL, [], checked())
    tflite, onnx_ = (TARGETS[name].export(plan, checked()) for name in ("tflite", "onnx"))
    editor = TfliteEditor(tflite.files[".tflite"])
    moved = [each for each in editor.operators if editor.op_type(each) in ("PAD", "MAX_POOL_2D")]
    assert len(moved) == 2
    assert {editor.tensor(int(each.outputs[0])).type for each in moved} == {schema.TensorType.INT8}
    nodes = executed(onnx_.files[".onnx"])
    (pool,) = [node for node in nodes if node.op_type in ("MaxPool", "NhwcMaxPool")]
    (read,) = [node for node in nodes if pool.input[0] in node.output]
    assert read.op_type != "DequantizeLinear"
    for exported in (tflite, onnx_):
        assert check_export(plan, exported, checked()).exported.divergence < 5e-4


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_sum_of_what_the_file_has_in_float_is_told(target):
    plan = plan_of(residual).without(["conv3"])
    exported = TARGETS[target].export(plan, checked())
    assert exported.in_float["sum1"] == exported.in_float["sum2"] == "what it adds is in float"
    assert check_export(plan, exported, checked()).exported.divergence < 5e-4


def test_the_command_tells_of_each_sum(main, capsys):
    calibrate_and_save(build(residual), X)
    np.save("x.npy", X)
    arguments = ["export", "results", "--to", "onnx", "--data", "x.npy"]
    capsys.readouterr()
    assert main([*arguments, "--between", "int8", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sums"] == [{"name": name, "int8": True, "reason": None} for name in ("sum1", "sum2")]
    assert "2 of 2 sums between them" in format_document(document)
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sums"] == []


def test_it_is_refused_where_it_has_no_effect():
    calibrate_and_save(build(chain), X)
    with pytest.raises(ExportError, match="no effect on openvino: its int8 kernels yield float"):
        export_model(MODEL, [], TARGETS["openvino"], checked(), Path("results/net"), 0.01, sums_in_int8=True)
    with pytest.raises(ExportError, match="no Add of what two quantized layers yield"):
        plan_export(MODEL, [], checked(), sums_in_int8=True)
