"""TensorFlow's integer kernels make the bytes that ``kernel_bytes`` says they make, of sums next to every new byte."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import tf1
from grids import grid

from amct_tensorflow.graph.names import LayerName, QuantizedName
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.kernel_bytes import ByteForm, float_biases, kernel_bytes, weight_ranges
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer, Quantizer
from amct_tensorflow.search.integers import integer_nodes
from amct_tensorflow.search.integers.availability import why_no_integer_kernels
from amct_tensorflow.search.integers.integer_nodes import Scope
from amct_tensorflow.search.integers.kernel_layer import Requantization, as_kernel_layer

pytestmark = pytest.mark.skipif(why_no_integer_kernels() is not None, reason=f"{why_no_integer_kernels()}")

CHANNELS = 64


def kernel_layer(op, weights, bias, signed):
    node = make_node("layer", op, (), strides=[1] * 4, dilations=[1] * 4, padding="VALID")
    read = Quantizer(QuantizedName("quantizer"), "data", ActivationFactors(1.0, 0 if signed else -128))
    quantized = QuantizedLayer(
        node=node,
        key=LayerName("layer"),
        op_type=OP_TYPES[op],
        quantizers=(read,),
        sums=QuantizedName("layer"),
        dequantizer=QuantizedName("dequantizer"),
        deq_scale=np.ones(CHANNELS, np.float32),
        weights=weights,
        bias=bias,
    )
    return as_kernel_layer(quantized, (None, None, None, weights.shape[2]))


def bytes_of(layer, to, data):
    """Returns the bytes that the kernel makes."""
    editor = GraphEditor(GraphView(tf1.GraphDef(node=[make_node("layer", "NoOp", ())])))
    scope = Scope(editor, "layer")
    read = scope.quantized("data", data, tf.qint8 if layer.sums.form.signed else tf.quint8)
    integers = integer_nodes.integers_of(scope, integer_nodes.requantized(scope, layer, read, to), to.form)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(editor.graph_def(), name="")
        with tf1.Session(graph=graph) as session:
            return session.run(f"{integers}:0") + to.form.zero_point


@grid(
    kind=["pointwise", "3x3", "depthwise"],
    signed=[False, True],
    form=[ByteForm(False, 0), ByteForm(False, 30), ByteForm(True, -20)],
    seed=[0, 1],
)
def test_the_formula(kind, signed, form, seed):
    """Two of the data go through all values, so that products go through all integers; the others are what they are."""
    generator, highest = np.random.default_rng(seed), 127 if signed else 255
    fine, coarse = (each.ravel() for each in np.meshgrid(np.arange(127), np.arange(highest + 1)))
    size, inputs = (1, 16) if kind == "pointwise" else (3, CHANNELS if kind == "depthwise" else 4)
    weights = np.full((size, size, inputs, 1 if kind == "depthwise" else CHANNELS), 127, np.int8)
    data = np.full((fine.size, size, size, inputs), generator.integers(1, highest))
    if kind == "depthwise":
        weights[0, 0] = 1
        data[:, 0, 0], data[:, 0, 1] = fine[:, np.newaxis], coarse[:, np.newaxis]
    else:
        weights[0, 0, 0] = 1
        data[:, 0, 0, 0], data[:, 0, 0, 1] = fine, coarse
    products = np.einsum("nhwi,hwi->n", data, weights[..., 0], dtype=np.int64) if kind != "depthwise" else (
        np.einsum("nhw,hw->n", data[..., 0], weights[:, :, 0, 0], dtype=np.int64)
    )  # fmt: skip
    added = -products.min() + generator.integers(-2000, 2001, CHANNELS)  # so that sums begin near 0
    op = "DepthwiseConv2dNative" if kind == "depthwise" else "Conv2D"
    layer = kernel_layer(op, weights, added.astype(np.int32), signed)
    factors = (generator.uniform(1, 2, CHANNELS) * 2 / highest).astype(np.float32)
    ranges, biases = weight_ranges(factors), float_biases(factors, layer.sums.bias, form.zero_point)
    to = Requantization(QuantizedName("next"), form, ranges, biases, form.lowest, form.highest)
    found = bytes_of(layer, to, data.astype(np.int8 if signed else np.uint8)).reshape(-1, CHANNELS)
    np.testing.assert_array_equal(found, kernel_bytes(products[:, np.newaxis], ranges, biases, form))
    assert len(np.unique(found)) > 100
