"""The simulated layers against an integer reference in NumPy, and the shape of the quantized graph."""

import json

import numpy as np
import pytest
import tensorflow as tf
from graphs import SMALL_NET_LAYERS, batch_norm, build, nchw_on_cpu, normal, prepared, run, small_net, tf1
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.preparation.grouped_conv2d import rewrite_grouped_conv2d
from amct_tensorflow.ops.pooling import AVG_POOL
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.node_map import dump_node_map
from amct_tensorflow.quantize.quantized.quantization_plan import (
    QuantizationPlan,
    check_sums,
    layer_deq_scale,
    nearest_integers,
    quantize_bias,
)
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors


def quantizer_reference(x, factors):
    """The integers relative to the zero point, by the formula of the specification, in int64."""
    scale = np.float32(1) / np.float32(factors.scale_d)
    q = np.rint(x * scale).astype(np.int64) + factors.offset_d
    return np.clip(q, -128, 127) - factors.offset_d


def factors_for(op_type, weights, asymmetric, channel_wise):
    scale_d, offset_d = (0.031, -77) if asymmetric else (0.024, 0)
    scales = () if weights is None else tuple(arq_scales("layer", op_type, weights, channel_wise).tolist())
    return LayerFactors(scale_d=float(np.float32(scale_d)), offset_d=offset_d, scale_w=scales)


def quantized_output(graph_def, factors, x, output="out", corrections=None):
    fused = fuse(GraphView(graph_def), keep=[output])
    quantized = quantize_graph(QuantizationPlan(fused, factors, corrections or {}, [output]))
    return quantized, run(quantized.graph_def, [output], {"x": x})[0]


def check_layer(graph_def, x, asymmetric, channel_wise):
    """Compares the simulated layer ``layer`` with an accumulator computed in integers."""
    layer = fuse(GraphView(graph_def), keep=["out"]).layers["layer"]
    factors = factors_for(layer.op_type, layer.weights, asymmetric, channel_wise)
    quantized, actual = quantized_output(graph_def, {"layer": factors}, x)
    q = quantizer_reference(x, factors)
    w = nearest_integers(layer.op_type, layer.weights, np.array(factors.scale_w, np.float32)).astype(np.int64)
    deq_scale = layer_deq_scale(factors)
    accumulator = layer.op.reference(GraphView(graph_def).nodes["layer"], q, w)
    if layer.bias is not None:
        bias = np.rint(layer.bias.astype(np.float64) / deq_scale).astype(np.int64)
        accumulator = accumulator + bias
    assert np.abs(accumulator).max() < 2**31
    np.testing.assert_allclose(actual, accumulator * deq_scale.astype(np.float64), rtol=2e-6, atol=1e-12)
    return quantized


BOTH = pytest.mark.parametrize("asymmetric", [True, False])
PER_CHANNEL = pytest.mark.parametrize("channel_wise", [True, False])


@BOTH
@PER_CHANNEL
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, "SAME", 1), (2, "SAME", 1), (2, "VALID", 1), (1, "SAME", 2)]
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_conv2d_is_integer_exact(asymmetric, channel_wise, stride, padding, dilation, with_bias):
    def make():
        x = tf1.placeholder(tf.float32, [None, 7, 9, 5], name="x")
        y = tf.nn.conv2d(x, normal((3, 3, 5, 6), 1, 0.3), stride, padding, dilations=dilation, name="layer")
        if with_bias:
            y = tf.nn.bias_add(y, normal((6,), 2, 3.0))
        tf.identity(y, name="out")

    x = normal((2, 7, 9, 5), 3, 2.0)
    check_layer(build(make), x, asymmetric, channel_wise)


