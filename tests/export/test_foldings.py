"""What TensorFlow's converter folds, moves and leaves: every bias counts once, and what was written is read back."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, tf1
from test_every_format import OneBatch

import amct_tensorflow as amct
from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.tflite.tflite_editor import TfliteEditor
from amct_tensorflow.export.tflite.tflite_erf import with_erf_in_small_ops
from amct_tensorflow.export.tflite.tflite_model import make_tflite_model
from amct_tensorflow.export.tflite.tflite_reading import read_tflite_layers
from amct_tensorflow.export.tflite.tflite_target import TFLITE
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.export.written import check_written
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

MODEL = Path("results/net_quantized.pb")


def dense(x, number, units, bias=1.0):
    """A dense layer whose outputs lie above 0, so that the Relu behind it makes no difference to the quantizer."""
    weights = np.abs(normal((int(x.shape[-1]), units), number, 0.3))
    y = tf.matmul(x, weights, name=f"dense{number}")
    return y if bias is None else tf.nn.relu(y + (bias + np.abs(normal((units,), number))))


def sequence(shape):
    """Dense layers on inputs of some rank: TensorFlow makes MatMul or BatchMatMulV2 of them."""

    def make():
        y = tf1.placeholder(tf.float32, [None, *shape], name="x")
        for number in (1, 2, 3):
            y = dense(y, number, 6)
        tf.nn.softmax(dense(y, 4, 4, bias=None), name="out")

    return make


def exported(make, x):
    calibrate_and_save(build(make), x)
    checked = CheckedEvaluator(OneBatch(x))
    plan = plan_export(MODEL, [], checked)
    found = TFLITE.export(plan, checked)
    return plan, found, check_export(plan, found, checked)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (1, 8), (3, 5, 8), (2, 3, 5, 8)])
def test_a_bias_in_front_of_a_dense_layer_counts_once(shape):
    x = np.abs(normal((16, *shape), 9))
    plan, found, check = exported(sequence(shape), x)
    assert check.exported.divergence < 1e-4
    assert set(found.in_float) <= {"dense4"}  # its output stays in float
    written = read_tflite_layers(found.files[".tflite"], plan.layers)
    assert written.keys() == plan.layers.keys()
    for name in ("dense1", "dense2", "dense3"):
        np.testing.assert_allclose(written[name].bias, plan.layers[name].float_bias, rtol=1e-6)
    operators = TfliteEditor(found.files[".tflite"]).operators
    assert "MAXIMUM" not in {TfliteEditor(found.files[".tflite"]).op_type(each) for each in operators}


def conv(x, number, channels):
    return tf.nn.conv2d(x, normal((1, 1, int(x.shape[-1]), channels), number, 0.5), 1, "SAME", name=f"conv{number}")


def constants_between():
    """Constants behind layers that no fusion takes in, since somebody reads what lies between."""
    x = tf1.placeholder(tf.float32, [None, 4, 4, 3], name="x")
    y = tf.nn.bias_add(conv(x, 1, 4), normal((4,), 1))
    shifted = y + normal((4,), 2)
    y = conv(tf.nn.relu(shifted), 2, 4) + conv(tf.nn.relu(y * normal((4,), 3)), 3, 4)
    y = conv(y + normal((4, 4, 4), 4), 4, 4) * normal((4,), 5)
    tf.nn.softmax(tf.reduce_mean(conv(tf.nn.relu(y) + normal((4,), 6), 5, 3), [1, 2]) + normal((3,), 7), name="out")


def test_constants_between_layers_are_neither_lost_nor_doubled():
    *_, check = exported(constants_between, normal((8, 4, 4, 3), 9))
    assert check.exported.divergence < 1e-3


LAYERS = {
    "Conv2D": lambda x: conv(x, 1, 4),
    "DepthwiseConv2dNative": lambda x: tf.nn.depthwise_conv2d(x, normal((3, 3, 3, 2), 1, 0.3), [1] * 4, "SAME"),
    "Conv2DBackpropInput": lambda x: tf.nn.conv2d_transpose(
        x, normal((3, 3, 4, 3), 1, 0.3), tf.stack([tf.shape(x)[0], 8, 8, 4]), 2, "SAME"
    ),
    "MatMul": lambda x: tf.reshape(tf.matmul(tf.reshape(x, [-1, 48]), normal((48, 16), 1, 0.3)), [-1, 2, 2, 4]),
    "BatchMatMulV2": lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=normal((3, 4), 1, 0.3)),
}


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("op_type", LAYERS)
def test_layers_without_a_bias(op_type, relu):
    def make():
        y = LAYERS[op_type](tf1.placeholder(tf.float32, [None, 4, 4, 3], name="x"))
        y = conv(tf.nn.relu(y) if relu else y, 2, 4)
        tf.nn.softmax(tf.reduce_mean(conv(y, 3, 3), [1, 2]), name="out")

    calibrate_and_save(build(make), normal((8, 4, 4, 3), 9))
    amct.convert_model("float.pb", ["out"], "record.txt", "results/net")  # biases are not corrected, so none is made
    checked = CheckedEvaluator(OneBatch(normal((8, 4, 4, 3), 9)))
    plan = plan_export(MODEL, [], checked)
    assert all(layer.bias is None for layer in plan.layers.values())
    found = TFLITE.export(plan, checked)
    assert check_export(plan, found, checked).exported.divergence < 1e-3
    assert len(found.in_float) == 1  # the last


def twins():
    """Two layers with the same weights on the same data, of which a converter makes one."""
    x = tf1.placeholder(tf.float32, [None, 4, 4, 3], name="x")
    weights = normal((1, 1, 3, 4), 1)
    one, two = (tf.nn.conv2d(x, weights, 1, "SAME", name=name) for name in ("one", "two"))
    y = conv(tf.nn.relu(one), 2, 4) + conv(tf.nn.relu6(two), 3, 4)
    tf.nn.softmax(tf.reduce_mean(conv(y, 4, 3), [1, 2]), name="out")


def test_an_operator_is_given_to_one_layer_alone():
    plan, found, check = exported(twins, normal((8, 4, 4, 3), 9))
    assert check.exported.divergence < 1e-3
    if np.array_equal(plan.layers["one"].float_weights, plan.layers["two"].float_weights):
        assert found.in_float["one"] == found.in_float["two"] == "another layer has the same weights"


def on_another_grid(layer):
    return replace(layer, quantizers=(replace(layer.quantizer, grid=replace(layer.input_grid, offset=5)),))


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("weights", lambda layer: replace(layer, weights=layer.weights + np.int8(1))),
        ("biases", lambda layer: replace(layer, bias=layer.bias + 1)),
        ("biases", lambda layer: replace(layer, bias=None)),
        ("scales of the weights", lambda layer: replace(layer, deq_scale=layer.deq_scale * np.float32(1.01))),
        ("factors of the input", on_another_grid),
    ],
)
def test_what_a_file_holds_is_compared_with_what_was_to_be_put_into_it(what, changed):
    x = np.abs(normal((16, 8), 9))
    calibrate_and_save(build(sequence((8,))), x)
    plan = plan_export(MODEL, [], CheckedEvaluator(OneBatch(x)))
    written = read_tflite_layers(make_tflite_model(plan).content, plan.layers)
    check_written(plan.layers, written, "TensorFlow Lite")
    other = {**plan.layers, "dense2": changed(plan.layers["dense2"])}
    with pytest.raises(ExportError, match=f"The {what} of layer 'dense2' in the TensorFlow Lite file"):
        check_written(other, written, "TensorFlow Lite")


def test_layers_whose_steps_xnnpack_refuses_compute_in_float():
    x = np.abs(normal((16, 8), 9))
    calibrate_and_save(build(sequence((8,))), x)
    plan = plan_export(MODEL, [], CheckedEvaluator(OneBatch(x)))
    step = float(plan.layers["dense2"].deq_scale.max())
    coarse, fine = (replace(plan.output_grids["dense2"], scale=step / steps) for steps in (250, 300))
    for grid, in_float in ((coarse, False), (fine, True)):
        model = make_tflite_model(replace(plan, output_grids={**plan.output_grids, "dense2": grid}))
        assert ("dense2" in model.in_float) == in_float
        interpreter = tf.lite.Interpreter(model_content=model.content)
        interpreter.allocate_tensors()  # XNNPACK takes the file
    assert model.in_float["dense2"].startswith("a step of its sums is 300 steps of its output; XNNPACK takes less")


@pytest.mark.parametrize("scale", [tf.multiply, tf.divide])
def test_a_scale_behind_a_dense_layer_leaves_its_weights_alone(scale):
    """As of the queries of attention: the converter would fold it into the weights, whose integers are ours."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 5, 8], name="x")
        y = tf.reshape(tf.matmul(x, normal((8, 6), 1)) + normal((6,), 2), [-1, 5, 2, 3])
        y = scale(y, np.float32(0.35))
        tf.tanh(tf.matmul(y, y, transpose_b=True), name="out")

    plan, found, check = exported(make, normal((16, 5, 8), 9))
    assert len(plan.layers) == 1
    assert not found.in_float
    assert check.exported.divergence < 1e-4  # with integers that were rounded again, without -128


