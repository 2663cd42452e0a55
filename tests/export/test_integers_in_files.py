"""The integers in the files are those of the quantized model; what cannot be one is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, quantize_small_net, tf1
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.narrow_weights import SYMMETRIC, with_narrow_weights
from amct_tensorflow.export.onnx.onnx_model import make_onnx_model
from amct_tensorflow.export.tflite.tflite_model import make_tflite_model
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")


class SmallNetBatch(OneBatch):
    """Runs one batch through ``input``."""

    def evaluate(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return float(session.run(f"{outputs[0]}:0", {"input:0": self.values}).sum())


def evaluator():
    return CheckedEvaluator(SmallNetBatch(normal((4, 12, 12, 3), 9)))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("small_net"))
        _, quantized = quantize_small_net(["project/Conv2D"])
        return plan_export(Path(quantized).absolute(), [], evaluator())


def test_onnx_holds_our_integers_with_a_scale_per_channel(plan):
    model = make_onnx_model(plan, outputs_in_int8=True).model
    values = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    layer = plan.layers["conv/Conv2D"]
    np.testing.assert_array_equal(values["conv/Conv2D/int8_weights"], layer.weights.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(values["conv/Conv2D/int8_weights/scale"], layer.weight_scale)
    np.testing.assert_array_equal(values["conv/Conv2D/int32_bias"], layer.bias)
    assert values["conv/Conv2D/int8_weights/scale"].shape == (8,)
    (dequantize,) = [node for node in model.graph.node if node.input[0] == "conv/Conv2D/int8_weights"]
    assert dequantize.op_type == "DequantizeLinear" and dequantize.attribute[0].i == 0
    (quantize,) = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and "out" not in node.name][:1]
    assert values[quantize.input[2]].dtype == np.uint8


def test_onnx_leaves_layers_that_were_rolled_back_in_float(plan):
    assert plan.float_layers == ["project/Conv2D"]
    model = make_onnx_model(plan, outputs_in_int8=True).model
    assert not any("project/Conv2D/int8" in each.name for each in model.graph.initializer)


def test_tflite_holds_our_integers_with_a_scale_per_channel(plan):
    content = make_tflite_model(plan).content
    interpreter = tf.lite.Interpreter(
        model_content=content, experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    layer = plan.layers["dw/depthwise"]
    weights = details["dw/depthwise/int8_weights"]
    np.testing.assert_array_equal(interpreter.get_tensor(weights["index"]), layer.weights.reshape(1, 3, 3, 8))
    np.testing.assert_array_equal(weights["quantization_parameters"]["scales"], layer.weight_scale)
    bias = details["dw/depthwise/int32_bias"]
    np.testing.assert_array_equal(interpreter.get_tensor(bias["index"]), layer.bias)
    expected = np.float32(layer.input_grid.scale) * layer.weight_scale
    np.testing.assert_array_equal(bias["quantization_parameters"]["scales"], expected)


def test_files_do_not_change_from_run_to_run(plan):
    assert make_tflite_model(plan).content == make_tflite_model(plan).content


def test_narrow_weights_have_no_minimum_and_cost_little(plan):
    layer = plan.layers["conv/Conv2D"]
    wide = layer.weights.copy()
    wide[0, 0, 0] = -128
    changed = replace(plan, layers={**plan.layers, "conv/Conv2D": replace(layer, weights=wide)})
    narrow = with_narrow_weights(changed, evaluator(), SYMMETRIC).layers["conv/Conv2D"]
    assert narrow.weights.min() >= -127
    assert np.abs(narrow.weights.astype(int) - wide).max() <= 4
    np.testing.assert_allclose(narrow.deq_scale / layer.deq_scale, 128 / 127, rtol=1e-6)
    assert not np.array_equal(narrow.bias, layer.bias)
    untouched = {name: plan.layers[name] for name in ("dw/depthwise", "logits/Conv2D")}
    fine = replace(plan, layers={**untouched})
    if all(each.weights.min() >= -127 for each in untouched.values()):
        assert with_narrow_weights(fine, evaluator(), SYMMETRIC) is fine


@pytest.mark.parametrize("target", TARGETS)
def test_layers_with_the_same_weights_are_told_apart_by_their_steps_or_stay_in_float(target):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")

    def twins():
        x = tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x")
        weights = normal((1, 1, 4, 4), 1)
        y = tf.nn.relu(tf.nn.conv2d(x, weights, 1, "SAME", name="one"))
        y = tf.nn.conv2d(tf.nn.relu6(y), weights, 1, "SAME", name="two")
        tf.nn.softmax(tf.reduce_mean(tf.nn.conv2d(y, normal((1, 1, 4, 3), 2), 1, "SAME"), [1, 2]), name="out")

    x = normal((4, 6, 6, 4), 3)
    calibrate_and_save(build(twins), x)
    checked = CheckedEvaluator(OneBatch(x))
    plan = plan_export(Path("results/net_quantized.pb"), [], checked)
    exported = TARGETS[target].export(plan, checked)
    check = check_export(plan, exported, checked)
    assert check.exported.divergence < 5e-3
    one, two = (plan.layers[name] for name in ("one", "two"))
    assert np.array_equal(one.weights, two.weights)
    alike = np.array_equal(one.float_weights, two.float_weights)
    assert exported.in_float.get("one") == ("another layer has the same weights" if alike else None)
