"""Ops that stand for a layer and what follows it are written as these."""

from math import erf
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fused_ops import SLIDING, for_tensorflow, fused, reference_prelu
from graphs import calibrate_and_save, node_of, normal, ops_of, prepared, run, save, signal_to_noise, tf1

import amct_tensorflow as amct
from amct_tensorflow.errors import ModelError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection import inspect_model
from amct_tensorflow.model.loading.load import load_frozen
from amct_tensorflow.model.preparation.unfuse import unfuse

IMAGES, ROWS = normal((2, 6, 6, 4), 1), normal((7, 12), 2)
FILTERS, MATRIX = normal((3, 3, 4, 8), 3, 0.3), normal((12, 8), 4, 0.4)
PER_CHANNEL = normal((3, 3, 4, 2), 11, 0.3)
BIAS, SLOPES = normal((8,), 5), normal((1, 1, 8), 6, 0.3)
STATISTICS = [*(normal((8,), seed) for seed in (7, 8, 9)), normal((8,), 10) ** 2 + np.float32(0.1)]


def conv(fused_ops, *arguments, **attributes):
    attributes = SLIDING | attributes
    return fused("_FusedConv2D", IMAGES, [FILTERS, *arguments], fused_ops, len(arguments), **attributes)


def depthwise(fused_ops, *arguments):
    op = "FusedDepthwiseConv2dNative"
    return fused(op, IMAGES, [PER_CHANNEL, *arguments], fused_ops, len(arguments), **SLIDING)


def matmul(fused_ops, *arguments, **attributes):
    return fused("_FusedMatMul", ROWS, [MATRIX, *arguments], fused_ops, len(arguments), **attributes)


# --------------------------------------------------------------------------------- What TensorFlow computes, too

OF_TENSORFLOW = {
    "bias": conv(["BiasAdd"], BIAS),
    "relu": conv(["BiasAdd", "Relu"], BIAS),
    "relu6": conv(["BiasAdd", "Relu6"], 4 * BIAS),
    "elu": conv(["BiasAdd", "Elu"], BIAS),
    "leaky relu": conv(["BiasAdd", "LeakyRelu"], BIAS, leakyrelu_alpha=0.3),
    "leaky relu of the default": conv(["BiasAdd", "LeakyRelu"], BIAS),
    "batch norm": conv(["FusedBatchNorm"], *STATISTICS, epsilon=0.5),
    "batch norm of the default": conv(["FusedBatchNorm"], *STATISTICS),
    "batch norm, relu": conv(["FusedBatchNorm", "Relu"], *STATISTICS, epsilon=0.01),
    "batch norm, leaky relu": conv(["FusedBatchNorm", "LeakyRelu"], *STATISTICS, epsilon=0.01, leakyrelu_alpha=0.4),
    "dilations": conv(["BiasAdd"], BIAS, dilations=[1, 2, 2, 1], padding="VALID"),
    "explicit paddings": conv(
        ["BiasAdd"], BIAS, padding="EXPLICIT", explicit_paddings=[0, 0, 2, 1, 0, 1, 0, 0], strides=[1, 2, 2, 1]
    ),
    "product, bias": matmul(["BiasAdd"], BIAS),
    "product, relu": matmul(["BiasAdd", "Relu"], BIAS),
    "product, relu6": matmul(["BiasAdd", "Relu6"], 4 * BIAS),
    "product, elu": matmul(["BiasAdd", "Elu"], BIAS),
    "product, leaky relu": matmul(["BiasAdd", "LeakyRelu"], BIAS, leakyrelu_alpha=0.1),
    "product of the transposed": fused("_FusedMatMul", ROWS, [MATRIX.T.copy(), BIAS], ["BiasAdd"], 1, transpose_b=True),
}


def data_of(graph_def):
    return ROWS if node_of(graph_def, "out").op == "_FusedMatMul" else IMAGES