@BOTH
@PER_CHANNEL
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [2, 3])
def test_grouped_conv2d_is_integer_exact(asymmetric, channel_wise, stride, groups):
    def make():
        x = tf1.placeholder(tf.float32, [None, 7, 9, 6], name="x")
        y = tf.nn.conv2d(x, normal((3, 3, 6 // groups, 12), 1, 0.3), stride, "SAME", name="layer")
        tf.nn.bias_add(y, normal((12,), 2, 3.0), name="out")

    graph_def, _ = prepared(build(make), rewrite_grouped_conv2d)
    check_layer(graph_def, normal((2, 7, 9, 6), 3, 2.0), asymmetric, channel_wise)


@BOTH
@PER_CHANNEL
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_integer_exact(asymmetric, channel_wise, multiplier, stride):
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        strides = [1, stride, stride, 1]
        y = tf.nn.depthwise_conv2d(x, normal((3, 3, 4, multiplier), 4), strides, "SAME", name="layer")
        tf.identity(batch_norm(y, 4 * multiplier, "bn", 5), name="out")

    check_layer(build(make), normal((2, 8, 8, 4), 6, 2.0), asymmetric, channel_wise)


@BOTH
@PER_CHANNEL
def test_transposed_conv_is_integer_exact(asymmetric, channel_wise):
    shape = (2, 9, 9, 3)

    def make():
        x = tf1.placeholder(tf.float32, [2, 4, 4, 5], name="x")
        y = tf.nn.conv2d_transpose(x, normal((3, 3, 3, 5), 7), shape, 2, "VALID", name="layer")
        tf.nn.bias_add(y, normal((3,), 8), name="out")

    check_layer(build(make), normal((2, 4, 4, 5), 9, 2.0), asymmetric, channel_wise)


@pytest.mark.parametrize("kind", ["plain", "grouped", "depthwise", "transposed"])
def test_nchw_computes_what_nhwc_does(kind):
    """TensorFlow runs NCHW on a CPU if it is told to convert the layout itself."""

    def make(data_format):
        x = tf1.placeholder(tf.float32, [2, 8, 9, 6] if data_format == "NHWC" else [2, 6, 8, 9], name="x")
        options = {"data_format": data_format, "name": "layer"}
        if kind == "depthwise":
            y = tf.nn.depthwise_conv2d(x, normal((3, 3, 6, 2), 1), [1, 1, 1, 1], "SAME", **options)
        elif kind == "transposed":
            shape = [2, 16, 18, 12] if data_format == "NHWC" else [2, 12, 16, 18]
            y = tf.nn.conv2d_transpose(x, normal((3, 3, 12, 6), 1), shape, 2, "SAME", **options)
        else:
            y = tf.nn.conv2d(x, normal((3, 3, 6 if kind == "plain" else 2, 12), 1), 1, "SAME", **options)
        tf.nn.bias_add(y, normal((12,), 2, 3.0), data_format=data_format, name="out")

    x = normal((2, 8, 9, 6), 3, 2.0)
    outputs = []
    for data_format, data in (("NHWC", x), ("NCHW", np.moveaxis(x, -1, 1))):
        graph_def, _ = prepared(build(lambda data_format=data_format: make(data_format)), rewrite_grouped_conv2d)
        fused = fuse(GraphView(graph_def), keep=["out"])
        (layer,) = fused.layers.values()
        factors = {"layer": factors_for(layer.op_type, layer.weights, True, True)}
        quantized = quantize_graph(QuantizationPlan(fused, factors, {}, ["out"]))
        outputs += run(quantized.graph_def, ["out"], {"x": data}, nchw_on_cpu())
    np.testing.assert_allclose(np.moveaxis(outputs[1], 1, -1), outputs[0], rtol=1e-6)


@BOTH
@PER_CHANNEL
def test_matmul_is_integer_exact(asymmetric, channel_wise):
    def make():
        x = tf1.placeholder(tf.float32, [None, 33], name="x")
        tf.nn.bias_add(tf.matmul(x, normal((33, 10), 10), name="layer"), normal((10,), 11), name="out")

    check_layer(build(make), normal((5, 33), 12, 2.0), asymmetric, channel_wise)


@BOTH
@PER_CHANNEL
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_batch_matmul_is_integer_exact(asymmetric, channel_wise, batch, with_bias):
    def make():
        x = tf1.placeholder(tf.float32, [*batch, 5, 33], name="x")
        y = tf.raw_ops.BatchMatMulV2(x=x, y=normal((33, 10), 10), name="layer")
        tf.identity(tf.add(y, normal((10,), 11)) if with_bias else y, name="out")

    check_layer(build(make), normal((*batch, 5, 33), 12, 2.0), asymmetric, channel_wise)


@PER_CHANNEL
@pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "SAME"), (2, "VALID")])
@pytest.mark.parametrize("with_bias", [True, False])
def test_conv3d_is_integer_exact(channel_wise, stride, padding, with_bias):
    def make():
        x = tf1.placeholder(tf.float32, [None, 5, 6, 7, 3], name="x")
        strides = [1, stride, stride, stride, 1]
        y = tf.nn.conv3d(x, normal((3, 3, 3, 3, 4), 1, 0.3), strides, padding, name="layer")
        tf.identity(batch_norm(y, 4, "bn", data_format="NDHWC") if with_bias else y, name="out")

    quantized = check_layer(build(make), normal((2, 5, 6, 7, 3), 3, 2.0), False, channel_wise)
    (dequant,) = [node for node in quantized.graph_def.node if node.op == "AscendDequant"]
    assert dequant.attr["data_format"].s == b"NHWC" and list(dequant.attr["ksize"].list.i) == [1, 1]
    assert "FusedBatchNormV3" not in {node.op for node in quantized.graph_def.node}


