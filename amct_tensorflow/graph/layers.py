"""Which nodes of a graph can be quantized (spec section 10)."""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute, full_tensor_name

QUANTIZABLE_TYPES = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "AvgPool", "Conv2DBackpropInput")
CHANNEL_WISE_TYPES = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput")

# Conv2DBackpropInput takes (output shape, filter, data); every other type (data[, filter]).
_DATA_INPUT = {"Conv2DBackpropInput": 2}
_WEIGHT_RANK = {"Conv2D": 4, "DepthwiseConv2dNative": 4, "Conv2DBackpropInput": 4, "MatMul": 2}
WEIGHT_INPUT = 1


@dataclass(frozen=True)
class LayerSpec:
    """What the configuration must know of a quantizable layer.

    Attributes:
        name: node name.
        op_type: TensorFlow op type, one of ``QUANTIZABLE_TYPES``.
        channel_wise: whether its weights get one scale per output channel by default; False for types that cannot,
            and for convolutions whose filter covers the whole input feature map (they are fully connected layers,
            spec section 12.1).
    """

    name: str
    op_type: str
    channel_wise: bool


def data_input(op_type: str) -> int:
    """Returns which input of an op carries the activations."""
    return _DATA_INPUT.get(op_type, 0)


def data_format(node: NodeDef) -> str:
    """Returns ``NHWC`` or ``NCHW``; ``NHWC`` for ops without the attribute."""
    return attribute(node, "data_format").s.decode() or "NHWC"


def upsampling(node: NodeDef) -> int:
    """Returns how many positions of the output a transposed convolution makes of one; 1 for every other type."""
    return math.prod(attribute(node, "strides").list.i) if node.op == "Conv2DBackpropInput" else 1


def layer_weights(view: GraphView, node: NodeDef) -> np.ndarray | None:
    """Returns the constant weights of a layer; None where there are none, or they are no constant of the right rank."""
    if node.op not in _WEIGHT_RANK:
        return None
    weights = view.constant(node.input[WEIGHT_INPUT])
    return weights if weights is not None and weights.ndim == _WEIGHT_RANK[node.op] else None


def is_quantizable(view: GraphView, node: NodeDef) -> bool:
    """Tells whether a node is one of the supported types within their restrictions."""
    is_float = attribute(node, "T").type == tf.float32.as_datatype_enum
    # The body of a loop runs any number of times per batch.
    if node.op not in QUANTIZABLE_TYPES or not is_float or node.name in view.loop_nodes:
        return False
    if view.constant(node.input[data_input(node.op)]) is not None:
        return False
    if node.op == "AvgPool" or layer_weights(view, node) is None:
        return bool(node.op == "AvgPool")
    if node.op == "MatMul":
        flags = ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")
        return not any(attribute(node, flag).b for flag in flags)
    return _dilation_is_supported(node)


def _dilation_is_supported(node: NodeDef) -> bool:
    """Transposed convolutions must not be dilated, nor may strided depthwise ones (TensorFlow miscomputes them)."""
    dilated = any(step != 1 for step in attribute(node, "dilations").list.i)
    strided = any(step != 1 for step in attribute(node, "strides").list.i)
    return not dilated or node.op == "Conv2D" or (node.op == "DepthwiseConv2dNative" and not strided)


def quantizable_nodes(view: GraphView) -> list[NodeDef]:
    """Returns the quantizable nodes in the order of the graph."""
    return [node for node in view.graph_def.node if is_quantizable(view, node)]


def find_layers(graph: tf.Graph) -> list[LayerSpec]:
    """Finds the quantizable layers of a live graph.

    The live graph is needed for its static shapes: they tell a fully connected 1x1 convolution from a regular one.
    """
    view = GraphView(graph.as_graph_def())
    return [
        LayerSpec(node.name, node.op, node.op in CHANNEL_WISE_TYPES and not _covers_feature_map(graph, view, node))
        for node in quantizable_nodes(view)
    ]


def _covers_feature_map(graph: tf.Graph, view: GraphView, node: NodeDef) -> bool:
    """Tells whether a Conv2D's filter is as large as its input, so that it is a fully connected layer (spec 12.1)."""
    weights = layer_weights(view, node)
    if node.op != "Conv2D" or weights is None:
        return False
    shape = graph.get_tensor_by_name(full_tensor_name(node.input[0])).shape
    if shape.rank != 4:
        return False
    height_axis = 1 if data_format(node) == "NHWC" else 2
    return tuple(shape[height_axis : height_axis + 2]) == weights.shape[:2]


def out_channels(op_type: str, weights: np.ndarray) -> int:
    """Returns the number of output channels of a layer's weights."""
    return int(np.prod(channel_axes_shape(op_type, weights.shape)))


def channel_axes(op_type: str) -> tuple[int, ...]:
    """Returns the axes of the weights that make up the output channels (spec section 7.3)."""
    return {"Conv2D": (3,), "DepthwiseConv2dNative": (2, 3), "Conv2DBackpropInput": (2,), "MatMul": (1,)}[op_type]


def channel_axes_shape(op_type: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the lengths of the output-channel axes."""
    return tuple(shape[axis] for axis in channel_axes(op_type))


def along_channels(op_type: str, weights: np.ndarray, per_channel: np.ndarray) -> np.ndarray:
    """Shapes ``per_channel`` ([Cout] or [1]) so that it broadcasts against the weights' output channels."""
    if per_channel.size == 1:
        return per_channel.reshape((1,) * weights.ndim)
    axes = channel_axes(op_type)
    shape = [weights.shape[axis] if axis in axes else 1 for axis in range(weights.ndim)]
    return per_channel.reshape(shape)
