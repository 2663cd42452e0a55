"""Attention in every format: the products of two computed operands are those of the simulation."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from layers import PRODUCTS, PRODUCTS_TOO
from test_every_format import OneBatch

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.onnx.onnx_model import make_onnx_model
from amct_tensorflow.export.onnx.onnx_reading import read_onnx_layers
from amct_tensorflow.export.tflite.tflite_model import make_tflite_model
from amct_tensorflow.export.tflite.tflite_reading import read_tflite_layers
from amct_tensorflow.export.written import check_written
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

MODEL = Path("results/net_quantized.pb")


def attention():
    """Two heads of self-attention, with a projection in front and one behind."""
    x = tf1.placeholder(tf.float32, [None, 5, 8], name="x")
    q, k, v = (
        tf.transpose(tf.reshape(tf.matmul(x, normal((8, 8), seed, 0.5), name=name), [-1, 5, 2, 4]), [0, 2, 1, 3])
        for seed, name in enumerate("qkv")
    )
    scores = tf.nn.softmax(tf.matmul(q, k, transpose_b=True, name="qk") / 2.0)
    mixed = tf.reshape(tf.transpose(tf.matmul(scores, v, name="av"), [0, 2, 1, 3]), [-1, 5, 8])
    tf.identity(tf.matmul(mixed, normal((8, 8), 4, 0.5), name="o"), name="out")


def one_head():
    """One head of self-attention; returns its output."""
    x = tf1.placeholder(tf.float32, [None, 8, 8], name="x")
    q, k, v = (tf.matmul(x, normal((8, 8), seed, 0.5), name=name) for seed, name in enumerate("qkv"))
    return tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True, name="qk") / 2.0), v, name="av")


@pytest.fixture(name="x")
def quantized_attention():
    x = normal((64, 5, 8), 9)
    calibrate_and_save(build(attention), x, simplified=PRODUCTS_TOO)
    return x


def export(x, target):
    return export_model(MODEL, [], TARGETS[target], CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01)


# TensorFlow Lite multiplies queries and keys in float: its kernel would round what the softmax reads.
IN_INT8 = {"tflite": {"av"}, "onnx": {"qk", "av"}}


@pytest.mark.parametrize(
    "other",
    [
        lambda scores: tf.reshape(scores, [-1, 50]),
        tf.nn.relu,
        lambda scores: scores + 1,
        lambda scores: scores * scores,
        lambda scores: tf.sin(tf.reshape(scores, [-1, 25])),
    ],
    ids=["reshape", "relu", "add", "square", "behind_a_reshape"],
)
@pytest.mark.parametrize("target", TARGETS)
def test_a_product_that_is_read_twice_has_the_same_values_for_both(other, target):
    def make():
        attention()
        scores, out = (tf1.get_default_graph().get_tensor_by_name(f"{name}:0") for name in ("qk", "out"))
        tf.concat([tf.reshape(other(scores), [-1, 50]), tf.reshape(out, [-1, 40])], 1, name="both")

    x = normal((16, 5, 8), 9)
    calibrate_and_save(build(make), x, "both", simplified=PRODUCTS_TOO)
    document = export(x, target)
    assert document["kl"] < 1e-3
    assert document["outputs"][0]["lost_db"] < 3
    assert target == "tflite" or all(layer["int8"] for layer in document["layers"])


@pytest.mark.parametrize("target", TARGETS)
def test_attention(x, target):
    document = export(x, target)
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers.keys() == {"q", "k", "v", "qk", "av", "o"}
    if target in IN_INT8:
        assert {name for name in ("qk", "av") if layers[name]["int8"]} == IN_INT8[target]
    # An integer that a runtime rounds to the other side makes the softmax, and what is rounded behind it, another one.
    assert document["outputs"][0]["lost_db"] < (0.1 if target == "onnx" else 1.5), document
    assert document["kl"] < 1e-3
    assert all(layer["snr_db"] is None or layer["snr_db"] > 25 for layer in document["layers"]), document


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_product_that_is_the_output(target, named):
    """Of a product that an Identity passes on, converters keep the name of the output alone."""

    def make():
        y = one_head()
        if named:
            tf.identity(tf.identity(y), name="out")

    x = normal((16, 8, 8), 9)
    calibrate_and_save(build(make), x, "out" if named else "av", simplified=PRODUCTS_TOO)
    document = export(x, target)
    assert "the converter has changed it" not in [layer["reason"] for layer in document["layers"]]
    if target == "onnx":
        assert all(layer["int8"] for layer in document["layers"])
    assert document["outputs"][0]["lost_db"] < 1.5, document


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("only", ["qk", "av"])
def test_one_product_of_an_attention_in_int8(only, target):
    """OpenVINO 2026.4 makes one kernel of both products, which in bfloat16 yields other values if one is in int8."""

    def make():
        y = one_head()
        tf.matmul(y, normal((8, 8), 5, 0.5), name="o")

    x = normal((16, 8, 8), 9)
    (other,) = {"qk", "av"} - {only}
    calibrate_and_save(build(make), x, "o", simplified=f'{PRODUCTS_TOO}\nskip_layers: "{other}"')
    document = export(x, target)
    (layer,) = [layer for layer in document["layers"] if layer["name"] == only]
    assert target != "openvino" or layer["reason"].startswith("the other product of its attention is in float")
    assert document["outputs"][0]["lost_db"] < 1.5, document


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_every_type(name, target):
    layer = PRODUCTS[name]

    def make():
        y = layer(tf1.placeholder(tf.float32, layer.shape, name="x"))
        y = tf.reduce_mean(y, 1) if len(layer.shape) > 2 else y
        tf.nn.softmax(tf.matmul(y, normal((y.shape[-1], 4), 4)), name="out")

    x = normal([4 if length is None else length for length in layer.shape], 3)
    calibrate_and_save(build(make), x, simplified=PRODUCTS_TOO)
    document = export(x, target)
    assert document["kl"] < 2e-4, document


def test_both_factors_are_found_again(x):
    plan = plan_export(MODEL, [], CheckedEvaluator(OneBatch(x)))
    written = {
        "onnx": read_onnx_layers(make_onnx_model(plan, outputs_in_int8=True).model.SerializeToString(), plan.layers),
        "tflite": read_tflite_layers(make_tflite_model(plan).content, plan.layers),
    }
    for tool, found in written.items():
        check_written(plan.layers, found, tool)
        for name in ("qk", "av"):
            grids = (found[name].input_grid, found[name].second_grid)
            for grid, quantizer in zip(grids, plan.layers[name].quantizers, strict=True):
                assert grid.offset == 0
                np.testing.assert_allclose(grid.scale, quantizer.grid.scale, rtol=1e-6)


def test_another_factor_is_noticed(x):
    plan = plan_export(MODEL, [], CheckedEvaluator(OneBatch(x)))
    model = make_onnx_model(plan, outputs_in_int8=True).model
    (product,) = [node for node in model.graph.node if node.output[0] == "qk:0"]
    (dequantizer,) = [node for node in model.graph.node if node.output[0] == product.input[1]]
    (scale,) = [each for each in model.graph.initializer if each.name == dequantizer.input[1]]
    scale.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(scale), scale.name))
    with pytest.raises(ExportError, match="factors of the input of layer 'qk'"):
        check_written(plan.layers, read_onnx_layers(model.SerializeToString(), plan.layers), "ONNX")
