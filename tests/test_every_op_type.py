"""Every op type through the public steps: configured, calibrated, saved, and run by stock TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, signal_to_noise, tf1

from amct_tensorflow.ops import OP_TYPES

IMAGES = (None, 8, 9, 6)


def conv2d(x):
    return tf.nn.conv2d(x, normal((3, 3, 6, 5), 1), 2, "SAME")


def depthwise(x):
    return tf.nn.depthwise_conv2d(x, normal((3, 3, 6, 1), 1), [1, 1, 1, 1], "SAME")


def transposed(x):
    return tf.nn.conv2d_transpose(x, normal((3, 3, 5, 6), 1), tf.stack([tf.shape(x)[0], 16, 18, 5]), 2, "SAME")


def conv3d(x):
    return tf.nn.conv3d(x, normal((2, 3, 3, 4, 5), 1), [1, 1, 1, 1, 1], "SAME")


LAYERS = {
    "Conv2D": (IMAGES, conv2d),
    "DepthwiseConv2dNative": (IMAGES, depthwise),
    "Conv2DBackpropInput": (IMAGES, transposed),
    "AvgPool": (IMAGES, lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME")),
    "MatMul": ((None, 20), lambda x: tf.matmul(x, normal((20, 5), 1))),
    "BatchMatMul": ((None, 20), lambda x: tf.raw_ops.BatchMatMul(x=x, y=normal((20, 5), 1))),
    "BatchMatMulV2": ((None, 7, 20), lambda x: tf.matmul(x, normal((20, 5), 1))),
    "Conv3D": ((None, 4, 6, 5, 4), conv3d),
}


def test_every_op_type_is_here():
    assert LAYERS.keys() == OP_TYPES.keys()


@pytest.mark.parametrize("op_type", LAYERS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_layer_is_calibrated_saved_and_run(op_type, with_bias):
    shape, layer = LAYERS[op_type]

    def make():
        y = layer(tf1.placeholder(tf.float32, shape, name="x"))
        tf.nn.relu(tf.nn.bias_add(y, normal((y.shape[-1],), 2)) if with_bias else y, name="out")

    x = normal([4 if length is None else length for length in shape], 3)
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
