"""Makes grouped convolutions run on a CPU, with a bias behind them and fast.

    groups of one channel each:   Conv2D          ->  DepthwiseConv2dNative
    others:                       Conv2D -> ...   ->  Conv2D -> Snapshot -> ...

TensorFlow convolves one group after the other: with one channel each it takes some 17 times as long as its depthwise
convolution, which computes the same. That one knows no dilations on a CPU, and no strides that differ, so that such
convolutions stay as they are. ``graph/nodes.py`` says what the Snapshot is for.
"""

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import OriginalName, PreparedName
from amct_tensorflow.graph.nodes import BARRIER, behind_barrier, make_barrier, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.layers import layer_weights, why_not_quantizable
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.convolution import CONV2D
from amct_tensorflow.ops.sliding import spatial

_SHARED_ATTRIBUTES = ("T", "strides", "padding", "explicit_paddings", "data_format", "dilations")


def rewrite_grouped_conv2d(graph: PreparedGraph) -> PreparedGraph:
    """Rewrites every Conv2D whose constant filters see a part of the channels each.

    A convolution of which it is not known how many channels it has is left alone. If one that must keep its name gets
    a barrier, the barrier takes the name, since it has the value.
    """
    editor = graph.editor()
    new: dict[str, str] = {}
    barriers: dict[str, str] = {}
    renamed: dict[str, OriginalName] = {}
    for node in graph.view.graph_def.node:
        if node.op != "Conv2D" or why_not_quantizable(graph.shaped, node) is not None:
            continue
        filters = layer_weights(graph.shaped, node)
        assert filters is not None
        groups = _groups(graph.shaped, node, filters)
        if groups == 1 or behind_barrier(graph.shaped, node) is not node:
            continue
        if _can_be_depthwise(node, filters):
            new[_make_depthwise(editor, node, filters, groups)] = node.name
        elif node.name in graph.kept:
            inner = editor.unique_name(f"{node.name}/{node.op}")
            editor.rename(node.name, inner)
            editor.add(make_barrier(node.name, inner), like=inner)
            new[inner] = node.name
            renamed[inner] = OriginalName(node.name)
        else:
            name = editor.unique_name(f"{node.name}/{BARRIER}")
            barriers[node.name] = editor.add(make_barrier(name, node.name), like=node.name)
            new[name] = node.name
    if not new:
        return graph
    editor.redirect(barriers, exempt=barriers.values())
    origins = {name: graph.original_names(PreparedName(node)) for name, node in new.items()}
    return graph.edited(editor, origins, renamed)


def _groups(view: GraphView, node: NodeDef, filters: np.ndarray) -> int:
    """Returns into how many groups a convolution divides its channels, one if that is not known."""
    shape = view.shape(node.input[0])
    channels = None if shape is None else shape[CONV2D.channel_axis(data_format(node))]
    return 1 if channels is None else channels // filters.shape[2]


def _can_be_depthwise(node: NodeDef, filters: np.ndarray) -> bool:
    height, width = spatial(node, "strides")
    return filters.shape[2] == 1 and height == width and max(spatial(node, "dilations")) == 1


def _make_depthwise(editor: GraphEditor, node: NodeDef, filters: np.ndarray, channels: int) -> str:
    """Replaces a node; returns its new filters, ``[height, width, channels, multiplier]``."""
    height, width, _, outputs = filters.shape
    shaped = filters.reshape(height, width, channels, outputs // channels)
    const = editor.add(make_const(editor.unique_name(f"{node.name}/depthwise_filters"), shaped), like=node.name)
    inputs = [node.input[0], const, *node.input[2:]]
    attributes = {key: node.attr[key] for key in _SHARED_ATTRIBUTES if key in node.attr}
    editor.replace_node(make_node(node.name, "DepthwiseConv2dNative", inputs, **attributes))
    return const