def test_data_of_six_axes_goes_through_the_int8_kernel():
    """TensorFlow Lite pads no more than five, by which dense layers yield float."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 2, 3, 2, 3, 8], name="x")
        y = tf.tanh(tf.matmul(x, normal((8, 6), 1)))
        tf.tanh(tf.matmul(y, normal((6, 4), 2)), name="out")

    _, found, check = exported(make, normal((4, 2, 3, 2, 3, 8), 9))
    assert found.in_float.keys() == {"MatMul_1"}  # at the end of the network, where no grid is known
    assert check.exported.divergence < 1e-3


def test_a_gelu_behind_a_dense_layer_is_seen():
    """TensorFlow 2.21 writes it with Erfc, which TensorFlow Lite does not know, of a product with a constant."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 5, 8], name="x")
        tf.identity(tf.nn.gelu(tf.matmul(x, normal((8, 6), 1)) + normal((6,), 2)), name="out")

    _, found, check = exported(make, normal((16, 5, 8), 9))
    assert not found.in_float
    assert check.exported.divergence < 1e-4


def scaled_gelu(x):
    """As balancing leaves a Gelu, with a factor per channel in place of its 0.5; not one that the converter knows."""
    return np.abs(normal((6,), 5)) * x * tf.math.erfc(-x * np.float32(np.sqrt(0.5)))