@BOTH
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_avg_pool_is_integer_exact(asymmetric, padding):
    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
        tf.identity(tf.nn.avg_pool2d(x, [3, 2], 2, padding, name="layer"), name="out")

    graph_def = build(make)
    x = normal((2, 6, 6, 3), 13, 2.0)
    factors = factors_for("AvgPool", None, asymmetric, False)
    quantized, actual = quantized_output(graph_def, {"layer": factors}, x)
    integers = quantizer_reference(x, factors).astype(np.float64)
    mean = AVG_POOL.reference(GraphView(graph_def).nodes["layer"], integers, None)
    np.testing.assert_allclose(actual, mean * np.float32(factors.scale_d), rtol=2e-6, atol=1e-7)
    (dequant,) = [node for node in quantized.graph_def.node if node.op == "AscendDequant"]
    assert list(dequant.attr["ksize"].list.i) == [3, 2]


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(2**-20, 2**10, width=32),
    offset=st.just(-128) | st.integers(-128, 127),
    seed=st.integers(0, 1000),
)
def test_quantizer_yields_the_reference_integers(scale, offset, seed):
    factors = LayerFactors(scale_d=scale, offset_d=offset, scale_w=())
    ties = (np.arange(-300, 300) + 0.5).astype(np.float32) * np.float32(scale)
    x = np.concatenate([normal((200,), seed, 100 * scale), ties])
    graph_def = tf1.GraphDef()
    graph_def.node.extend(
        [make_node("x", "Placeholder", (), dtype=tf.float32), ascend_ops.quant_node("q", "x", scale, offset)]
    )
    graph_def.library.CopyFrom(ascend_ops.function_library())
    (actual,) = run(graph_def, ["q"], {"x": x})
    np.testing.assert_array_equal(actual, quantizer_reference(x, factors))


def test_ties_go_to_even():
    def make():
        tf.matmul(tf1.placeholder(tf.float32, [1, 6], name="x"), np.eye(6, dtype=np.float32), name="out")

    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 127.5]], np.float32)
    factors = {"out": LayerFactors(scale_d=1.0, offset_d=0, scale_w=(1.0,))}
    _, actual = quantized_output(build(make), factors, x)
    np.testing.assert_array_equal(actual, [[0, 2, 2, 0, -2, 127]])


def all_factors(graph_def, outputs):
    fused = fuse(GraphView(graph_def), keep=outputs)
    return fused, {name: factors_for(layer.op_type, layer.weights, True, True) for name, layer in fused.layers.items()}


def test_nodes_have_exactly_the_registered_shape():
    fused, factors = all_factors(build(small_net), ["probabilities"])
    quantized = quantize_graph(QuantizationPlan(fused, factors, {}, ["probabilities"]))
    expected = {
        "AscendQuant": ({"T", "quant_bits", "scale", "offset"}, 1),
        "AscendWeightQuant": ({"T"}, 2),
        "AscendDequant": ({"T", "ksize", "data_format"}, 2),
    }
    found = dict.fromkeys(expected, 0)
    nodes = {node.name: node for node in quantized.graph_def.node}
    for node in quantized.graph_def.node:
        if node.op in expected:
            attrs, inputs = expected[node.op]
            assert set(node.attr) == attrs
            assert len(node.input) == inputs
            found[node.op] += 1
    assert found == {"AscendQuant": 5, "AscendWeightQuant": 4, "AscendDequant": 5}
    weights = nodes[nodes["conv/Conv2D"].input[1]]
    assert weights.op == "AscendWeightQuant"
    assert [nodes[name].attr["dtype"].type for name in weights.input] == [tf.int8.as_datatype_enum] * 2
    quant = nodes["conv/act_quant/AscendQuant"]
    assert quant.attr["scale"].f == pytest.approx(1 / 0.031, rel=1e-6)
    assert quant.attr["offset"].f == -77
    deq = nodes["conv/dequant/AscendDequant"]
    packed = tf.make_ndarray(nodes[deq.input[1]].attr["value"].tensor)
    assert packed.dtype == np.uint64 and packed.max() < 2**32


