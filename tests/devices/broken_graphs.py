"""A small quantized graph that breaks no rule, and graphs like it with one fault each."""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.nodes import attr_value, make_const, make_node, make_placeholder
from amct_tensorflow.quantize.quantized import ascend_ops

CHANNELS = 32


def whole(op="Conv2D", channels=CHANNELS, offset=-128):
    """x -> AscendQuant -> layer -> BiasAdd -> AscendDequant -> out, as the package writes it."""
    shape = {"Conv2D": [None, 8, 8, channels], "DepthwiseConv2dNative": [None, 8, 8, channels],
             "MatMul": [None, channels], "BatchMatMulV2": [None, 7, channels],
             "Conv2DBackpropInput": [None, 8, 8, channels]}[op]  # fmt: skip
    weights = {"Conv2D": [3, 3, channels, 4], "DepthwiseConv2dNative": [3, 3, channels, 1], "MatMul": [channels, 4],
               "BatchMatMulV2": [channels, 4], "Conv2DBackpropInput": [2, 2, 4, channels]}[op]  # fmt: skip
    filters = channels if op == "DepthwiseConv2dNative" else 4
    windows = {"strides": [1, 1, 1, 1], "padding": "SAME"} if len(weights) == 4 else {}
    inputs = ["quant", "weight_quant"]
    if op == "Conv2DBackpropInput":
        inputs, windows = ["size", "weight_quant", "quant"], {"strides": [1, 2, 2, 1], "padding": "SAME"}
    return graph_of(
        make_placeholder("x", tf.float32, shape),
        ascend_ops.quant_node("quant", "x", 0.1, offset),
        make_const("weights", np.ones(weights, np.int8)),
        make_const("offset_w", np.zeros(1, np.int8)),
        ascend_ops.weight_quant_node("weight_quant", "weights", "offset_w"),
        *([make_const("size", np.array([1, 16, 16, 4], np.int32))] if op == "Conv2DBackpropInput" else []),
        make_node("layer", op, inputs, T=tf.float32, **windows),
        make_const("bias", np.ones(filters, np.float32)),
        make_node("bias_add", "BiasAdd", ["layer", "bias"], T=tf.float32),
        make_const("deq_scale", ascend_ops.pack_deq_scale(np.full(filters, 0.01, np.float32))),
        ascend_ops.dequant_node("dequant", "bias_add", "deq_scale", [1, 1], "NHWC"),
        make_node("out", "Relu", ["dequant"], T=tf.float32),
    )


def pooled(size=8, stride=1, width=16):
    """x -> AscendQuant -> AvgPool -> AscendDequant."""
    return graph_of(
        make_placeholder("x", tf.float32, [None, width, width, 32]),
        ascend_ops.quant_node("quant", "x", 0.1, 0),
        make_node("layer", "AvgPool", ["quant"], T=tf.float32, ksize=[1, size, size, 1],
                  strides=[1, stride, stride, 1], padding="VALID"),
        make_const("deq_scale", ascend_ops.pack_deq_scale(np.array([0.1], np.float32))),
        ascend_ops.dequant_node("dequant", "layer", "deq_scale", [size, size], "NHWC"),
    )  # fmt: skip


def product(offset=0):
    """A product of two computed operands, each behind an AscendQuant of its own."""
    return graph_of(
        make_placeholder("x", tf.float32, [None, 7, 32]),
        make_placeholder("y", tf.float32, [None, 32, 7]),
        ascend_ops.quant_node("quant", "x", 0.1, 0),
        ascend_ops.quant_node("quant_1", "y", 0.1, offset),
        make_node("layer", "BatchMatMulV2", ["quant", "quant_1"], T=tf.float32),
        make_const("deq_scale", ascend_ops.pack_deq_scale(np.array([0.01], np.float32))),
        ascend_ops.dequant_node("dequant", "layer", "deq_scale", [1, 1], "NHWC"),
    )


def grouped():
    """x -> AscendQuant -> Split -> two Conv2D -> ConcatV2 -> AscendDequant."""
    layers = [
        make_node(name, "Conv2D", [part, "weight_quant"], T=tf.float32, strides=[1, 1, 1, 1], padding="SAME")
        for name, part in (("layer", "split"), ("layer_1", "split:1"))
    ]
    return graph_of(
        make_placeholder("x", tf.float32, [None, 8, 8, 64]),
        ascend_ops.quant_node("quant", "x", 0.1, 0),
        make_const("axis", np.array(3, np.int32)),
        make_node("split", "Split", ["axis", "quant"], T=tf.float32, num_split=2),
        make_const("weights", np.ones([3, 3, 32, 4], np.int8)),
        make_const("offset_w", np.zeros(1, np.int8)),
        ascend_ops.weight_quant_node("weight_quant", "weights", "offset_w"),
        *layers,
        make_node("concat", "ConcatV2", ["layer", "layer_1", "axis"], T=tf.float32, N=2),
        make_const("deq_scale", ascend_ops.pack_deq_scale(np.full(8, 0.01, np.float32))),
        ascend_ops.dequant_node("dequant", "concat", "deq_scale", [1, 1], "NHWC"),
    )


def max_pooled(offset):
    """x -> AscendQuant -> MaxPool -> AscendAntiQuant; ``offset`` is what the latter holds."""
    anti = ascend_ops.anti_quant_node("anti_quant", "pool", 0.1, 0)
    anti.attr["offset"].f = offset
    window = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}
    return graph_of(
        make_placeholder("x", tf.float32, [None, 8, 8, 32]),
        ascend_ops.quant_node("quant", "x", 0.1, -5),
        make_node("pool", "MaxPool", ["quant"], T=tf.float32, **window),
        anti,
    )


def graph_of(*nodes):
    """Returns a graph of nodes, with the functions of a quantized model."""
    graph_def = GraphDef(node=nodes, library=ascend_ops.function_library())
    graph_def.versions.producer = tf.compat.v1.get_default_graph().graph_def_versions.producer
    return graph_def


def node(graph_def, name):
    """Returns the first node of a name, to be changed in place."""
    return next(each for each in graph_def.node if each.name == name)


def change(graph_def, name, **attributes):
    """Sets attributes of a node; returns the graph."""
    for key, value in attributes.items():
        node(graph_def, name).attr[key].CopyFrom(value if isinstance(value, AttrValue) else attr_value(value))
    return graph_def


def put_before(graph_def, reader, index, op, name="between", **attributes):
    """Puts a node of one input into the edge that leads to a reader's input; returns the graph."""
    end = node(graph_def, reader)
    graph_def.node.append(make_node(name, op, [end.input[index]], T=tf.float32, **attributes))
    end.input[index] = name
    return graph_def


def replace(graph_def, new):
    """Replaces the node of a name by another; returns the graph."""
    node(graph_def, new.name).CopyFrom(new)
    return graph_def


def add(graph_def, *nodes):
    """Adds nodes; returns the graph."""
    graph_def.node.extend(nodes)
    return graph_def


def without(graph_def, name, key):
    """Takes an attribute from a node; returns the graph."""
    del node(graph_def, name).attr[key]
    return graph_def


def rewire(graph_def, reader, index, text):
    """Lets an input of a node read another tensor; returns the graph."""
    node(graph_def, reader).input[index] = text
    return graph_def