@pytest.mark.parametrize("function", [tf.math.erf, tf.math.erfc, scaled_gelu])
def test_error_functions_that_are_no_gelu_are_computed_in_small_ops(function):
    def make():
        x = tf1.placeholder(tf.float32, [None, 5, 8], name="x")
        tf.identity(function(tf.matmul(x, normal((8, 6), 1)) + normal((6,), 2)), name="out")

    plan, found, check = exported(make, normal((16, 5, 8), 9))
    assert plan.layers
    assert not found.in_float
    assert check.exported.divergence < 1e-4
    # Of outputs that are no probabilities it is the noise by the signal.
    assert check.rounding == pytest.approx(10 ** (-check.outputs["out"].simulation.sqnr / 10))


def test_the_error_function_in_small_ops_is_exact_in_float32():
    """Compared with that of the math module in double precision."""
    x = np.concatenate([np.linspace(-6, 6, 4001), [0.0, -0.0, 1e-30, 1e30, -np.inf, np.inf]]).astype(np.float32)

    def make():
        data = tf1.placeholder(tf.float32, [None], name="x")
        tf.math.erf(data, name="erf")
        tf.math.erfc(data, name="erfc")

    small = with_erf_in_small_ops(build(make))
    assert not {"Erf", "Erfc"} & {node.op for node in small.node}
    erf, erfc = run(small, ["erf", "erfc"], {"x": x})
    np.testing.assert_allclose(erf, [math.erf(each) for each in x], rtol=1e-6, atol=5e-7)
    np.testing.assert_allclose(erfc, [math.erfc(each) for each in x], rtol=0, atol=5e-7)


def test_a_graph_without_error_functions_has_none_to_write():
    assert with_erf_in_small_ops(build(sequence((8,)))) is None


def test_a_batch_of_another_length_is_refused():
    def make():
        x = tf1.placeholder(tf.float32, [None, None, 8], name="x")
        tf.tanh(tf.matmul(x, normal((8, 6), 1)), name="out")

    _, found, _ = exported(make, normal((4, 5, 8), 9))
    with pytest.raises(ExportError, match=r"\[1, 5, 8\] at a time, .* not \[4, 3, 8\]\. Give batches of one size"):
        found.runtime.run({"x": normal((4, 3, 8), 9)})


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("in_int8", [False, True])
@pytest.mark.parametrize("size", [(9, 9), (10, 10), (9, 10), (10, 9)])
def test_strides_that_skip_the_end_of_the_data(depthwise, in_int8, size):
    """XNNPACK would yield zeros for what pads nothing along an axis, but says that it pads."""

    def make():
        x = tf1.placeholder(tf.float32, [None, *size, 4], name="x")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((1, 1, 4, 4), 1), 1, "SAME"))
        if depthwise:
            y = tf.nn.depthwise_conv2d(y, normal((2, 2, 4, 1), 2), [1, 3, 3, 1], "SAME")
        else:
            y = tf.nn.conv2d(y, normal((2, 2, 4, 4), 2), 3, "SAME")
        y = tf.nn.relu(y) if in_int8 else tf.tanh(y)
        tf.tanh(tf.nn.conv2d(y, normal((1, 1, 4, 3), 3), 1, "SAME"), name="out")

    _, found, check = exported(make, normal((8, *size, 4), 9))
    assert check.exported.divergence < 1e-2
    operators = [
        TfliteEditor(found.files[".tflite"]).op_type(each) for each in TfliteEditor(found.files[".tflite"]).operators
    ]
    assert operators.count("PAD") == (size[0] != size[1])
