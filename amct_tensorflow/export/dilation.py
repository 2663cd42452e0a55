"""Rewrites convolutions between SpaceToBatchND and BatchToSpaceND as dilated convolutions.

TensorFlow so writes a dilated convolution: it pads the input, deals it out into phases, which count as images,
convolves each phase, and puts the phases together again. Kernels of other runtimes dilate by themselves, and some
converters fail if a bias stands between. A window on an unpadded phase is the same window with gaps on the whole; other
ops between must treat all positions alike. Cropping in the end cancels padding.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import attr_value, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute, data_inputs
from amct_tensorflow.ops import OP_TYPES, has, trait
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.sliding import spatial
from amct_tensorflow.ops.traits import Convolution, DealsOut, Elementwise, PutsTogether
from amct_tensorflow.quantize.quantized.quantized_layer import stored_weights


@dataclass(frozen=True)
class Dilation:
    """What stands between a SpaceToBatchND and the BatchToSpaceNDs behind it.

    Attributes:
        opening: the SpaceToBatchND.
        closings: the BatchToSpaceNDs.
        pads: per axis of the input, zeros before and behind, less what is cropped in the end.
        rates: per convolution between, its attribute ``dilations``.
        same: those of them that pad just so with ``SAME``, if all do that see what was padded; else none.
    """

    opening: str
    closings: Sequence[str]
    pads: Sequence[tuple[int, int]]
    rates: Mapping[str, Sequence[int]]
    same: Collection[str]


def find_dilations(view: GraphView, outputs: Collection[str]) -> list[Dilation]:
    """Returns the dilated convolutions of a graph, quantized or not; what cannot be written as one is left out.

    Args:
        view: the graph.
        outputs: its output operators.
    """
    openings = [node for node in view.nodes.values() if has(node.op, DealsOut)]
    order = list(view.topological()) if openings else []
    found = (_find(view, node, order, outputs) for node in openings)
    return [each for each in found if each is not None]


def write_dilations(editor: GraphEditor, dilations: Sequence[Dilation]) -> None:
    """Lets convolutions dilate, in place of the nodes around them."""
    for each in dilations:
        for name, rates in each.rates.items():
            node = NodeDef()
            node.CopyFrom(editor.node(name))
            node.attr["dilations"].CopyFrom(attr_value(rates))
            if name in each.same:
                node.attr["padding"].CopyFrom(attr_value("SAME"))
            editor.replace_node(node)
        data = editor.node(each.opening).input[0]
        if each.same or not np.any(each.pads):
            editor.replace_node(make_node(each.opening, "Identity", [data], T=tf.float32))
        else:
            amounts = make_const(editor.unique_name(f"{each.opening}/pads"), np.array(each.pads, np.int32))
            inputs = [data, editor.add(amounts, like=each.opening)]
            editor.replace_node(make_node(each.opening, "Pad", inputs, T=tf.float32, Tpaddings=tf.int32))
        for name in each.closings:
            editor.replace_node(make_node(name, "Identity", [editor.node(name).input[0]], T=tf.float32))


@dataclass(frozen=True)
class _Phases:
    """A value in phases.

    Attributes:
        axes: which axes were dealt out.
        added: how many axes it has more than what was dealt out.
        is_padded: whether no convolution has used up the pads yet.
        has_zeros: whether the pads are zeros there.
    """

    axes: tuple[int, ...]
    added: int = 0
    is_padded: bool = True
    has_zeros: bool = True


@dataclass(frozen=True)
class _Between:
    """The nodes between.

    Attributes:
        convolutions: the convolutions, each with what it reads.
        closings: the nodes behind which the phases are together again, each with what it reads.
    """

    convolutions: Sequence[tuple[NodeDef, _Phases]]
    closings: Sequence[tuple[NodeDef, _Phases]]


def _find(view: GraphView, opening: NodeDef, order: Sequence[NodeDef], outputs: Collection[str]) -> Dilation | None:
    block, pads = _block(view, opening), _amounts(view, opening)
    between = None if block is None or opening.name in outputs else _follow(view, opening, len(block), order, outputs)
    if block is None or pads is None or between is None or not between.convolutions:
        return None
    ends = {(_block(view, node), _amounts(view, node)) for node, _ in between.closings}
    ranks = {_rank(node) - read.added for node, read in between.convolutions}
    if len(ends) != 1 or len(ranks) != 1:
        return None
    (closed, crops), rank = ends.pop(), ranks.pop()
    if closed != block or crops is None:
        return None
    left = [(pads[i][0] - crops[i][0], pads[i][1] - crops[i][1]) for i in range(len(block))]
    if np.min(left) < 0:
        return None
    rates = {str(node.name): _rates(node, read, block) for node, read in between.convolutions}
    first = [(node, read) for node, read in between.convolutions if read.is_padded]
    is_same = not any(read.is_padded for _, read in between.closings) and all(
        read.has_zeros and _same_pads(view, node, rates[node.name]) == _pads_of(node, read, left)
        for node, read in first
    )
    return Dilation(
        opening=str(opening.name),
        closings=[str(node.name) for node, _ in between.closings],
        pads=[(0, 0), *left, *[(0, 0)] * (rank - 1 - len(block))],
        rates=rates,
        same=[str(node.name) for node, _ in first] if is_same else [],
    )


def _follow(
    view: GraphView, opening: NodeDef, count: int, order: Sequence[NodeDef], outputs: Collection[str]
) -> _Between | None:
    """Follows phases from a node that deals them out; None if a node in between does not treat all positions alike."""
    known = {str(opening.name): _Phases(tuple(range(1, count + 1)))}
    convolutions, closings = [], []
    for node in order:
        read = [known[name] for text in data_inputs(node.input) if (name := str(view.producer(text).name)) in known]
        if read and has(node.op, PutsTogether):
            closings.append((node, read[0]))
        elif read:
            behind = _behind(view, node, read, known) if node.name not in outputs else None
            if behind is None:
                return None
            known[str(node.name)] = behind
            if has(node.op, Convolution):
                convolutions.append((node, read[0]))
    return _Between(convolutions, closings)


def _behind(view: GraphView, node: NodeDef, read: Sequence[_Phases], known: Collection[str]) -> _Phases | None:
    """Returns the phases at the output of a node; None if it does not treat all positions alike."""
    first = read[0]
    if data_format(node) != "NHWC" or any((each.axes, each.added) != (first.axes, first.added) for each in read):
        return None
    if has(node.op, Convolution):
        return replace(first, is_padded=False, has_zeros=False) if _can_dilate(view, node, read) else None
    if node.op == "ExpandDims":
        return _with_axis(view, node, first)
    if node.op == "Squeeze":
        return _without_axes(view, node, first)
    others = [text for text in data_inputs(node.input) if view.producer(text).name not in known]
    elementwise = trait(node.op, Elementwise)
    if elementwise is None or not all(_is_per_channel(view.constant(text)) for text in others):
        return None
    return replace(
        first,
        is_padded=any(each.is_padded for each in read),
        has_zeros=elementwise.keeps_zero and all(each.has_zeros for each in read),
    )


def _can_dilate(view: GraphView, node: NodeDef, read: Sequence[_Phases]) -> bool:
    steps = {*spatial(node, "strides"), *spatial(node, "dilations")}
    is_valid = attribute(node, "padding").s == b"VALID"
    return is_valid and steps == {1} and len(read) == 1 and _window(view, node) is not None


def _with_axis(view: GraphView, node: NodeDef, read: _Phases) -> _Phases | None:
    """Returns the phases behind an ExpandDims; a negative axis counts in the input of the convolution behind it."""
    axis, rank = view.constant(node.input[1]), _rank_of_reader(view, node)
    if axis is None or axis.size != 1 or rank is None:
        return None
    new = int(axis.reshape(())) % rank
    return replace(read, axes=tuple(each + (each >= new) for each in read.axes), added=read.added + 1)


def _without_axes(view: GraphView, node: NodeDef, read: _Phases) -> _Phases | None:
    """Returns the phases behind a Squeeze; a negative axis counts in the output of the convolution before it."""
    dims, rank = list(attribute(node, "squeeze_dims").list.i), _rank_of_source(view, node)
    if not dims or rank is None:
        return None
    gone = {int(each) % rank for each in dims}
    if gone & set(read.axes):
        return None
    return replace(
        read, axes=tuple(each - sum(axis < each for axis in gone) for each in read.axes), added=read.added - len(gone)
    )


def _rank_of_reader(view: GraphView, node: NodeDef) -> int | None:
    """Returns how many axes the convolution has that reads a node, perhaps behind what keeps its shape."""
    while not has(node.op, Convolution):
        readers = view.readers(node.name)
        if not readers or not _keeps_shape(readers[0]):
            return None
        node = readers[0]
    return _rank(node)


def _rank_of_source(view: GraphView, node: NodeDef) -> int | None:
    """Returns how many axes the convolution has that a node reads, perhaps behind what keeps its shape."""
    while not has(node.op, Convolution):
        node = view.producer(node.input[0])
        if not _keeps_shape(node):
            return None
    return _rank(node)


def _keeps_shape(node: NodeDef) -> bool:
    return has(node.op, Convolution) or has(node.op, Elementwise)


def _rank(node: NodeDef) -> int:
    return len(attribute(node, "strides").list.i)


def _is_per_channel(value: np.ndarray | None) -> bool:
    return value is not None and all(length == 1 for length in value.shape[:-1])


def _window(view: GraphView, node: NodeDef) -> tuple[int, ...] | None:
    """Returns the lengths of a convolution's window; None if its weights are no constants."""
    index = OP_TYPES[node.op].weight_input
    assert index is not None
    weights = stored_weights(view, node.input[index])
    return None if weights is None else tuple(weights.shape[:-2])


