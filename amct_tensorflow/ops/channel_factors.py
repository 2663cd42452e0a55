"""How factors per channel go through ops: a node computes the same of tensors that are divided by them.

A tensor ``x`` is divided by factors that a layout names. A node may pass them on, from an input to its output or back:

    Relu(x / f) = Relu(x) / f        x / f + y / f = (x + y) / f        (x / f) * y = (x * y) / f

Or it may take them in, at its input or its output, if it multiplies by a constant:

    (x / f) * (c * f) = x * c        x * (c / f) = (x * c) / f

So gamma of a LayerNorm, a gain, a LayerScale and the 1/6 of a hard swish take in factors of both sides. What adds a
constant passes factors on, and its constant is divided.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, Shape, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.einsum import Equation, parse_equation

# Which factor divides each value of a tensor: integers, with as many axes as the tensor, of length 1 along those on
# which it does not depend. Channels may be spread over several axes, as those of attention are over heads.
Layout: TypeAlias = np.ndarray

# Stands in a layout for values that are not divided, as queries are beside the values of attention in one tensor.
UNDIVIDED = -1

# The place of a node's first output among its inputs; further ones follow downwards.
OUTPUT = -1


@dataclass(frozen=True, eq=False)
class Way:
    """A way for a node to compute the same.

    Attributes:
        divided: per input, or ``OUTPUT`` and below it, which is divided by factors, by which.
        constants: per input that is a constant and changes, the layout of the factors, and their exponent: 1 if it is
            multiplied by them, -1 if it is divided.
    """

    divided: Mapping[int, Layout]
    constants: Mapping[int, tuple[Layout, int]] = field(default_factory=dict)


# Takes a graph, a node of it, one of its inputs or its ``OUTPUT``, and the layout of factors that divide it; returns
# the ways in which the node can still compute the same, none if there is no way.
Ways: TypeAlias = Callable[[GraphView, NodeDef, int, Layout], Sequence[Way]]

# Takes a graph, a node, the layout of its first input, and whether it is that of its output instead; returns the layout
# of the other one, None if factors do not go through the node.
Move: TypeAlias = Callable[[GraphView, NodeDef, Layout, bool], Layout | None]


@dataclass(frozen=True)
class Factors:
    """Computes the same of tensors that are divided by positive factors per channel.

    Attributes:
        ways: returns in which ways, for a node and one of its tensors.
    """

    ways: Ways


def divide(values: np.ndarray | float, factors: np.ndarray, layout: Layout, exponent: int = -1) -> np.ndarray:
    """Returns values that are divided by factors, or multiplied with an exponent of 1, as a layout says; float64."""
    return np.asarray(values * np.append(factors, 1.0)[layout] ** exponent)


class AsksForShape:
    """Yields nothing but what follows from the shapes of its inputs."""


def _shape(view: GraphView, node: NodeDef, place: int) -> Shape | None:
    return view.shape(node.name if place == OUTPUT else node.input[place])


def fits(shape: Shape | None, layout: Layout) -> bool:
    """Tells whether a tensor of a shape has all values that a layout tells apart."""
    if shape is None or len(shape) != layout.ndim:
        return False
    return all(named in (1, length) for named, length in zip(layout.shape, shape, strict=True))


def along_axis(layout: Layout, axis: int) -> np.ndarray | None:
    """Returns a layout that depends on one axis only as a vector; None if it depends on another, too."""
    return layout.reshape(-1) if -layout.ndim <= axis < layout.ndim and layout.shape[axis] == layout.size else None


def through(move: Move) -> Factors:
    """Returns the trait of ops that pass factors on between their first input and their output."""

    def ways(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
        other = 0 if place == OUTPUT else OUTPUT
        if place not in (0, OUTPUT):
            return []
        moved = move(view, node, layout, place == OUTPUT)
        return (
            [Way({place: layout, other: moved})] if moved is not None and fits(_shape(view, node, other), moved) else []
        )

    return Factors(ways)


def _alike(_view: GraphView, _node: NodeDef, layout: Layout, _backwards: bool) -> Layout:
    return layout


def _transposed(view: GraphView, node: NodeDef, layout: Layout, backwards: bool) -> Layout | None:
    order = view.constant(node.input[1])
    if order is None or order.size != layout.ndim:
        return None
    return layout.transpose(np.argsort(order % layout.ndim) if backwards else order)


def _reshaped(view: GraphView, node: NodeDef, layout: Layout, backwards: bool) -> Layout | None:
    shapes = _shape(view, node, 0), _shape(view, node, OUTPUT)
    old, new = reversed(shapes) if backwards else shapes
    return None if old is None or new is None else reshape_layout(layout, old, new)


def reshape_layout(layout: Layout, old: Shape, new: Shape) -> Layout | None:
    """Returns the layout of a tensor in another shape; None if lengths that are not known forbid to tell.

    Args:
        layout: the layout.
        old: shape of the tensor.
        new: the other shape.
    """
    for kept, others in _common_ends(old, new):
        if any(length > 1 for length in layout.shape[:kept]):
            continue
        values = np.broadcast_to(layout.reshape(layout.shape[kept:]), _known(old[kept:])).reshape(_known(new[others:]))
        for axis in range(values.ndim):
            first = values.take([0], axis)
            if values.shape[axis] > 1 and np.array_equal(values, np.broadcast_to(first, values.shape)):
                values = first
        return values.reshape((1,) * others + values.shape)
    return None


def _known(lengths: Shape) -> tuple[int, ...]:
    assert None not in lengths
    return tuple(length for length in lengths if length is not None)


def _common_ends(old: Shape, new: Shape) -> Iterator[tuple[int, int]]:
    """Yields where two shapes can be cut so that as many values lie behind in both, the shortest ends first."""
    for kept, size in _ends(old):
        yield from ((kept, others) for others, its in _ends(new) if its == size)


def _ends(shape: Shape) -> Iterator[tuple[int, int]]:
    """Yields where a shape can be cut, and how many values lie behind, as far as lengths are known."""
    size = 1
    yield len(shape), size
    for axis in reversed(range(len(shape))):
        length = shape[axis]
        if length is None:
            return
        size *= length
        yield axis, size


def _padded(view: GraphView, node: NodeDef, layout: Layout, _backwards: bool) -> Layout | None:
    """Zeros, or values of the tensor, may stand before and behind all axes but those of channels."""
    paddings = view.constant(node.input[1])
    filling = view.constant(node.input[2]) if node.op == "PadV2" else np.zeros(())
    if paddings is None or len(paddings) != layout.ndim or filling is None or filling.any():
        return None
    return None if any(length > 1 and row.any() for length, row in zip(layout.shape, paddings, strict=True)) else layout


def _resized(_view: GraphView, _node: NodeDef, layout: Layout, _backwards: bool) -> Layout | None:
    """Images are [n, height, width, channels]; their values are means of neighbours."""
    return layout if along_axis(layout, -1) is not None else None


def _dealt(view: GraphView, node: NodeDef, layout: Layout, _backwards: bool) -> Layout | None:
    """Phases are dealt out, or put together, along the images and the axes behind, as many as the block has."""
    block = view.constant(node.input[1]) if len(data_inputs(node.input)) == 3 else np.ones(2)
    return None if block is None or any(length > 1 for length in layout.shape[: 1 + block.size]) else layout


def _of_slice(
    view: GraphView, node: NodeDef, place: int, layout: Layout, cuts: Sequence[slice], gone: tuple[int, ...]
) -> list[Way]:
    """What is cut out of a tensor, with the axes ``gone`` that vanish.

    Backwards there are two ways if the other values along an axis may be divided, too, or may not.
    """
    shape = view.shape(node.input[0])
    if shape is None:
        return []
    if place != OUTPUT:
        parts = tuple(cut if length > 1 else slice(None) for cut, length in zip(cuts, layout.shape, strict=True))
        return [Way({place: layout, OUTPUT: layout[parts].squeeze(gone)})]
    own = np.expand_dims(layout, gone)
    whole = all(own.shape[axis] in (1, shape[axis]) for axis in range(own.ndim))
    ways = [Way({0: own, OUTPUT: layout})] if whole else []
    axes = [axis for axis, cut in enumerate(cuts) if cut != slice(None)]
    if axes and None not in [shape[axis] for axis in axes]:
        lengths = [length if axis in axes else own.shape[axis] for axis, length in enumerate(shape)]
        embedded = np.full(_known(tuple(lengths)), UNDIVIDED)
        embedded[tuple(cuts)] = own
        ways.append(Way({0: embedded, OUTPUT: layout}))
    return ways


def _of_strided_slice(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    begin, end, strides = (view.constant(text) for text in node.input[1:4])
    shape = view.shape(node.input[0])
    masks = {
        name: attribute(node, f"{name}_mask").i for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    if begin is None or end is None or strides is None or shape is None or masks["new_axis"]:
        return []
    cuts, gone, axis = [slice(None)] * len(shape), [], 0
    for index, (first, last, step) in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)):
        if masks["ellipsis"] >> index & 1:
            axis += len(shape) - begin.size + 1
            continue
        if masks["shrink_axis"] >> index & 1:
            cuts[axis] = slice(first, first + 1 if first != -1 else None)
            gone.append(axis)
        else:
            starts, ends = masks["begin"] >> index & 1, masks["end"] >> index & 1
            cut = slice(None if starts else first, None if ends else last, step)
            is_whole = step == 1 and cut.start in (None, 0) and (ends or last == shape[axis])
            cuts[axis] = slice(None) if is_whole else cut
        axis += 1
    return _of_slice(view, node, place, layout, cuts, tuple(gone))


def _of_plain_slice(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    begin, size = (view.constant(text) for text in node.input[1:3])
    if begin is None or size is None:
        return []
    pairs = zip(begin.tolist(), size.tolist(), strict=True)
    ends = [(first, None if length == -1 else first + length) for first, length in pairs]
    shape = view.shape(node.input[0]) or ()
    cuts = [slice(None) if first == 0 and last in (None, length) else slice(first, last)
            for (first, last), length in zip(ends, shape, strict=False)]  # fmt: skip
    return _of_slice(view, node, place, layout, cuts, ())


def _of_split(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    """Split and SplitV cut a tensor into parts along an axis, Unpack into parts without it."""
    data = 1 if node.op == "Split" else 0
    shape = view.shape(node.input[data])
    sizes = _sizes_of_parts(view, node, shape)
    if shape is None or sizes is None or place not in (data, *(-1 - index for index in range(len(sizes[1])))):
        return []
    axis, lengths = sizes
    gone = (axis,) if node.op == "Unpack" else ()
    ends = np.cumsum(lengths)
    whole = layout if place == data else np.expand_dims(layout, gone)
    found = []
    if whole.shape[axis] == 1:  # all parts alike
        part = whole.squeeze(gone)
        found.append(Way({data: whole, **{-1 - index: part for index in range(len(lengths))}}))
    if place == data and whole.shape[axis] > 1:
        parts = np.split(whole, ends[:-1], axis)
        found.append(Way({data: whole, **{-1 - index: part.squeeze(gone) for index, part in enumerate(parts)}}))
    if place != data and whole.shape[axis] in (1, lengths[-1 - place]):
        rest = [_undivided(whole, axis, length) for length in lengths]
        rest[-1 - place] = np.broadcast_to(whole, rest[-1 - place].shape)
        places = {-1 - index: part.squeeze(gone) for index, part in enumerate(rest)}
        found.append(Way({data: np.concatenate(rest, axis), **places, place: layout}))
    return found


def _sizes_of_parts(view: GraphView, node: NodeDef, shape: Shape | None) -> tuple[int, list[int]] | None:
    """Returns along which axis a tensor is split, and how long the parts are; None if that is not known."""
    if shape is None:
        return None
    if node.op == "Unpack":
        return attribute(node, "axis").i % len(shape), [1] * attribute(node, "num").i
    axis = view.constant(node.input[0 if node.op == "Split" else 2])
    if axis is None or (length := shape[int(axis)]) is None:
        return None
    if node.op == "Split":
        count = attribute(node, "num_split").i
        return int(axis) % len(shape), [length // count] * count
    sizes = view.constant(node.input[1])
    if sizes is None:
        return None
    known = sum(size for size in sizes.tolist() if size >= 0)
    return int(axis) % len(shape), [size if size >= 0 else length - known for size in sizes.tolist()]


def _of_rank(layout: Layout, rank: int) -> Layout | None:
    """Returns the layout of a tensor that is broadcast, or of what it is broadcast to; None if it lacks axes."""
    surplus = layout.ndim - rank
    if any(length > 1 for length in layout.shape[: max(surplus, 0)]):
        return None
    return layout.reshape(layout.shape[surplus:] if surplus > 0 else (1,) * -surplus + layout.shape)


def _operand(view: GraphView, text: str, layout: Layout) -> Layout | None:
    """Returns the layout of an operand of a node with a layout; None if it is broadcast along channels."""
    shape = view.shape(text)
    own = None if shape is None else _of_rank(layout, len(shape))
    return own if own is not None and fits(shape, own) else None


def _of_output(view: GraphView, node: NodeDef, layout: Layout) -> Layout | None:
    """Returns the layout of the output of an elementwise node with that of one of its operands."""
    return _operand(view, node.name, layout)


def _tied(view: GraphView, node: NodeDef, layout: Layout, operands: Sequence[int]) -> list[Way]:
    """All operands and the output are divided; those that are constants change."""
    shared = _of_output(view, node, layout)
    if shared is None:
        return []
    divided, constants = {OUTPUT: shared}, {}
    for index in operands:
        constant = view.constant(node.input[index])
        if constant is None:
            own = _operand(view, node.input[index], shared)
            if own is None:
                return []
            divided[index] = own
        elif constant.any():
            constants[index] = (shared, -1)
    return [Way(divided, constants)]


def _of_terms(view: GraphView, node: NodeDef, _place: int, layout: Layout) -> list[Way]:
    """Sums, differences, and the larger or smaller of two."""
    return _tied(view, node, layout, range(len(data_inputs(node.input))))


def _of_concatenation(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    """What stands side by side may be channels; then each part has its own."""
    parts = range(len(data_inputs(node.input)) - 1)
    axis = view.constant(node.input[len(parts)])
    if axis is None:
        return []
    if layout.shape[int(axis)] == 1:
        return _tied(view, node, layout, parts)
    shapes = [view.shape(node.input[index]) for index in parts]
    lengths = [None if shape is None else shape[int(axis)] for shape in shapes]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return []
    if place != OUTPUT:
        pieces = [layout if index == place else _undivided(layout, int(axis), known[index]) for index in parts]
        return [Way({place: layout, OUTPUT: np.concatenate(pieces, int(axis))})]
    found: dict[int, Layout] = {OUTPUT: layout}
    constants: dict[int, tuple[Layout, int]] = {}
    for index, part in enumerate(np.split(layout, np.cumsum(known)[:-1], int(axis))):
        if view.constant(node.input[index]) is None:
            found[index] = part
        else:
            constants[index] = (part, -1)
    return [Way(found, constants)]


def _undivided(layout: Layout, axis: int, length: int) -> Layout:
    """Returns the layout of a part beside one with a layout, of which nothing is divided."""
    lengths = list(layout.shape)
    lengths[axis] = length
    return np.full(lengths, UNDIVIDED)


def _of_bias(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    along = along_axis(layout, 1 if data_format(node) == "NCHW" else -1)
    if along is None or place == 1 or view.constant(node.input[1]) is None:
        return []
    return [Way({0: layout, OUTPUT: layout}, {1: (along, -1)})]


def _of_product(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    constants = [view.constant(text) is not None for text in node.input[:2]]
    if True in constants:
        return [Way({place: layout}, {constants.index(True): (layout, -1 if place == OUTPUT else 1)})]
    return _of_one_factor(view, node, place, layout, (0, 1))


def _of_quotient(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    above, below = (view.constant(text) is not None for text in node.input[:2])
    if below:
        return [Way({place: layout}, {1: (layout, 1 if place == OUTPUT else -1)})]
    if above:
        return [Way({place: layout}, {0: (layout, -1)})]
    return _of_one_factor(view, node, place, layout, (0,))


def _of_one_factor(view: GraphView, node: NodeDef, place: int, layout: Layout, operands: Sequence[int]) -> list[Way]:
    """One of the operands is divided, and the output with it."""
    if place != OUTPUT:
        shared = _of_output(view, node, layout) if place in operands else None
        return [] if shared is None else [Way({place: layout, OUTPUT: shared})]
    owns = {index: _operand(view, node.input[index], layout) for index in operands}
    return [Way({OUTPUT: layout, index: own}) for index, own in owns.items() if own is not None]


def _of_batch_norm(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    """Gamma and beta take in factors of the output, gamma and the mean those of the input."""
    along = along_axis(layout, 1 if data_format(node) == "NCHW" else -1)
    is_inference = "is_training" in node.attr and not node.attr["is_training"].b
    edges = [edge for edge in view.consumers(node.name) if not view.is_control(edge)]
    is_plain = all(parse_tensor_name(edge.node.input[edge.input_index]).port == 0 for edge in edges)
    if along is None or place not in (0, OUTPUT) or not (is_inference and is_plain):
        return []
    if any(view.constant(text) is None for text in node.input[1:5]):
        return []
    exponents = {1: -1, 2: -1} if place == OUTPUT else {1: 1, 3: -1}
    return [Way({place: layout}, {index: (along, exponent) for index, exponent in exponents.items()})]


def _of_matrices(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    """Products of matrices, one or a batch."""
    ranks = [len(shape) for text in node.input[:2] if (shape := view.shape(text)) is not None]
    if len(ranks) < 2:
        return []
    flags = [any(attribute(node, name).b for name in names) for names in _TRANSPOSED]
    batch = [f"...{index}" for index in reversed(range(max(ranks) - 2))]
    pairs = [("row", "in"), ("in", "column")]
    ordered = [reversed(pair) if flag else pair for pair, flag in zip(pairs, flags, strict=True)]
    operands = [[*batch[len(batch) + 2 - rank :], *pair] for rank, pair in zip(ranks, ordered, strict=True)]
    equation = Equation(tuple(map(tuple, operands)), (*batch, "row", "column"))
    return _of_sums_of_products(view, node, place, layout, equation)


_TRANSPOSED = (("transpose_a", "adj_x", "adjoint_a"), ("transpose_b", "adj_y", "adjoint_b"))


def _of_einsum(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    shapes = [view.shape(text) for text in data_inputs(node.input)]
    if any(shape is None for shape in shapes):
        return []
    text = attribute(node, "equation").s.decode()
    equation = parse_equation(text, [len(shape) for shape in shapes if shape is not None])
    return [] if equation is None else _of_sums_of_products(view, node, place, layout, equation)


def _of_sums_of_products(view: GraphView, node: NodeDef, place: int, layout: Layout, equation: Equation) -> list[Way]:
    """Factors go to what has all of their labels: from the output to an operand, and back.

    Labels that are summed over are those of all operands; if one of them is a constant, it takes their factors in.
    """
    labels = equation.output if place == OUTPUT else equation.operands[place]
    found = []
    for other, theirs in ((OUTPUT, equation.output), *enumerate(equation.operands)):
        moved = None if other == place else _relabelled(layout, labels, theirs)
        if moved is None or not fits(_shape(view, node, other), moved):
            continue
        if OUTPUT not in (place, other) and not _is_summed(layout, labels, equation):
            continue
        if other != OUTPUT and view.constant(node.input[other]) is not None:
            found.append(Way({place: layout}, {other: (moved, -1 if place == OUTPUT else 1)}))
        elif OUTPUT in (place, other):
            found.append(Way({place: layout, other: moved}))
    return found


def _is_summed(layout: Layout, labels: Sequence[str], equation: Equation) -> bool:
    """Tells whether the output lacks a label of channels, so that factors do not come out."""
    return any(length > 1 and label not in equation.output for label, length in zip(labels, layout.shape, strict=True))


def _relabelled(layout: Layout, labels: Sequence[str], others: Sequence[str]) -> Layout | None:
    """Returns a layout of axes with other labels; None if one of channels is not among them, or stands twice."""
    lengths = dict(zip(labels, layout.shape, strict=True))
    if len(lengths) < len(labels) or len(set(others)) < len(others):
        return None
    if any(length > 1 and label not in others for label, length in lengths.items()):
        return None
    kept = [label for label in labels if lengths[label] > 1]
    order = [kept.index(label) for label in others if label in kept]
    return (
        layout.reshape([lengths[label] for label in kept])
        .transpose(order)
        .reshape([lengths.get(label, 1) for label in others])
    )


ALIKE = through(_alike)
TRANSPOSE = through(_transposed)
RESHAPE = through(_reshaped)
PADDING = through(_padded)
RESIZING = through(_resized)
DEALING = through(_dealt)
STRIDED_SLICE = Factors(_of_strided_slice)
SLICE = Factors(_of_plain_slice)
SPLIT = Factors(_of_split)
TERMS = Factors(_of_terms)
CONCATENATION = Factors(_of_concatenation)
BIAS = Factors(_of_bias)
PRODUCT = Factors(_of_product)
QUOTIENT = Factors(_of_quotient)
BATCH_NORM = Factors(_of_batch_norm)
MATRICES = Factors(_of_matrices)
EINSUM = Factors(_of_einsum)
