"""Graphs of one op that stands for a layer and what follows it, as TensorFlow and TensorFlow.js write them."""

import numpy as np
import tensorflow as tf
from graphs import node_of, tf1

from amct_tensorflow.graph.nodes import attr_value, make_const, make_node, make_placeholder

SLIDING = {"strides": [1, 1, 1, 1], "padding": "SAME"}


def fused(op, x, constants, fused_ops=(), behind=0, **attributes):
    """A graph of the node ``out``, of a placeholder ``x`` for data like ``x`` and of constants.

    ``behind`` of the constants belong to ``fused_ops``. TensorFlow.js writes the graph so.
    """
    graph_def = tf1.GraphDef()
    graph_def.node.append(make_placeholder("x", tf.float32, [None, *x.shape[1:]]))
    graph_def.node.extend(make_const(f"constant_{index}", value) for index, value in enumerate(constants))
    inputs = ["x", *(f"constant_{index}" for index in range(len(constants)))]
    graph_def.node.append(make_node("out", op, inputs, T=tf.float32, **attributes))
    if fused_ops or behind:
        (out,) = graph_def.node[-1:]
        out.attr["num_args"].CopyFrom(attr_value(behind))
        out.attr["fused_ops"].list.s.extend(each.encode() for each in fused_ops)
    return graph_def


def for_tensorflow(graph_def):
    """Adds the attribute that TensorFlow needs and TensorFlow.js leaves out."""
    node = node_of(graph_def, "out")
    node.attr["TArgs"].list.type.extend([tf.float32.as_datatype_enum] * node.attr["num_args"].i)
    return graph_def


def reference_prelu(x, slopes):
    """max(x, 0) + slopes * min(x, 0), in float64."""
    wide = x.astype(np.float64)
    return np.maximum(wide, 0) + slopes.astype(np.float64) * np.minimum(wide, 0)
