"""Layers that GE computes in fp16 although the model has them in int8.

Their weights are rounded to int8 all the same, so that in float in the file they are more accurate and no slower. The
rules come from a copy of GE's passes of about 2022 (docs/ascend.md).
"""

import math

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, data_inputs
from amct_tensorflow.io.table import plural
from amct_tensorflow.ops import has
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.sliding import spatial
from amct_tensorflow.ops.traits import Convolution

_FEWEST_CHANNELS = 16
_LARGEST_STRIDE = 63
_LARGEST_WINDOW = 255
_LONGEST_SIDE = 20


def few_channels(view: GraphView, node: NodeDef) -> int | None:
    """Returns the channels that a convolution reads, if they are known and too few for int8; else None."""
    if not has(node.op, Convolution):
        return None
    shape = view.shape(data_inputs(node.input)[0])
    channels = None if shape is None or len(shape) < 4 else shape[-1 if data_format(node) == "NHWC" else 1]
    return channels if channels is not None and channels <= _FEWEST_CHANNELS else None


def unfit_pooling(view: GraphView, node: NodeDef) -> str | None:
    """Returns why an AvgPool is not done in int8, as the rest of a sentence about it; None if that is not known."""
    if node.op != "AvgPool":
        return None
    shape, window = view.shape(node.name), spatial(node, "ksize")
    width = None if shape is None or len(shape) != 4 else shape[2 if data_format(node) == "NHWC" else 3]
    if width == 1:
        return "its output is 1 wide"
    if max(spatial(node, "strides")) > _LARGEST_STRIDE:
        return f"it has a stride above {_LARGEST_STRIDE}"
    if math.prod(window) > _LARGEST_WINDOW and max(window) >= _LONGEST_SIDE:
        return f"its window is {'x'.join(map(str, window))}"
    return None


def why_undone(view: GraphView, node: NodeDef) -> str | None:
    """Returns why GE computes a layer in fp16 although it is quantized, as the rest of a sentence about it.

    Args:
        view: the graph, quantized or not, with the shapes that it has for one image.
        node: the op of the layer.

    Returns:
        The reason; None if GE is not known to undo it.
    """
    channels = few_channels(view, node)
    if channels is not None:
        return f"it reads {plural(channels, 'channel')}"
    return unfit_pooling(view, node)


def computes_its_size(view: GraphView, node: NodeDef) -> bool:
    """Tells whether a transposed convolution computes the size of its output, and so has no int8 kernel."""
    return bool(node.op == "Conv2DBackpropInput" and view.constant(data_inputs(node.input)[0]) is None)