def test_deq_scale_packing_of_the_specification():
    factors = LayerFactors(scale_d=0.0235294122, offset_d=-128, scale_w=(0.0128474627,))
    packed = ascend_ops.pack_deq_scale(layer_deq_scale(factors))
    assert packed.tolist() == [0x399E7D1D]
    assert ascend_ops.unpack_deq_scale(packed).tolist() == layer_deq_scale(factors).tolist()


@pytest.mark.parametrize("output", ["conv/BatchNorm/FusedBatchNorm", "pool/AvgPool", "logits/BiasAdd", "logits/Conv2D"])
def test_an_output_inside_a_quantized_layer_keeps_its_name(output):
    graph_def = build(small_net)
    images = normal((2, 12, 12, 3), 31)
    fused, factors = all_factors(graph_def, [output, "probabilities"])
    quantized = quantize_graph(QuantizationPlan(fused, factors, {}, [output, "probabilities"]))
    (expected,) = run(graph_def, [output], {"input": images})
    (actual,) = run(quantized.graph_def, [output], {"input": images})
    assert actual.shape == expected.shape
    # The factors are coarse for some layers; integers instead of values would be far larger still.
    assert np.corrcoef(actual.ravel(), expected.ravel())[0, 1] > 0.6
    assert np.abs(actual).max() < 2 * np.abs(expected).max()


def test_layers_that_share_an_input_share_its_quantizer():
    def make():
        x = tf1.placeholder(tf.float32, [None, 4, 4, 3], name="x")
        a = tf.nn.conv2d(x, normal((1, 1, 3, 2), 1), 1, "SAME", name="block/a")
        b = tf.nn.conv2d(x, normal((3, 3, 3, 2), 2), 1, "SAME", name="block/b")
        tf.add(a, b, name="out")

    graph_def = build(make)
    fused, factors = all_factors(graph_def, ["out"])
    shared = quantize_graph(QuantizationPlan(fused, factors, {}, ["out"]))
    assert sum(node.op == "AscendQuant" for node in shared.graph_def.node) == 1
    names = {node.name for node in shared.graph_def.node}
    assert {"block/dequant/AscendDequant", "block/dequant_1/AscendDequant"} <= names
    other = {**factors, "block/b": LayerFactors(0.5, 3, factors["block/b"].scale_w)}
    apart = quantize_graph(QuantizationPlan(fused, other, {}, ["out"]))
    assert sum(node.op == "AscendQuant" for node in apart.graph_def.node) == 2


def test_layers_without_factors_stay_float():
    fused, factors = all_factors(build(small_net), ["probabilities"])
    quantized = quantize_graph(QuantizationPlan(fused, {"conv/Conv2D": factors["conv/Conv2D"]}, {}, ["probabilities"]))
    assert sum(node.op == "AscendDequant" for node in quantized.graph_def.node) == 1


def test_correction_is_added_to_the_bias():
    def make():
        x = tf1.placeholder(tf.float32, [None, 3], name="x")
        tf.matmul(x, np.ones((3, 2), np.float32), name="out")

    factors = {"out": LayerFactors(scale_d=0.5, offset_d=0, scale_w=(0.25,))}
    x = np.array([[1, 2, 3]], np.float32)
    _, plain = quantized_output(build(make), factors, x)
    _, corrected = quantized_output(
        build(make), factors, x, corrections={"out": LayerCorrection(np.array([1.0, -0.3]))}
    )
    np.testing.assert_allclose(corrected - plain, [[1.0, -0.25]])  # in steps of 0.125, ties to even


