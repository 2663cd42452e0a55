"""Grouped convolutions run with a bias on a CPU, quantized or not, and become depthwise where that is the same."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, calibrate_and_save, normal, prepared, run, signal_to_noise, tf1, unoptimized

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.preparation.grouped_conv2d import rewrite_grouped_conv2d

X = normal((2, 9, 9, 6), 1)


def grouped(groups, outputs, stride=1, padding="SAME", dilation=1, behind=lambda y: y, channels=6):
    def make():
        x = tf1.placeholder(tf.float32, [None, 9, 9, channels], name="x")
        filters = normal((3, 3, 6 // groups, outputs), 2, 0.3)
        y = tf.nn.conv2d(x, filters, stride, padding, dilations=dilation, name="layer")
        tf.identity(behind(y), name="out")

    return build(make)


def with_bias(y):
    return tf.nn.relu(tf.nn.bias_add(y, normal((12,), 3)))


def with_batch_norm(y):
    return batch_norm(y, 12, "bn", 4)


def ops(graph_def):
    return [node.op for node in graph_def.node]


@pytest.mark.parametrize("behind", [with_bias, with_batch_norm])
def test_a_bias_behind_a_grouped_convolution_needs_the_barrier(behind):
    graph_def = grouped(3, 12, behind=behind)
    try:
        run(graph_def, ["out"], {"x": X})
    except tf.errors.UnimplementedError as error:
        assert "does not support grouped" in str(error)
    else:
        pytest.skip("TensorFlow's kernels on this processor do without")


@pytest.mark.parametrize("behind", [with_bias, with_batch_norm])
def test_a_bias_behind_a_grouped_convolution_gets_a_barrier(behind):
    graph_def = grouped(3, 12, behind=behind)
    rewritten, added = prepared(graph_def, rewrite_grouped_conv2d)
    assert added == {"layer/Snapshot": ("layer",)}
    (actual,) = run(rewritten, ["out"], {"x": X})
    np.testing.assert_allclose(actual, run(graph_def, ["out"], {"x": X}, unoptimized())[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("behind", [with_bias, with_batch_norm, lambda y: y], ids=["bias", "batch norm", "nothing"])
def test_a_grouped_convolution_is_calibrated_and_saved(groups, behind):
    rewritten, _ = prepared(grouped(groups, 12, behind=behind), rewrite_grouped_conv2d)
    quantized = calibrate_and_save(rewritten, X)
    (expected,), (actual,) = (run(graph_def, ["out"], {"x": X}) for graph_def in (rewritten, quantized))
    assert signal_to_noise(expected, actual) > 30
    chain = [op for op in ops(quantized) if op in ("AscendQuant", "Conv2D", "Snapshot", "BiasAdd", "AscendDequant")]
    assert sorted(chain) == ["AscendDequant", "AscendQuant", "BiasAdd", "Conv2D", "Snapshot"]
    assert not {"FusedBatchNormV3", "Mul", "AddV2"} & set(ops(quantized))


def test_a_bias_is_folded_through_the_barrier():
    rewritten, _ = prepared(grouped(2, 12, behind=with_batch_norm), rewrite_grouped_conv2d)
    fused = fuse(GraphView(rewritten), keep=["out"])
    layer = fused.layers["layer"]
    assert (fused.accumulator_of("layer"), fused.tail_of("layer"), layer.absorbed) == ("layer/Snapshot", "bn", ("bn",))
    assert layer.weights.shape == (3, 3, 3, 12) and layer.bias.shape == (12,)


@pytest.mark.parametrize("outputs", [6, 12])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [0, 3], [0, 0]]])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups_of_one_channel_become_depthwise(outputs, padding, stride):
    graph_def = grouped(6, outputs, stride, padding)
    rewritten, added = prepared(graph_def, rewrite_grouped_conv2d)
    (node,) = [node for node in rewritten.node if node.name == "layer"]
    assert node.op == "DepthwiseConv2dNative" and added == {node.input[1]: ("layer",)}
    (expected,), (actual,) = (run(definition, ["out"], {"x": X}) for definition in (graph_def, rewritten))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_depthwise_form_is_quantized_with_its_bias():
    rewritten, _ = prepared(grouped(6, 12, behind=with_bias), rewrite_grouped_conv2d)
    quantized = calibrate_and_save(rewritten, X)
    (expected,), (actual,) = (run(graph_def, ["out"], {"x": X}) for graph_def in (rewritten, quantized))
    assert signal_to_noise(expected, actual) > 30


@pytest.mark.parametrize(("stride", "dilation"), [([1, 2], 1), (1, 2)])
def test_what_the_depthwise_op_does_not_know_stays_grouped(stride, dilation):
    graph_def = grouped(6, 12, stride, "SAME", dilation, with_bias)
    rewritten, _ = prepared(graph_def, rewrite_grouped_conv2d)
    assert {"Conv2D", "Snapshot"} <= set(ops(rewritten))
    (actual,) = run(rewritten, ["out"], {"x": X})
    np.testing.assert_allclose(actual, run(graph_def, ["out"], {"x": X}, unoptimized())[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "graph_def",
    [grouped(1, 12, behind=with_bias), grouped(2, 12, behind=with_bias, channels=None)],
    ids=["not grouped", "unknown"],
)
def test_other_convolutions_are_left_alone(graph_def):
    rewritten, added = prepared(graph_def, rewrite_grouped_conv2d)
    assert added == {} and sorted(ops(rewritten)) == sorted(ops(graph_def))


def test_the_value_of_a_grouped_convolution_that_is_requested_keeps_its_name():
    graph_def = grouped(2, 12, behind=with_bias)
    rewritten, added = prepared(graph_def, rewrite_grouped_conv2d, ["layer", "out"])
    assert added == {"layer/Conv2D": ("layer",)}
    quantized = calibrate_and_save(rewritten, X, "layer")
    (expected,) = run(graph_def, ["layer"], {"x": X}, unoptimized())
    (actual,) = run(quantized, ["layer"], {"x": X})
    assert signal_to_noise(expected, actual) > 30
