"""Dense layers whose output channels differ in size by five orders of magnitude, each with a scale of its own."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.narrow_weights import SYMMETRIC, with_narrow_weights
from amct_tensorflow.export.tflite.tflite_model import make_tflite_model
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

SIZES = np.float32(4.0) ** -np.arange(8, dtype=np.float32)
WEIGHTS = normal((20, 8), 1) * SIZES
# Processors without exact products of bytes add pairs of them in 16 bits; with one of each pair 0 nothing saturates.
WEIGHTS[1::2] = 0
SHAPES = {"MatMul": [16, 20], "BatchMatMulV2": [16, 3, 20]}
# Between the layers, so that the second one reads the output of the first, or a float op does. No factors per channel
# go through these, by which the sizes would be balanced.
BETWEEN = {"read in int8": tf.nn.relu6, "read in float": tf.tanh}


@pytest.fixture(params=[(op_type, between) for op_type in SHAPES for between in BETWEEN], ids=" ".join)
def planned(request):
    """Two dense layers, one behind the other; the plan to export them, and its evaluator."""
    op_type, between = request.param
    shape = SHAPES[op_type]

    def make():
        x = tf1.placeholder(tf.float32, [None, *shape[1:]], name="x")
        y = tf.nn.bias_add(tf.matmul(x, WEIGHTS, name="dense"), normal((8,), 2) * SIZES)
        tf.nn.softmax(tf.matmul(BETWEEN[between](y), normal((8, 4), 4, 0.1), name="last"), name="out")

    x = normal(shape, 3)
    calibrate_and_save(build(make), x)
    evaluator = CheckedEvaluator(OneBatch(x))
    plan = plan_export(Path("results/net_quantized.pb"), [], evaluator)
    assert plan.layers["dense"].op_type.name == op_type
    assert (plan.layer_outputs["dense"].grid is None) == (between == "read in float")
    assert plan.layers["dense"].weight_scale.max() > 1e3 * plan.layers["dense"].weight_scale.min()
    return plan, evaluator


def reference(plan):
    """What the integers of the first layer stand for, float64 [..., 8]."""
    layer = plan.layers["dense"]
    steps = np.rint(plan.images["x"] / np.float32(layer.input_grid.scale)) + layer.input_grid.offset
    data = np.clip(steps, -128, 127) - layer.input_grid.offset
    return (data @ layer.weights.astype(np.int64) + layer.bias) * layer.deq_scale.astype(np.float64)


def as_read(values, plan):
    """Clips the output of the first layer to what the second one reads."""
    output = plan.layer_outputs["dense"]
    return np.clip(values, *output.clip) if output.grid is None else np.clip(values, *output.grid.limits)


@pytest.mark.parametrize("target", TARGETS)
def test_every_channel_keeps_its_own_scale(planned, target):
    plan, evaluator = planned
    exported = TARGETS[target].export(plan, evaluator)
    found = exported.runtime.layers(plan.images)["dense"]
    step = 0.0
    if target == "tflite":  # the integers have been rounded again, without -128
        plan = with_narrow_weights(plan, evaluator, SYMMETRIC)
        step = plan.output_grids["dense"].scale if plan.layer_outputs["dense"].grid is not None else 0.0
    error = np.abs(as_read(found, plan) - as_read(reference(plan), plan)).max(axis=tuple(range(found.ndim - 1)))
    assert np.all(error <= 1.1 * step + 1e-4 * SIZES), error / SIZES
    assert "dense" not in exported.in_float
    assert check_export(plan, exported, evaluator).exported.divergence < 1e-3


@pytest.mark.parametrize("resolver", ["AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"])
def test_all_kernels_of_tflite_take_a_scale_per_channel(planned, resolver):
    plan, evaluator = planned
    is_old = tuple(map(int, tf.__version__.split(".")[:2])) < (2, 19)
    if is_old and resolver == "BUILTIN_REF" and plan.layers["dense"].op_type.name != "MatMul":
        pytest.skip("the reference kernel of TensorFlow 2.16 to 2.18 computes data of two axes alone")
    plan = with_narrow_weights(plan, evaluator, SYMMETRIC)  # some kernels make of -128 something else
    model = make_tflite_model(plan.without(["last"]))
    interpreter = tf.lite.Interpreter(
        model_content=model.content,
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType[resolver],
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    assert len(details["dense/int8_weights"]["quantization_parameters"]["scales"]) == 8
    grid = plan.output_grids["dense"]
    for image, expected in zip(plan.images["x"], reference(plan), strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        found = interpreter.get_tensor(details[model.ends["dense"]]["index"])[0]
        if plan.layer_outputs["dense"].grid is None:
            assert np.all(np.abs(found - expected) <= 1e-5 * SIZES)
        else:
            rounded = np.clip(np.rint(as_read(expected, plan) / grid.scale) + grid.offset, -128, 127)
            assert np.abs(found.astype(int) - rounded).max() <= 1
