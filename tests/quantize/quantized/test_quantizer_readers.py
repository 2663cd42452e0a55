"""What reads a value, and how all that read it quantize it."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.ops.clips import NO_CLIP, Clip
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.quantize.quantized.quantizer_readers import CALLER, readers_of
from amct_tensorflow.quantize.record.factors import LayerFactors


def conv(x, name):
    return tf.nn.conv2d(x, normal((1, 1, int(x.shape[-1]), 4), 1), 1, "SAME", name=name)


def readers(between, *, through_moves, outputs=("out",), scales=None):
    """Returns what reads layer ``first``; ``between`` makes of its value what further layers read."""

    def make():
        y = conv(tf1.placeholder(tf.float32, [2, 4, 4, 3], name="x"), "first")
        tf.add_n([tf.identity(each) for each in between(y)], name="out")

    fused = fuse(GraphView(build(make)), keep=outputs)
    factors = {name: LayerFactors((scales or {}).get(name, 0.05), 3, (0.02,)) for name in fused.layers}
    view = GraphView(quantize_graph(QuantizationPlan(fused, factors, {}, outputs)).graph_def)
    layers = {layer.name: layer for layer in read_layers(view)}
    return readers_of(view, layers["first"].dequantizer, outputs, through_moves=through_moves), layers


def test_layers_with_the_same_factors_share_a_quantizer():
    found, layers = readers(lambda y: [conv(y, "second"), conv(y, "third")], through_moves=True)
    assert found.quantizers == (layers["second"].quantizer,) == (layers["third"].quantizer,)
    assert found.grid == layers["second"].input_grid and found.clip == NO_CLIP and not found.others


def test_layers_with_other_factors_have_no_grid_together():
    found, _ = readers(lambda y: [conv(y, "second"), conv(y, "third")], through_moves=True, scales={"third": 0.06})
    assert len(found.quantizers) == 2 and found.grid is None and not found.others


@pytest.mark.parametrize("through_moves", [True, False])
def test_clips_are_seen_through_if_each_alone_reads_the_one_before(through_moves):
    def between(y):
        return [conv(tf.minimum(tf.nn.relu(y), 2.0, name="end"), "second")]

    found, _ = readers(between, through_moves=through_moves)
    assert found.clip == Clip(0, 2) and found.end == "end"
    assert len(found.quantizers) == 1 and not found.others


def test_a_clip_that_another_node_reads_is_the_end():
    def between(y):
        y = tf.nn.relu(y, name="relu")
        return [conv(tf.minimum(y, 2.0), "second"), tf.tanh(y)]

    found, _ = readers(between, through_moves=True)
    assert found.clip == Clip(0, np.inf) and found.end == "relu"
    assert found.others == {"Minimum", "Tanh"} and not found.quantizers


def test_the_caller_is_a_reader():
    found, _ = readers(
        lambda y: [conv(tf.nn.relu(y, name="relu"), "second")], through_moves=True, outputs=("out", "relu")
    )
    assert found.end == "relu" and found.others == {CALLER} and len(found.quantizers) == 1


def test_what_moves_values_is_seen_through_where_that_is_asked_for():
    def between(y):
        return [conv(tf.concat([tf.nn.max_pool2d(y, 2, 2, "VALID"), tf.ones([2, 2, 2, 1])], 3), "second")]

    found, _ = readers(between, through_moves=True)
    assert len(found.quantizers) == 1 and not found.others
    found, _ = readers(between, through_moves=False)
    assert found.others == {"MaxPool"} and not found.quantizers


def test_what_shapes_values_may_stand_before_a_clip_where_that_is_asked_for():
    def between(y):
        return [conv(tf.minimum(tf.reshape(y, [2, 2, 8, 4]), 2.0, name="end"), "second")]

    found, _ = readers(between, through_moves=True)
    assert found.clip == Clip(-np.inf, 2) and found.end == "end" and found.grid is not None
    found, layers = readers(between, through_moves=False)
    assert found.clip == NO_CLIP and found.end == layers["first"].dequantizer and found.others == {"Reshape"}
