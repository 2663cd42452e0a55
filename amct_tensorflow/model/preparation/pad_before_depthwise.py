"""Lets depthwise convolutions pad in one of the two ways that TensorFlow and devices know.

    DepthwiseConv2dNative [EXPLICIT]  -->  DepthwiseConv2dNative [SAME]            where that pads as much
                                           Pad -> DepthwiseConv2dNative [VALID]    elsewhere

With oneDNN, TensorFlow's optimizer ends the process where an explicit padding meets a BiasAdd behind it, as quantized
layers have. Ascend's compiler refused such paddings, too (``explicit-depthwise-padding``, ``devices/ascend_rules.py``).
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops.sliding import margins

_OP = "DepthwiseConv2dNative"


def pad_before_depthwise(graph: PreparedGraph) -> PreparedGraph:
    """Rewrites every depthwise convolution whose padding is stated number by number."""
    editor = graph.editor()
    origins: Origins = {}
    changed = False
    for node in graph.view.graph_def.node:
        if node.op != _OP or attribute(node, "padding").s != b"EXPLICIT" or node.name in graph.view.loop_nodes:
            continue
        changed = True
        plain = _without_padding(node)
        if _pads_alike(graph.shaped, node, plain):
            plain.attr["padding"].s = b"SAME"
        elif any(attribute(node, "explicit_paddings").list.i):
            for added in _pad(editor, node):
                origins[added] = graph.original_names(node.name)
            plain.input[0] = added
        editor.replace_node(plain)
    return graph.edited(editor, origins) if changed else graph


def _without_padding(node: NodeDef) -> NodeDef:
    plain = NodeDef()
    plain.CopyFrom(node)
    plain.attr["padding"].s = b"VALID"
    plain.attr.pop("explicit_paddings", None)
    return plain


def _pads_alike(view: GraphView, node: NodeDef, plain: NodeDef) -> bool:
    """Tells whether "SAME" would pad as a node does, whatever the sizes that are not known."""
    data, filters = view.shape(node.input[0]), view.shape(node.input[1])
    if data is None or filters is None or None in filters[:2]:
        return False
    same = NodeDef()
    same.CopyFrom(plain)
    same.attr["padding"].s = b"SAME"
    window = [size for size in filters if size is not None]
    return margins(same, data, window) == margins(node, data, window)


def _pad(editor: GraphEditor, node: NodeDef) -> tuple[str, str]:
    """Adds a Pad in front of a node; returns the names of its paddings and its own."""
    around = np.array(attribute(node, "explicit_paddings").list.i, np.int32).reshape(-1, 2)
    paddings = editor.add(make_const(editor.unique_name(f"{node.name}/paddings"), around), like=node.name)
    name, inputs = editor.unique_name(f"{node.name}/Pad"), [node.input[0], paddings]
    return paddings, editor.add(make_node(name, "Pad", inputs, T=node.attr["T"], Tpaddings=tf.int32), like=node.name)
