"""How factors per channel go through ops that move values: to other places, into parts, and side by side."""

from collections.abc import Iterator, Sequence

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, Shape, attribute, data_inputs
from amct_tensorflow.ops.channel_factors import (
    OUTPUT,
    UNDIVIDED,
    Factors,
    Layout,
    Way,
    along_axis,
    shape_at,
    through,
    tied,
)


def _alike(_view: GraphView, _node: NodeDef, layout: Layout, _backwards: bool) -> Layout:
    return layout


def _transposed(view: GraphView, node: NodeDef, layout: Layout, backwards: bool) -> Layout | None:
    order = view.constant(node.input[1])
    if order is None or order.size != layout.ndim:
        return None
    return layout.transpose(np.argsort(order % layout.ndim) if backwards else order)


def _reshaped(view: GraphView, node: NodeDef, layout: Layout, backwards: bool) -> Layout | None:
    shapes = shape_at(view, node, 0), shape_at(view, node, OUTPUT)
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


def _of_concatenation(view: GraphView, node: NodeDef, place: int, layout: Layout) -> list[Way]:
    """What stands side by side may be channels; then each part has its own."""
    parts = range(len(data_inputs(node.input)) - 1)
    axis = view.constant(node.input[len(parts)])
    if axis is None:
        return []
    if layout.shape[int(axis)] == 1:
        return tied(view, node, layout, parts)
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


ALIKE = through(_alike)
TRANSPOSE = through(_transposed)
RESHAPE = through(_reshaped)
PADDING = through(_padded)
RESIZING = through(_resized)
DEALING = through(_dealt)
STRIDED_SLICE = Factors(_of_strided_slice)
SLICE = Factors(_of_plain_slice)
SPLIT = Factors(_of_split)
CONCATENATION = Factors(_of_concatenation)
