"""What stands at the ends of models: outputs that others read, fake quantizers, ops that a format does not know."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, save, tf1
from test_every_format import OneBatch

import amct_tensorflow as amct
from amct_tensorflow.errors import CalibrationError, ExportError, ModelError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.libraries import refusals
from amct_tensorflow.export.tflite.tflite_target import TFLITE
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.results.comparison.correspondence import read_mapped_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

MODEL, NODE_MAP = Path("results/net_quantized.pb"), Path("results/net_quant.json")
X = normal((8, 6, 6, 3), 9)


def conv(x, number):
    return tf.nn.conv2d(x, normal((3, 3, int(x.shape[-1]), 4), number, 0.3), 1, "SAME")


def images():
    return tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")


class AllOutputs(OneBatch):
    """Runs one batch through ``x``, to all outputs."""

    def evaluate(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return float(sum(value.sum() for value in session.run([f"{name}:0" for name in outputs], {"x:0": X})))


def two_outputs():
    features = tf.nn.relu(conv(images(), 1), name="features")
    tf.nn.softmax(tf.reduce_mean(conv(features, 2), [1, 2]), name="out")


@pytest.fixture
def of_two_outputs():
    graph_def = build(two_outputs)
    calibrate_and_save(graph_def, X)
    amct.save_model(save(graph_def, Path("float.pb")), ["features", "out"], "record.txt", "results/net")


def plan_of():
    return plan_export(MODEL, [], CheckedEvaluator(AllOutputs(X)))


def test_an_output_that_others_read_is_one(of_two_outputs):
    checked = CheckedEvaluator(AllOutputs(X))
    plan = plan_of()
    assert plan.outputs == ["features", "out"]
    assert read_mapped_model(MODEL).outputs == ("features", "out")
    for target in TARGETS.values():
        exported = target.export(plan, checked)
        found = exported.runtime.run({"x": X[:1]})
        assert [value.size for value in found] == [144, 4], target.name
        assert check_export(plan, exported, checked).exported.divergence < 1e-3


def test_results_that_do_not_note_their_outputs_say_which_are_taken(of_two_outputs, messages):
    document = json.loads(NODE_MAP.read_text())
    assert document["graph"][0].pop("output") == ["features:0", "out:0"]
    NODE_MAP.write_text(json.dumps(document))
    assert plan_of().outputs == ["out"]
    assert any("is not noted beside it; all that nothing reads is taken: out" in message for message in messages)
    assert read_mapped_model(MODEL).outputs == ("out",)


def test_an_output_that_calibration_does_not_run_is_told(of_two_outputs):
    with pytest.raises(CalibrationError, match="No value of 'features' was seen in calibration"):
        plan_export(MODEL, [], CheckedEvaluator(OneBatch(X)))


@pytest.mark.parametrize("output", ["features:0", ["nowhere:0"], [3]])
def test_outputs_that_are_none_are_told(of_two_outputs, messages, output):
    document = json.loads(NODE_MAP.read_text())
    document["graph"][0]["output"] = output
    NODE_MAP.write_text(json.dumps(document))
    assert plan_of().outputs == ["out"]
    assert any("results/net_quant.json" in message for message in messages)
    with pytest.raises(ModelError):
        read_mapped_model(MODEL)


def fake(x, low, high):
    return tf.quantization.fake_quant_with_min_max_vars(x, np.float32(low), np.float32(high))


def ends_in_a_fake_quantizer():
    weights = normal((3, 3, 3, 4), 1, 0.3)
    y = tf.nn.conv2d(fake(images(), -3, 3), fake(tf.constant(weights), -1, 1), 1, "SAME")
    y = tf.nn.max_pool2d(fake(tf.nn.relu(y), 0, 4), 2, 2, "VALID")
    last = tf.constant(normal((3, 3, 4, 4), 2, 0.3))
    tf.identity(fake(tf.nn.conv2d(fake(y, 0, 4), fake(last, -1, 1), 1, "SAME"), -2, 5), name="out")


def test_a_model_that_ends_in_a_fake_quantizer_yields_its_levels_in_every_format():
    amct.convert_qat_model(save(build(ends_in_a_fake_quantizer), Path("qat.pb")), ["out"], "results/net")
    plan, checked = plan_of(), CheckedEvaluator(AllOutputs(X))
    (expected,) = run(tf1.GraphDef.FromString(MODEL.read_bytes()), ["out"], {"x": X})
    step = 7 / 255
    for target in TARGETS.values():
        exported = target.export(plan, checked)
        assert check_export(plan, exported, checked).exported.divergence < 1e-3, target.name
        (found,) = exported.runtime.run({"x": X})
        levels = np.asarray(found) / step
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        assert np.mean(np.abs(found - expected) > 0.5 * step) < 0.05


def test_an_inserted_pair_of_which_one_is_missing_is_damaged():
    calibrate_and_save(build(two_outputs), X)
    plan = plan_of()
    view = plan.view.edited(plan.view.graph_def)
    view.graph_def.node.add(name="back", op="AscendAntiQuant", input=["x"])
    with pytest.raises(ModelError, match="'back' of the quantized model is no part of a quantized layer"):
        replace(plan, view=type(view)(view.graph_def)).float_reference  # noqa: B018 - making it raises


def test_ops_that_tensorflow_lite_does_not_know_are_named():
    def make():
        y = tf.reduce_mean(conv(images(), 1), [1, 2])
        y = tf.raw_ops.Erfinv(x=tf.clip_by_value(y, -0.5, 0.5), name="inverse")
        tf.nn.softmax(tf.matmul(y, normal((4, 3), 2)), name="out")

    calibrate_and_save(build(make), X)
    with pytest.raises(ExportError, match=r"^TensorFlow Lite has no kernel of the op Erfinv, as 'inverse'\. Export to"):
        TFLITE.export(plan_of(), CheckedEvaluator(AllOutputs(X)))


def test_layers_in_half_precision_are_told_to_be_saved_in_float32():
    def make():
        y = tf.nn.conv2d(tf.cast(images(), tf.float16), normal((3, 3, 3, 4), 1, 0.3).astype(np.float16), 1, "SAME")
        tf.nn.softmax(tf.matmul(tf.reduce_mean(tf.cast(y, tf.float32), [1, 2]), normal((4, 3), 2)), name="out")

    calibrate_and_save(build(make), X)
    with pytest.raises(ExportError, match=r"in half precision of the op Conv2D, as .* under the policy float32"):
        TFLITE.export(plan_of(), CheckedEvaluator(AllOutputs(X)))


def test_messages_name_no_lines_of_programs():
    said = "Could not translate.some/where/__main__.py:40:1: error: 'tf.Relu' op requires the same shape.\nnote: ..."
    with pytest.raises(ExportError) as caught, refusals("A tool", "convert"):
        raise ValueError(said)
    assert ".py" not in str(caught.value) and "'tf.Relu' op requires the same shape. The log" in str(caught.value)
