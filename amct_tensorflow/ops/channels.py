"""The channels of tensors, and how ops pass them on.

An op per channel behind one that moves channels as a whole can as well stand before it:

    layer --> Squeeze --> BiasAdd          is the same as          layer --> BiasAdd --> Squeeze

So are written Conv1D (Squeeze), dilated convolutions (BatchToSpaceND, and before it BatchToSpace), BatchNorm behind a
MatMul (Reshape), graphs from a framework with another order of axes (Transpose), and shapes that TensorFlow does not
infer (EnsureShape).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute


class Channels(NamedTuple):
    """Where a tensor has its channels.

    Attributes:
        number: how many there are.
        axis: which axis counts them, from the end: -1 is the last.
        rank: number of axes; None if it is not known.
    """

    number: int
    axis: int
    rank: int | None


# Takes a graph, a node of it, and where its input has its channels; returns where its output has them, None if it has
# not.
Behind: TypeAlias = Callable[[GraphView, NodeDef, Channels], Channels | None]


@dataclass(frozen=True)
class ChannelMove:
    """Moves channels as a whole.

    Attributes:
        behind: returns where a node's output has the channels of its input; None if it does more than to move them.
    """

    behind: Behind


def alike(_view: GraphView, _node: NodeDef, channels: Channels) -> Channels:
    """The output has its channels where the input has them."""
    return channels


def data_format(node: NodeDef) -> str:
    """Returns ``NHWC`` if the channels of a node's output come last, ``NCHW`` if they come behind the images.

    These are the names that BiasAdd and AscendDequant have for it, however many axes there are between. Ops without the
    attribute have their channels last.
    """
    return attribute(node, "data_format").s.decode().replace("D", "") or "NHWC"


def squeeze(_view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """An axis that vanishes must not be that of the channels."""
    dims = list(attribute(node, "squeeze_dims").list.i)
    if channels.rank is None or not dims:
        return None
    gone = {axis - channels.rank if axis >= 0 else axis for axis in dims}
    if channels.axis in gone:
        return None
    moved = channels.axis + sum(axis > channels.axis for axis in gone)
    return channels._replace(axis=moved, rank=channels.rank - len(gone))


def expand_dims(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """A new axis moves those before it away from the end."""
    axis = view.constant(node.input[1])
    if channels.rank is None or axis is None or axis.size != 1:
        return None
    rank = channels.rank + 1
    new = int(axis.reshape(())) - (rank if axis >= 0 else 0)
    return channels._replace(axis=channels.axis - (new >= channels.axis), rank=rank)


def transpose(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """The order says where each axis goes."""
    order = view.constant(node.input[1])
    if channels.rank is None or order is None or len(order) != channels.rank:
        return None
    from_end = [axis - channels.rank if axis >= 0 else axis for axis in order.tolist()]
    return channels._replace(axis=from_end.index(channels.axis) - channels.rank)


def batch_to_space(_view: GraphView, _node: NodeDef, channels: Channels) -> Channels | None:
    """The older form always has two axes between images and channels."""
    return channels if channels.axis == -1 and channels.rank in (None, 4) else None


def batch_to_space_nd(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """The axes that are put together stand between images and channels."""
    block = view.constant(node.input[1])
    if channels.rank is None or block is None or channels.axis + channels.rank <= block.size:
        return None
    return channels


def reshape(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """The last axis stays as it is if it keeps its length."""
    shape = view.shape(node.name)
    if channels.axis != -1 or not shape or shape[-1] != channels.number:
        return None
    return channels._replace(rank=len(shape))