def _rates(node: NodeDef, read: _Phases, block: Sequence[int]) -> list[int]:
    rates = dict(zip(read.axes, block, strict=True))
    return [rates.get(axis, 1) for axis in range(_rank(node))]


def _same_pads(view: GraphView, node: NodeDef, rates: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the padding of ``SAME``, per axis of the window."""
    window = _window(view, node)
    assert window is not None
    totals = [(length - 1) * rate for length, rate in zip(window, rates[1:-1], strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def _pads_of(node: NodeDef, read: _Phases, pads: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns the padding, per axis of the window."""
    padded = dict(zip(read.axes, pads, strict=True))
    return [padded.get(axis, (0, 0)) for axis in range(1, _rank(node) - 1)]


def _block(view: GraphView, node: NodeDef) -> tuple[int, ...] | None:
    """Returns into how many phases each axis is dealt out."""
    if "block_size" in node.attr:
        return (int(attribute(node, "block_size").i),) * 2
    block = view.constant(node.input[1])
    return None if block is None else tuple(map(int, block.ravel()))


def _amounts(view: GraphView, node: NodeDef) -> tuple[tuple[int, int], ...] | None:
    """Returns the padding or cropping before and behind each axis."""
    amounts = view.constant(node.input[2 if node.op.endswith("ND") else 1])
    return None if amounts is None else tuple((int(before), int(behind)) for before, behind in amounts.reshape(-1, 2))
