"""What is read of a quantized layer is what was written."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import SMALL_NET_LAYERS, build, normal, small_net, tf1

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.nodes import make_barrier, make_const
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan, layer_deq_scale, nearest_integers
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers, stored_weights
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors


def plan(make=small_net, output="probabilities", corrections=None):
    """Returns a plan in which no two layers have the same factors."""
    fused = fuse(GraphView(build(make)), keep=[output])
    factors = {
        name: LayerFactors(float(np.float32(0.03 + index / 1000)), index - 2, () if layer.weights is None else (0.02,))
        for index, (name, layer) in enumerate(fused.layers.items())
    }
    return QuantizationPlan(fused, factors, corrections or {}, [output])


def read(plan):
    return {layer.name: layer for layer in read_layers(GraphView(quantize_graph(plan).graph_def))}


def test_layers_are_those_of_the_plan():
    wanted = plan()
    found = read(wanted)
    assert list(found) == SMALL_NET_LAYERS
    for name, layer in found.items():
        factors, fused = wanted.factors[name], wanted.fused.layers[name]
        assert (layer.op_type, layer.node.op) == (fused.op, fused.op_type)
        assert layer.input_grid.offset == factors.offset_d
        np.testing.assert_allclose(layer.input_grid.scale, factors.scale_d, rtol=1.2e-7)  # the inverse is stored
        np.testing.assert_array_equal(layer.deq_scale, layer_deq_scale(factors))
        assert (layer.weights is None, layer.bias is None) == (fused.weights is None, fused.bias is None)
    conv = wanted.fused.layers["conv/Conv2D"]
    expected = nearest_integers("Conv2D", conv.weights, np.array([0.02], np.float32))
    np.testing.assert_array_equal(found["conv/Conv2D"].weights, expected)
    bias = np.rint(conv.bias / (0.03 * 0.02))
    assert np.max(np.abs(found["conv/Conv2D"].bias - bias)) <= 1 and found["conv/Conv2D"].bias.dtype == np.int32


def test_a_layer_keeps_its_key_where_an_output_takes_its_name():
    def make():
        tf.nn.conv2d(
            tf1.placeholder(tf.float32, [2, 5, 5, 4], name="x"), normal((1, 1, 4, 6), 1), 1, "SAME", name="out"
        )

    (layer,) = read(plan(make, "out")).values()
    assert (layer.name, layer.key) == ("out/quantized", "out")


def grouped(behind=tf.identity):
    """A convolution in groups, of which a barrier keeps what stands behind."""

    def make():
        x = tf1.placeholder(tf.float32, [2, 5, 5, 4], name="x")
        y = tf.nn.conv2d(x, normal((1, 1, 2, 6), 1), 1, "SAME", name="layer")
        tf.identity(behind(y), name="out")

    return make


def with_barrier(graph_def, behind):
    editor = GraphEditor(GraphView(graph_def))
    editor.add(make_barrier("barrier", "layer"), like="layer")
    editor.replace_input(behind, 0, "barrier")
    return editor.graph_def()


@pytest.mark.parametrize("is_biased", [True, False])
def test_a_barrier_is_seen_through(is_biased):
    behind = (lambda y: tf.nn.bias_add(y, normal((6,), 2), name="bias")) if is_biased else tf.identity
    graph_def = build(grouped(behind))
    reader = next(node.name for node in graph_def.node if list(node.input[:1]) == ["layer"])
    fused = fuse(GraphView(with_barrier(graph_def, reader)), keep=["out"])
    (layer,) = read(QuantizationPlan(fused, {"layer": LayerFactors(0.05, 0, (0.02,))}, {}, ["out"])).values()
    assert layer.name == "layer" and (layer.bias is not None) == is_biased
    assert layer.sums == ("bias" if is_biased else "barrier")


def test_a_bias_that_a_correction_adds_is_read():
    def make():
        x = tf1.placeholder(tf.float32, [2, 3], name="x")
        tf.identity(tf.matmul(x, normal((3, 2), 1), name="layer"), name="out")

    # The correction, in steps of 0.03 * 0.02: 5 and -7.
    correction = LayerCorrection(bias=np.array([0.003, -0.0042]))
    (layer,) = read(plan(make, "out", {"layer": correction})).values()
    assert list(np.abs(layer.bias)) == [5, 7] and layer.sums != "layer"


def test_weights_of_a_layer_in_float_are_its_floats():
    view = GraphView(quantize_graph(plan().restrict({"conv/Conv2D": False})).graph_def)
    assert stored_weights(view, view.nodes["conv/Conv2D"].input[1]).dtype == np.float32
    assert stored_weights(view, view.nodes["dw/depthwise"].input[1]).dtype == np.int8
    assert stored_weights(view, "input") is None


def unquantized(nodes):
    """The layer reads what its quantizer reads."""
    layer = nodes["project/Conv2D"]
    layer.input[0] = nodes[layer.input[0]].input[0]


def floats_for_weights(nodes):
    weights = nodes[nodes["project/Conv2D"].input[1]].input[0]
    nodes[weights].CopyFrom(make_const(weights, normal((1, 1, 8, 16))))


def no_dequantizer_scale(nodes):
    dequantizer = next(node for node in nodes.values() if node.op == "AscendDequant")
    del dequantizer.input[1:]


def bias_that_is_computed(nodes):
    bias_add = next(node for node in nodes.values() if node.op == "BiasAdd")
    bias_add.input[1] = "input"


def scale_of(value):
    def change(nodes):
        next(node for node in nodes.values() if node.op == "AscendQuant").attr["scale"].f = value

    return change


def another_op(nodes):
    nodes["pool/AvgPool"].op = "MaxPool"


@pytest.mark.parametrize(
    "damage",
    [
        unquantized, floats_for_weights, no_dequantizer_scale, bias_that_is_computed, another_op, scale_of(0.0),
        scale_of(-1.0), scale_of(float("nan")), scale_of(float("inf")),
    ],
)  # fmt: skip
def test_what_is_no_layer_is_refused(damage):
    graph_def = quantize_graph(plan()).graph_def
    damage({node.name: node for node in graph_def.node})
    with pytest.raises(ModelError, match="is no part of a quantized layer as this version writes it"):
        read_layers(GraphView(graph_def))
