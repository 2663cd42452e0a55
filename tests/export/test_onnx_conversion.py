"""What tf2onnx makes of ops that it does not know."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from test_every_format import OneBatch

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.onnx.onnx_conversion import convert_to_onnx
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")


def of(op):
    def make():
        tf.identity(op(tf1.placeholder(tf.float32, [None, 5], name="x")), name="out")

    return build(make)


def test_erfc_is_written_by_erf():
    """Of 0 and infinities the values are known: 1, 0 and 2; of 1 it is 0.157299 (tables)."""
    model = convert_to_onnx(of(tf.math.erfc), ["x"], ["out"])
    x = np.array([[0, 1, -1, 30, -30]], np.float32)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x:0": x})[0], [[1, 0.157299, 1.842701, 0, 2]], atol=1e-6)


def test_lengths_of_a_reshape_are_those_of_its_own_data():
    """A dense layer of three axes, as Keras 2 writes it, and then the heads of attention: two Reshapes in a row."""

    def split(x):
        y = tf.tensordot(x, tf.constant(normal((5, 6), 1)), [[2], [0]])
        return tf.reshape(y, [tf.shape(y)[0], tf.shape(y)[1], 2, 3])

    def make():
        tf.identity(split(tf1.placeholder(tf.float32, [None, None, 5], name="x")), name="out")

    model = convert_to_onnx(build(make), ["x"], ["out"])
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((2, 3, 5), (4, 1, 5)):
        x = normal(shape, 2)
        np.testing.assert_allclose(session.run(None, {"x:0": x})[0], split(x), atol=1e-5)


def reshaped(x):
    """One head of attention of what a Conv2D makes shorter: its Transpose moves an axis of 1."""
    y = tf.reshape(tf.nn.conv2d(tf.reshape(x, [-1, 4, 4, 5]), normal((2, 2, 5, 6), 1), 2, "VALID"), [-1, 4, 6])
    y = tf.reshape(tf.matmul(tf.reshape(y, [-1, 6]), normal((6, 6), 2)), tf.concat([tf.shape(y)[:2], [6]], 0))
    heads = tf.transpose(tf.reshape(y, tf.stack([tf.shape(x)[0], -1, 1, 6])), [0, 2, 1, 3])
    return tf.matmul(heads, heads, transpose_b=True)


def test_lengths_of_a_transpose_that_becomes_a_reshape_are_those_of_its_own_data():
    def make():
        tf.identity(reshaped(tf1.placeholder(tf.float32, [None, 16, 5], name="x")), name="out")

    model = convert_to_onnx(build(make), ["x"], ["out"])
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for length in (1, 3):
        x = normal((length, 16, 5), 2)
        np.testing.assert_allclose(session.run(None, {"x:0": x})[0], reshaped(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", [tf.math.lgamma, tf.math.special.bessel_j0])
def test_an_op_that_stays_in_is_refused(op):
    with pytest.raises(ExportError, match=r"tf2onnx does not know the op (Lgamma|BesselJ0) of '\w+"):
        convert_to_onnx(of(op), ["x"], ["out"])


def test_an_op_in_the_body_of_a_loop_is_refused():
    def loop(x):
        return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.math.lgamma(y)), [0, x])[1]

    with pytest.raises(ExportError, match=r"Lgamma"):
        convert_to_onnx(of(loop), ["x"], ["out"])


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_gelu_between_layers(target, approximate):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")

    def make():
        y = tf.matmul(tf1.placeholder(tf.float32, [None, 20], name="x"), normal((20, 16), 1))
        y = tf.nn.gelu(tf.nn.bias_add(y, normal((16,), 2)), approximate=approximate)
        tf.nn.softmax(tf.matmul(y, 0.1 * normal((16, 4), 3)), name="out")

    x = normal((16, 20), 4)
    calibrate_and_save(build(make), x)
    model, evaluator = Path("results/net_quantized.pb"), CheckedEvaluator(OneBatch(x))
    document = export_model(model, [], TARGETS[target], evaluator, Path("results/net"), 0.01)
    assert document["kl"] < 1e-4


def export_one(make, x):
    calibrate_and_save(build(make), x)
    return export_model(
        Path("results/net_quantized.pb"), [], TARGETS["onnx"], CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
    )


def test_a_bias_that_is_summed_up_with_other_constants_is_none_of_a_layer():
    """Positions behind the patches of an image: the converter adds up the bias and them."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = tf.nn.bias_add(tf.nn.conv2d(x, normal((4, 4, 3, 5), 1), 4, "VALID", name="patches"), normal((5,), 2))
        y = tf.tanh(y + normal((1, 2, 2, 5), 3))
        tf.identity(tf.matmul(tf.reshape(y, [-1, 20]), normal((20, 4), 4)), name="out")

    document = export_one(make, normal((8, 8, 8, 3), 5))
    assert [layer["reason"] for layer in document["layers"]] == ["the converter has changed it", None]
    assert document["kl"] < 1e-3


def test_layers_that_the_converter_merges_have_the_same_weights():
    """Keys and values of attention whose weights are alike before they are trained, and whose biases are not."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 3, 5], name="x")
        one, other = (tf.matmul(x, normal((5, 6), 1)) for _ in range(2))
        tf.identity(tf.matmul(tf.tanh(one), tf.sigmoid(other), transpose_b=True), name="out")

    document = export_one(make, normal((8, 3, 5), 5))
    assert {layer["reason"] for layer in document["layers"]} == {"another layer has the same weights"}
    assert document["kl"] < 1e-3
