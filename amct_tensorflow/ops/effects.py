"""Returns the effect of a node on its data, by the traits of its op type: a clip, an affine map, a move, a division."""

from collections.abc import Callable, Sequence

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, data_inputs
from amct_tensorflow.ops.affine import Affine, PerChannelAffine
from amct_tensorflow.ops.channel_factors import Factors, Layout, Way
from amct_tensorflow.ops.channels import ChannelMove, Channels
from amct_tensorflow.ops.clips import Clip, Clips
from amct_tensorflow.ops.op_table import trait
from amct_tensorflow.ops.traits import Moves


def as_affine(view: GraphView, node: NodeDef, data: str, channels: Channels) -> Affine | None:
    """Returns the affine map per channel that a node does to the output of node ``data``; None if it is none.

    Args:
        view: the graph.
        node: a node that reads ``data``.
        data: name of a node.
        channels: where the output of ``data`` has its channels.
    """
    affine = trait(node.op, PerChannelAffine)
    return affine.read(view, node, data, channels) if affine is not None else None


def channels_behind(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """Returns where the output of a node has the channels of its input; None if it does more than to move them.

    Args:
        view: the graph.
        node: the node.
        channels: where its input has them.
    """
    move = trait(node.op, ChannelMove)
    return move.behind(view, node, channels) if move is not None else None


def ways_with_factors(view: GraphView, node: NodeDef, place: int, layout: Layout) -> Sequence[Way]:
    """Returns the ways in which a node computes the same although one of its tensors is divided by factors.

    Args:
        view: the graph.
        node: the node.
        place: which of its inputs is divided, or ``OUTPUT``.
        layout: by which factors.
    """
    passing = trait(node.op, Factors)
    return passing.ways(view, node, place, layout) if passing is not None else ()


def keeps_order(node: NodeDef) -> bool:
    """Tells whether a node yields the same values in the same order, as between a Conv1D and what clips it."""
    moves = trait(node.op, Moves)
    return moves is not None and moves.keeps_order


def as_clip(node: NodeDef, constant: Callable[[str], np.ndarray | None]) -> tuple[Clip, str] | None:
    """Returns how a node clips, and what, as GraphDef writes the input; None if it does something else.

    Args:
        node: the node.
        constant: returns the value of an input, None if it is no constant; bounds are those of rank 0.
    """
    clips = trait(node.op, Clips)
    if clips is None:
        return None
    inputs = data_inputs(node.input)
    if not clips.bounds:
        return clips.to(), inputs[0]
    values = [constant(text) for text in inputs]
    bounds = [float(value) for value in values if value is not None and value.ndim == 0 and not np.isnan(value)]
    data = [text for text, value in zip(inputs, values, strict=True) if value is None]
    if len(data) != 1 or len(bounds) != clips.bounds or (clips.values_first and data[0] != inputs[0]):
        return None
    return clips.to(*bounds), data[0]