def test_the_integers_of_a_correction():
    """The integers given, dequantized, the layer's own bias, and the correction; all worked out by hand."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 3], name="x")
        tf.nn.bias_add(tf.matmul(x, np.ones((3, 2), np.float32), name="fc"), np.array([2, 4], np.float32), name="out")

    factors = {"fc": LayerFactors(scale_d=0.5, offset_d=0, scale_w=(0.25,))}
    integers = np.array([[4, 4], [4, 3], [5, 4]], np.int8)
    correction = LayerCorrection(np.array([1.0, 0.0]), integers)
    _, corrected = quantized_output(build(make), factors, np.array([[1, 2, 3]], np.float32), "out", {"fc": correction})
    # x in steps of 0.5 is [2, 4, 6]; the sums are 8 + 16 + 30 and 8 + 12 + 24, times 0.125.
    np.testing.assert_allclose(corrected, [[6.75 + 2 + 1, 5.5 + 4]])


def test_an_anti_quantizer_takes_the_zero_point_off_on_the_device_too():
    """The NPU computes (q + offset) * scale, of q with the zero point in it; the simulation has taken it off before."""
    tensor = LayerFactors(scale_d=0.5, offset_d=-100)

    def make():
        x = tf1.placeholder(tf.float32, [4], name="x")
        tf.add(x, np.float32(0), name="out")

    quantized, (*values,) = quantized_output(build(make), {"out:0": tensor}, np.array([-20, 0, 3.2, 200], np.float32))
    (node,) = (node for node in quantized.graph_def.node if node.op == "AscendAntiQuant")
    integers = np.array([-128, -100, -94, 127])  # -40, 0 and 6 from the zero point; 3.2 / 0.5 is 6.4; two are clipped
    on_device = (integers + node.attr["offset"].f) * node.attr["scale"].f
    assert values == on_device.tolist() == [-14, 0, 3, 113.5]


def test_sums_beyond_32_bits_are_refused():
    integers, bias = np.full((3, 1), -127, np.int8), np.float32([2**31 - 2**17])
    check_sums("layer", "MatMul", integers, bias)  # 3 * 127 * 255 is 97,155, less than 2 ** 17
    with pytest.raises(RecordError, match=r"'layer'.*channel 0.*skip_layers"):
        check_sums("layer", "MatMul", np.repeat(integers, 2, axis=0), bias)


def test_the_largest_bias_of_32_bits_is_refused():
    """It is 2**31 as a float32, which is negative as an int32."""
    bias = quantize_bias(np.array([2147483647.0]), np.ones(1, np.float32))
    assert bias[0] == 2**31
    with pytest.raises(RecordError, match="32 bits"):
        check_sums("layer", "MatMul", np.zeros((1, 1), np.int8), bias)


def test_a_bias_beyond_24_bits_is_an_integer_of_float32():
    (bias,) = quantize_bias(np.array([2.0**30 + 33]), np.ones(1, np.float32))
    assert bias == 2**30 + 0  # its neighbours are 2**30 and 2**30 + 128
    assert np.int32(bias) == bias


def test_node_map_covers_every_node():
    fused, factors = all_factors(build(small_net), ["probabilities"])
    quantized = quantize_graph(QuantizationPlan(fused, factors, {}, ["probabilities"]))
    operations = {op["name"]: op for op in json.loads(dump_node_map(quantized))["graph"][0]["op"]}
    assert set(operations) == {node.name for node in quantized.graph_def.node}
    originals = {name: op["attr"][0]["value"]["list"]["s"] for name, op in operations.items()}
    assert originals["conv/Conv2D"] == ["conv/Conv2D", "conv/BatchNorm/FusedBatchNorm"]
    assert originals["conv/act_quant/AscendQuant"] == []
    assert originals["conv/Relu6"] == ["conv/Relu6"]
    dequant = operations["conv/dequant/AscendDequant"]
    assert dequant["output_desc"][0]["attr"][0]["value"]["s"] == "conv/BatchNorm/FusedBatchNorm"
    assert set(SMALL_NET_LAYERS) <= set(operations)


def test_values_behind_dequantizers_in_float16():
    """2049 lies between two numbers of float16, and 70000 beyond all of them."""
    values = np.array([[2049.0, 70000.0, -70000.0, 0.1]], np.float32)
    graph_def = build(lambda: tf1.placeholder(tf.float32, [None, 4], name="x"))
    scales = make_const("deq_scale", ascend_ops.pack_deq_scale(np.ones(1, np.float32)))
    graph_def.node.extend([scales, ascend_ops.dequant_node("out", "x", "deq_scale", [1, 1], "NHWC")])
    graph_def.library.MergeFrom(ascend_ops.function_library())
    np.testing.assert_array_equal(run(graph_def, ["out"], {"x": values})[0], values)
    rounded = run(ascend_ops.with_float16_values(graph_def), ["out"], {"x": values})[0]
    np.testing.assert_array_equal(rounded, [[2048.0, np.inf, -np.inf, np.float32(np.float16(0.1))]])
