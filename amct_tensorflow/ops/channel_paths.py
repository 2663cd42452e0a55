"""Ops that move channels as a whole: what is done per channel behind one can as well be done before it.

    layer --> Squeeze --> BiasAdd          is the same as          layer --> BiasAdd --> Squeeze

That is how Conv1D is written (Squeeze), dilated convolution (BatchToSpaceND, and BatchToSpace before there was that),
BatchNorm behind a MatMul (Reshape), graphs that come from a framework with another order of axes (Transpose), and what
a program says of a shape that TensorFlow does not infer (EnsureShape).
"""

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.ops.affine import Channels


def channels_behind(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """Returns where the output of a node has the channels of its input; None if it does more than to move them.

    Args:
        view: the graph.
        node: the node.
        channels: where its input has them.
    """
    move = {
        "Squeeze": _squeeze,
        "ExpandDims": _expand_dims,
        "Reshape": _reshape,
        "Transpose": _transpose,
        "BatchToSpaceND": _batch_to_space_nd,
        "BatchToSpace": _batch_to_space,
        "EnsureShape": _ensure_shape,
    }.get(node.op)
    return move(view, node, channels) if move is not None else None


def _squeeze(_view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    dims = list(attribute(node, "squeeze_dims").list.i)
    if channels.rank is None or not dims:
        return None
    gone = {axis - channels.rank if axis >= 0 else axis for axis in dims}
    if channels.axis in gone:
        return None
    moved = channels.axis + sum(axis > channels.axis for axis in gone)
    return channels._replace(axis=moved, rank=channels.rank - len(gone))


def _expand_dims(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    axis = view.constant(node.input[1])
    if channels.rank is None or axis is None or axis.size != 1:
        return None
    rank = channels.rank + 1
    new = int(axis.reshape(())) - (rank if axis >= 0 else 0)
    return channels._replace(axis=channels.axis - (new >= channels.axis), rank=rank)


def _transpose(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    order = view.constant(node.input[1])
    if channels.rank is None or order is None or len(order) != channels.rank:
        return None
    from_end = [axis - channels.rank if axis >= 0 else axis for axis in order.tolist()]
    return channels._replace(axis=from_end.index(channels.axis) - channels.rank)


def _batch_to_space(_view: GraphView, _node: NodeDef, channels: Channels) -> Channels | None:
    """The older form always has two axes between images and channels."""
    return channels if channels.axis == -1 and channels.rank in (None, 4) else None


def _ensure_shape(_view: GraphView, _node: NodeDef, channels: Channels) -> Channels | None:
    return channels


def _batch_to_space_nd(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    block = view.constant(node.input[1])
    if channels.rank is None or block is None or channels.axis + channels.rank <= block.size:
        return None
    return channels


def _reshape(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """The last axis stays as it is if it keeps its length."""
    shape = view.shape(node.name)
    if channels.axis != -1 or not shape or shape[-1] != channels.number:
        return None
    return channels._replace(rank=len(shape))
