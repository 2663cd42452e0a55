"""Writes op types that TensorFlow has retired as those that have replaced them.

    BatchNormWithGlobalNormalization(x, mean, variance, beta, gamma)    becomes    FusedBatchNorm(x, gamma, beta, ...)
    Div, of floats                                                      becomes    RealDiv

Graphs of the first years of TensorFlow hold them, Inception of 2015 for one.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import attribute, data_inputs
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph

_BATCH_NORM = "BatchNormWithGlobalNormalization"


def replace_retired_ops(graph: PreparedGraph) -> PreparedGraph:
    """Replaces every float32 node of a retired op type; it keeps its name."""
    editor = graph.editor()
    origins: Origins = {}
    replaced = False
    for node in graph.view.graph_def.node:
        if node.op == "Div" and _is_float32(node):
            editor.replace_node(make_node(node.name, "RealDiv", list(node.input), T=tf.float32))
            replaced = True
        elif node.op == _BATCH_NORM and _is_float32(node) and (gamma := _gamma(graph, editor, node)) is not None:
            _replace_batch_norm(editor, node, gamma)
            if gamma not in node.input:
                origins[gamma] = graph.original_names(node.name)
            replaced = True
    return graph.edited(editor, origins) if replaced else graph


def _is_float32(node: NodeDef) -> bool:
    return bool(attribute(node, "T").type == tf.float32.as_datatype_enum)


def _gamma(graph: PreparedGraph, editor: GraphEditor, node: NodeDef) -> str | None:
    """Returns the gamma of a BatchNorm, ones if it has none; None if the number of channels is not known."""
    *_, beta, gamma = data_inputs(node.input)
    if attribute(node, "scale_after_normalization").b:
        return str(gamma)
    shape = graph.shaped.shape(beta)
    if shape is None or None in shape:
        return None
    ones = make_const(editor.unique_name(f"{node.name}/gamma"), np.ones([length or 0 for length in shape], np.float32))
    return editor.add(ones, like=node.name)


def _replace_batch_norm(editor: GraphEditor, node: NodeDef, gamma: str) -> None:
    data, mean, variance, beta, _ = data_inputs(node.input)
    waits = [text for text in node.input if text.startswith("^")]
    inputs = [data, gamma, beta, mean, variance, *waits]
    epsilon = attribute(node, "variance_epsilon").f
    new = make_node(node.name, "FusedBatchNorm", inputs, T=tf.float32, epsilon=epsilon, is_training=False)
    new.attr["data_format"].s = b"NHWC"
    editor.replace_node(new)