@pytest.mark.parametrize("name", OF_TENSORFLOW)
def test_the_same_comes_out_as_of_tensorflow(name):
    graph_def = OF_TENSORFLOW[name]
    if node_of(graph_def, "out").op == "_FusedConv2D":
        graph_def = for_tensorflow(tf1.GraphDef.FromString(graph_def.SerializeToString()))
    x = data_of(graph_def)
    after, origins = prepared(graph_def, unfuse)
    assert not any("Fused" in op and op != "FusedBatchNorm" for op in ops_of(after))
    assert set(origins.values()) == {("out",)}
    (expected,), (actual,) = (run(each, ["out"], {"x": x}) for each in (graph_def, after))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_mirrored_padding_is_a_node_of_its_own():
    """TensorFlow 2.16 to 2.21 yield the result of the first image for all images of a batch, so there is one here."""
    paddings = np.int32([[0, 0], [2, 1], [1, 0], [0, 0]])
    attributes = {"mode": "REFLECT", "strides": [1, 1, 1, 1], "padding": "VALID"}
    graph_def = fused("FusedPadConv2D", IMAGES, [paddings, FILTERS], **attributes)
    after, _ = prepared(graph_def, unfuse)
    assert ops_of(after) == ["Conv2D", "MirrorPad"]
    (expected,), (actual,) = (run(each, ["out"], {"x": IMAGES[:1]}) for each in (graph_def, after))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_product_may_end_in_gelu():
    """TensorFlow's own kernels of it need oneDNN."""
    sums = ROWS.astype(np.float64) @ MATRIX + BIAS
    exact = sums * 0.5 * (1 + np.vectorize(erf)(sums / np.sqrt(2)))
    tanh = sums * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (sums + 0.044715 * sums**3)))
    for op, expected in {"GeluExact": exact, "GeluApproximate": tanh}.items():
        after, _ = prepared(matmul(["BiasAdd", op], BIAS), unfuse)
        np.testing.assert_allclose(run(after, ["out"], {"x": ROWS})[0], expected, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------- What TensorFlow.js alone computes


def convolved(op, filters):
    return op(IMAGES, filters, [1, 1, 1, 1], "SAME").numpy() if op is not None else ROWS @ MATRIX


ELU = lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))  # noqa: E731
ENDS = {
    "none": ([], [], lambda sums: sums),
    "bias": (["BiasAdd"], [BIAS], lambda sums: sums + BIAS),
    "relu": (["BiasAdd", "Relu"], [BIAS], lambda sums: np.maximum(sums + BIAS, 0)),
    "relu6": (["BiasAdd", "Relu6"], [4 * BIAS], lambda sums: np.clip(sums + 4 * BIAS, 0, 6)),
    "elu": (["BiasAdd", "Elu"], [BIAS], lambda sums: ELU(sums + BIAS)),
    "sigmoid": (["BiasAdd", "Sigmoid"], [BIAS], lambda sums: 1 / (1 + np.exp(-sums - BIAS))),
    "prelu": (["BiasAdd", "Prelu"], [BIAS, SLOPES], lambda sums: reference_prelu(sums + BIAS, SLOPES)),
    "prelu alone": (["Prelu"], [SLOPES], lambda sums: reference_prelu(sums, SLOPES)),
    "sum": (["BiasAdd", "Add", "Relu"], [BIAS, SLOPES], lambda sums: np.maximum(sums + BIAS + SLOPES, 0)),
}
LAYERS = {
    "convolution": (conv, tf.nn.conv2d, FILTERS),
    "depthwise": (depthwise, tf.nn.depthwise_conv2d, PER_CHANNEL),
    "product": (matmul, None, None),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_file_of_tensorflow_js_computes_what_it_means(layer, end, tmp_path):
    """TensorFlow knows none of these nodes, or not without TArgs: they are separate as soon as the file is read."""
    make, op, filters = LAYERS[layer]
    fused_ops, arguments, after = ENDS[end]
    if layer == "product":
        arguments = [each.reshape(-1) for each in arguments]
    graph_def = make(fused_ops, *arguments)
    if layer == "product":  # which TensorFlow would import
        read = prepared(graph_def, unfuse)[0]
    else:
        frozen = load_frozen(save(graph_def, tmp_path / "net.pb"))
        assert frozen.frozen_now
        read = frozen.graph_def
    expected = after(convolved(op, filters).astype(np.float64))
    actual = run(read, ["out"], {"x": data_of(graph_def)})[0]
    np.testing.assert_allclose(actual, expected.reshape(actual.shape), rtol=1e-5, atol=1e-5)


def test_a_prelu_of_its_own(tmp_path):
    graph_def = fused("Prelu", IMAGES, [np.float32([[[0.5, -0.25, 0, 2]]])])
    del node_of(graph_def, "out").attr["T"]
    read = load_frozen(save(graph_def, tmp_path / "net.pb")).graph_def
    np.testing.assert_array_equal(
        run(read, ["out"], {"x": IMAGES})[0], reference_prelu(IMAGES, np.float32([0.5, -0.25, 0, 2])).astype(np.float32)
    )


# ------------------------------------------------------------------------------------------------ What stays


@pytest.mark.parametrize(
    "graph_def",
    [
        conv(["BiasAdd", "Mystery"], BIAS),
        conv(["BiasAdd", "Prelu"], BIAS),
        conv(["Relu"], BIAS),
        conv(["BiasAdd", "Prelu"], BIAS, SLOPES, data_format="NCHW"),
        conv(["BiasAdd"], BIAS, filter_format="OIHW"),
    ],
    ids=["a name that nobody knows", "an argument too few", "one too many", "slopes of channels first", "OIHW"],
)
def test_what_cannot_be_told_stays(graph_def, tmp_path):
    after, origins = prepared(graph_def, unfuse)
    assert origins == {} and after == graph_def
    with pytest.raises(ModelError, match="'out'"):
        FloatModel.load(save(graph_def, tmp_path / "net.pb"), ["out"]).graph  # noqa: B018


def test_the_layer_waits_for_what_the_op_waits_for():
    graph_def = for_tensorflow(conv(["BiasAdd", "Relu"], BIAS))
    node_of(graph_def, "out").input.append("^x")
    after, _ = prepared(graph_def, unfuse)
    assert list(node_of(after, "out/Conv2D").input) == ["x", "constant_0", "^x"]


# -------------------------------------------------------------------------------------------- The public steps


def test_an_optimized_graph_is_quantized_in_the_callers_session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph_def = for_tensorflow(conv(["BiasAdd", "Relu"], BIAS))
    quantized = calibrate_and_save(graph_def, IMAGES)
    assert ops_of(quantized).count("AscendQuant") == 1
    expected = run(graph_def, ["out"], {"x": IMAGES})[0]
    assert signal_to_noise(expected, run(quantized, ["out"], {"x": IMAGES})[0]) > 30


def test_a_configuration_names_the_layer_as_its_file_does(tmp_path):
    graph_def = for_tensorflow(conv(["BiasAdd", "Relu"], BIAS))
    model = FloatModel.load(save(graph_def, tmp_path / "net.pb"), ["out"])
    (layer,) = model.layers
    assert (layer.name, layer.written_as) == ("out/Conv2D", "out")


def test_a_file_of_tensorflow_js_is_inspected(tmp_path):
    model = FloatModel.load(save(depthwise(["BiasAdd", "Prelu"], BIAS, SLOPES), tmp_path / "net.pb"), ["out"])
    (layer,) = inspect_model(model).layers
    assert layer.name == "out/DepthwiseConv2dNative"


def test_a_file_of_tensorflow_js_is_quantized_and_written_in_ops_that_tensorflow_knows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(conv(["BiasAdd", "Prelu"], BIAS, SLOPES), Path("net.pb"))
    graph_def = load_frozen(path).graph_def
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    amct.create_quant_config("config.json", graph)
    amct.quantize_model(graph, "config.json", "record.txt", ["out"])
    with tf1.Session(graph=graph) as session:
        (expected,) = session.run(["out:0"], {"x:0": IMAGES})
    amct.save_model(path, ["out"], "record.txt", "results/net")
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    assert signal_to_noise(expected, run(quantized, ["out"], {"x": IMAGES})[0]) > 30
    assert len(list(Path("results").glob("*.pb"))) == 2  # the frozen one, too
