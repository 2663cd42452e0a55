"""Layers that read 16 bits: the simulation against integers in NumPy, exactly, and the shape of the graph."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, nchw_on_cpu, node_of, normal, ops_of, prepared, run, tf1
from grids import grid
from layers import LAYERS

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.preparation.grouped_conv2d import rewrite_grouped_conv2d
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import (
    QuantizationPlan,
    check_sums,
    layer_deq_scale,
    nearest_integers,
)
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.quantize.record.factors import LayerFactors

STEPS = {8: float(np.float32(0.03)), 16: float(np.float32(1.1 * 2.0**-10))}


def plan_of(graph_def, *bits):
    """Returns the plan in which the layers read so many bits, one after the other."""
    fused = fuse(GraphView(graph_def), keep=["out"])
    factors = {}
    for (name, layer), number in zip(fused.layers.items(), bits, strict=True):
        scales = () if layer.weights is None else arq_scales(name, layer.op_type, layer.weights, True).tolist()
        factors[name] = LayerFactors(STEPS[number], 0, tuple(scales), num_bits=number)
    return QuantizationPlan(fused, factors, {}, ["out"])


def simulated(plan, x):
    return run(quantize_graph(plan).graph_def, ["out"], {"x": x})[0]


def reference(plan, x):
    """Returns the sums of the only layer, in int64, and its output: rounded to float32 once, times the factor."""
    ((name, layer),) = plan.fused.layers.items()
    factors = plan.factors[name]
    steps = np.rint(x * (np.float32(1) / np.float32(factors.scale_d)))
    data = np.clip(steps, -32768, 32767).astype(np.int64)
    deq_scale = layer_deq_scale(factors)
    weights = None
    if layer.weights is not None:
        scale_w = np.array(factors.scale_w, np.float32)
        weights = nearest_integers(layer.op_type, layer.weights, scale_w).astype(np.int64)
    sums = layer.op.reference(plan.fused.node_of(name), data, weights)
    if layer.bias is not None:
        sums = sums + np.rint(layer.bias.astype(np.float64) / deq_scale).astype(np.int64)
    return sums, sums.astype(np.float32) * deq_scale


def check_exact(graph_def, x):
    """Compares all bits of the simulation; returns the sums."""
    plan = plan_of(graph_def, 16)
    sums, values = reference(plan, x)
    np.testing.assert_array_equal(simulated(plan, x), values)
    return sums


@grid(0, op_type=LAYERS, with_bias=[False, True])
def test_every_op_type_is_exact(op_type, with_bias):
    layer = LAYERS[op_type]

    def make():
        y = layer(tf1.placeholder(tf.float32, layer.shape, name="x"))
        if with_bias and layer.weights is not None:
            y = tf.nn.bias_add(y, normal((y.shape[-1],), 2, 3.0))
        tf.identity(y, name="out")

    check_exact(build(make), normal([3 if length is None else length for length in layer.shape], 3, 3.0))


def test_a_sum_that_float32_cannot_hold():
    """3 * 32767 * 127 * 2000 + 1 is odd, and has 35 bits: only its neighbours among float32 are printed."""
    x = np.full((1, 6000), 32767.0, np.float32)
    weights = np.full((6000, 1), 1.0, np.float32)
    weights[0] = 126 / 127

    def make():
        y = tf.matmul(tf1.placeholder(tf.float32, [None, 6000], name="x"), weights)
        tf.identity(y, name="out")

    fused = fuse(GraphView(build(make)), keep=["out"])
    (name,) = fused.layers
    factors = LayerFactors(1.0, 0, (float(np.float32(1 / 127)),), num_bits=16)
    quantized = quantize_graph(QuantizationPlan(fused, {name: factors}, {}, ["out"])).graph_def
    (cast,) = (node.name for node in quantized.node if node.op == "Cast" and node.attr["DstT"].type == 1)
    exact = run(quantized, [node_of(quantized, cast).input[0]], {"x": x})[0]
    assert exact.dtype == np.float64 and int(exact[0, 0]) == 32767 * (127 * 5999 + 126)
    assert int(exact[0, 0]) > 2**34 and int(exact[0, 0]) != int(np.float32(exact[0, 0]))


def test_grouped_and_nchw():
    def make(data_format):
        shape = [2, 8, 9, 6] if data_format == "NHWC" else [2, 6, 8, 9]
        y = tf1.placeholder(tf.float32, shape, name="x")
        y = tf.nn.conv2d(y, normal((3, 3, 3, 4), 1), 1, "SAME", data_format=data_format)
        tf.nn.bias_add(y, normal((4,), 2), data_format=data_format, name="out")

    x = normal((2, 8, 9, 6), 3)
    graph_def, _ = prepared(build(lambda: make("NHWC")), rewrite_grouped_conv2d)
    check_exact(graph_def, x)
    nhwc = simulated(plan_of(graph_def, 16), x)
    other, _ = prepared(build(lambda: make("NCHW")), rewrite_grouped_conv2d)
    quantized = quantize_graph(plan_of(other, 16)).graph_def
    nchw = run(quantized, ["out"], {"x": x.transpose(0, 3, 1, 2)}, nchw_on_cpu())[0]
    np.testing.assert_array_equal(nchw.transpose(0, 2, 3, 1), nhwc)


def two_layers():
    y = tf1.placeholder(tf.float32, [None, 12], name="x")
    for number in (1, 2):
        y = tf.nn.bias_add(tf.matmul(y, normal((12, 12), number), name=f"fc{number}"), normal((12,), number + 2))
    tf.identity(y, name="out")


def test_bits_of_each_layer_are_its_own():
    """Where a layer reads 8 bits, it does as in a model without 16; where it reads 16, it loses next to nothing."""
    graph_def, x = build(two_layers), normal((5, 12), 5)
    (original,) = run(graph_def, ["out"], {"x": x})

    def lost(*bits):
        return np.abs(simulated(plan_of(graph_def, *bits), x) - original).max()

    assert lost(16, 16) < lost(8, 16) < lost(8, 8)
    quantized = {bits: quantize_graph(plan_of(graph_def, *bits)).graph_def for bits in ((8, 8), (8, 16))}
    first = [run(each, ["dequant/AscendDequant"], {"x": x})[0] for each in quantized.values()]
    np.testing.assert_array_equal(*first)


def test_the_graph():
    quantized = quantize_graph(plan_of(build(two_layers), 8, 16))
    graph_def = quantized.graph_def
    assert ops_of(graph_def, "Identity") == sorted(
        ["AscendQuant", "AscendWeightQuant", "MatMul", "BiasAdd", "AscendDequant"] * 2 + ["Cast"] * 3
    )
    narrow, wide = (node_of(graph_def, f"act_quant{suffix}/AscendQuant") for suffix in ("", "_1"))
    assert (narrow.attr["quant_bits"].i, "dst_type" in narrow.attr) == (8, False)
    assert (wide.attr["quant_bits"].i, wide.attr["dst_type"].s, wide.attr["offset"].f) == (16, b"INT16", 0)
    first, second = read_layers(GraphView(graph_def))
    assert (first.input_grid.num_bits, second.input_grid.num_bits) == (8, 16)
    assert (first.bias.dtype, second.bias.dtype) == (np.int32, np.int64)
    assert [layer.name for layer in (first, second)] == ["fc1", "fc2"]
    assert [layer.weights.dtype for layer in (first, second)] == [np.int8] * 2
    casts = [node.name for node in graph_def.node if node.op == "Cast"]
    assert casts == ["q/c1", "q/c1_1", "q/c1_2"]  # of activations, weights and sums of the second layer
    assert all(quantized.origins[name] == () for name in casts)  # they stand for no original node
    assert not set(casts) & quantized.values.keys()


def test_without_16_bits_the_functions_are_those_of_earlier_versions():
    graph_def = build(two_layers)
    narrow = quantize_graph(plan_of(graph_def, 8, 8)).graph_def.library
    assert narrow == ascend_ops.function_library((8,), {"AscendQuant", "AscendWeightQuant", "AscendDequant"})
    assert b"dst_type" not in narrow.SerializeToString()
    assert b"dst_type" in quantize_graph(plan_of(graph_def, 16, 8)).graph_def.library.SerializeToString()
    assert quantize_graph(plan_of(graph_def, 16, 8).restrict({"fc1": False})).graph_def.library == narrow


@pytest.mark.parametrize("offset", [-128, -77, 0, 127])
def test_quantizers_of_8_bits_beside_those_of_16(offset):
    x = np.concatenate([normal((400,), 1, 4.0), np.float32([1e30, -1e30, 0.5, 1.5, -0.5])])

    def output(num_bits, library_bits):
        graph_def = build(lambda: tf1.placeholder(tf.float32, [None], name="x"))
        node = ascend_ops.quant_node("q", "x", 1 / 16, offset if num_bits == 8 else 0, num_bits)
        graph_def.node.extend([node, make_node("out", "Identity", ["q"], T=tf.float32)])
        graph_def.library.CopyFrom(ascend_ops.function_library(library_bits))
        return run(graph_def, ["out"], {"x": x})[0]

    np.testing.assert_array_equal(output(8, [8, 16]), output(8, [8]))
    wide = output(16, [8, 16])
    np.testing.assert_array_equal(wide, np.clip(np.rint(x * 16), -32768, 32767))
    assert (wide.min(), wide.max()) == (-32768, 32767)


def test_sums_have_48_bits():
    """2**47 - 1 fits, and 2**31 is nothing."""
    integers = np.full((2, 1), 64, np.int8)  # products up to 2 * 64 * 2**15 = 2**22
    check_sums("layer", "MatMul", integers, np.array([2.0**47 - 2.0**22 - 1]), 16)
    with pytest.raises(RecordError, match="exceed 48 bits"):
        check_sums("layer", "MatMul", integers, np.array([2.0**47 - 2.0**22]), 16)
    with pytest.raises(RecordError, match="exceed 32 bits"):
        check_sums("layer", "MatMul", integers, np.array([2.0**31]))


def test_an_input_of_another_op():
    """tensor_quantize rounds to the steps of 16 bits, and brings the values back in float32."""

    def make():
        tf.add(tf1.placeholder(tf.float32, [None, 3], name="x"), [1.0, 2.0, 3.0], name="out")

    fused = fuse(GraphView(build(make)), keep=["out"])
    plan = QuantizationPlan(fused, {"out:0": LayerFactors(2.0**-12, 0, num_bits=16)}, {}, ["out"])
    x = np.float32([[0.3, -7.999, 9.0], [2.0**-13, 3 * 2.0**-13, -9.0]])
    steps = np.clip(np.rint(x * 4096), -32768, 32767)
    np.testing.assert_array_equal(simulated(plan, x), steps / 4096 + np.float32([1, 2, 3]))
