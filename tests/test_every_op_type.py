"""Every op type through the public steps: configured, calibrated, saved, and run by stock TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, signal_to_noise, tf1
from layers import LAYERS, PRODUCTS, PRODUCTS_TOO

from amct_tensorflow.ops import OP_TYPES


def test_every_op_type_is_here():
    assert LAYERS.keys() == OP_TYPES.keys()


@pytest.mark.parametrize("op_type", LAYERS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_layer_is_calibrated_saved_and_run(op_type, with_bias):
    layer = LAYERS[op_type]

    def make():
        y = layer(tf1.placeholder(tf.float32, layer.shape, name="x"))
        tf.nn.relu(tf.nn.bias_add(y, normal((y.shape[-1],), 2)) if with_bias else y, name="out")

    x = normal([4 if length is None else length for length in layer.shape], 3)
    graph_def = build(make)
    assert op_type in {node.op for node in graph_def.node}
    quantized = calibrate_and_save(graph_def, x)
    (expected,), (actual,) = (run(definition, ["out"], {"x": x}) for definition in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30
    nodes = {node.name: node for node in quantized.node}
    (quantized_layer,) = [node for node in quantized.node if node.op == op_type]
    inputs = {nodes[text].op for text in quantized_layer.input}
    assert {"AscendQuant", *(["AscendWeightQuant"] if OP_TYPES[op_type].weight_rank else [])} <= inputs
    assert np.isfinite(actual).all()


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_two_operands_is_calibrated_saved_and_run(name):
    layer, op_type = PRODUCTS[name], name.removesuffix(" of two").replace("Einsum", "BatchMatMulV2")
    x = normal([4 if length is None else length for length in layer.shape], 3)
    graph_def = build(lambda: tf.nn.relu(layer(tf1.placeholder(tf.float32, layer.shape, name="x")), name="out"))
    quantized = calibrate_and_save(graph_def, x, simplified=PRODUCTS_TOO)
    (expected,), (actual,) = (run(definition, ["out"], {"x": x}) for definition in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30
    nodes = {node.name: node for node in quantized.node}
    (product,) = [node for node in quantized.node if node.op == op_type]
    assert [nodes[text].op for text in product.input] == ["AscendQuant", "AscendQuant"]
