"""Functions for ops that slide a window over an image, or over a volume."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import attribute
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.matrix_form import Sample, spread


def spatial(node: NodeDef, name: str) -> tuple[int, ...]:
    """Returns the numbers of an attribute with one per axis, such as ``strides``, that are not of images or channels.

    These are height and width, or depth, height and width; 1 each if the attribute is missing.
    """
    axes = len(attribute(node, "strides").list.i) or 4
    values = attribute(node, name).list.i or (1,) * axes
    start = 1 if data_format(node) == "NHWC" else 2
    return tuple(map(int, values[start : start + axes - 2]))


def to_channels_last(node: NodeDef, data: np.ndarray) -> np.ndarray:
    """Returns the data of a node with the channels as the last axis."""
    return data if data_format(node) == "NHWC" else np.moveaxis(data, 1, -1)


def from_channels_last(node: NodeDef, data: np.ndarray) -> np.ndarray:
    """Returns data with the channels as the last axis in the data format of a node."""
    return data if data_format(node) == "NHWC" else np.moveaxis(data, -1, 1)


@dataclass(frozen=True)
class _Positions:
    """The positions of a window on data, per axis of the window.

    Attributes:
        margins: the zeros before and behind the data.
        strides: from one position to the next.
        dilations: from one place in the window to the next.
        counts: number of positions.
    """

    margins: Sequence[tuple[int, int]]
    strides: Sequence[int]
    dilations: Sequence[int]
    counts: Sequence[int]

    @classmethod
    def of(cls, node: NodeDef, lengths: Sequence[int], window: Sequence[int]) -> "_Positions":
        """Returns those of a node on data of these lengths."""
        strides, dilations = spatial(node, "strides"), spatial(node, "dilations")
        reach = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]
        margins = [_margin(node, axis, lengths[axis], reach[axis], strides[axis]) for axis in range(len(window))]
        counts = [
            (sum(margin) + length - size) // stride + 1
            for margin, length, size, stride in zip(margins, lengths, reach, strides, strict=True)
        ]
        return cls(margins, strides, dilations, counts)


def taps(node: NodeDef, data: np.ndarray, window: Sequence[int]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yields per place in the window its values of zero-padded data ``[images, *lengths, channels]``."""
    at = _Positions.of(node, data.shape[1:-1], window)
    padded = np.pad(data, [(0, 0), *at.margins, (0, 0)])
    for place in np.ndindex(*window):
        starts = [index * dilation for index, dilation in zip(place, at.dilations, strict=True)]
        seen = [
            slice(start, start + (count - 1) * stride + 1, stride)
            for start, count, stride in zip(starts, at.counts, at.strides, strict=True)
        ]
        yield place, padded[(slice(None), *seen)]


def window_rows(node: NodeDef, data: np.ndarray, window: Sequence[int], sample: Sample) -> np.ndarray:
    """Returns the values of a window at evenly spread positions, [places in the window, positions, channels].

    Only these values are touched, as there may be a hundred times as many.
    """
    data = to_channels_last(node, data)
    lengths = data.shape[1:-1]
    at = _Positions.of(node, lengths, window)
    images, *chosen = spread((len(data), *at.counts), sample)
    rows = np.empty((math.prod(window), len(images), data.shape[-1]), data.dtype)
    for row, place in zip(rows, np.ndindex(*window), strict=True):
        indices = [
            position * stride + index * dilation - before
            for position, stride, index, dilation, (before, _) in zip(
                chosen, at.strides, place, at.dilations, at.margins, strict=True
            )
        ]
        outside = [(index < 0) | (index >= length) for index, length in zip(indices, lengths, strict=True)]
        inside = [np.clip(index, 0, length - 1) for index, length in zip(indices, lengths, strict=True)]
        row[:] = data[(images, *inside)]
        row[np.logical_or.reduce(outside)] = 0
    return rows


def pads(node: NodeDef, weights: Sequence[int]) -> bool:
    """Tells whether filters of a shape, ``[*window, ., .]``, reach beyond the data."""
    padding = attribute(node, "padding").s.decode()
    if padding == "EXPLICIT":
        return any(attribute(node, "explicit_paddings").list.i)
    return padding == "SAME" and max(weights[:-2]) > 1


def margins(node: NodeDef, data: Sequence[int | None], weights: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
    """Returns the zeros before and behind each axis of the window; None if they depend on a length that is not known.

    Args:
        node: a convolution.
        data: the shape of its data.
        weights: the shape of its filters, ``[*window, ., .]``.
    """
    first = 1 if data_format(node) == "NHWC" else 2
    found = []
    sizes = zip(weights[:-2], spatial(node, "strides"), spatial(node, "dilations"), strict=True)
    for axis, (size, stride, dilation) in enumerate(sizes):
        length, reach = data[first + axis], (size - 1) * dilation + 1
        if length is None and attribute(node, "padding").s == b"SAME" and stride > 1 and reach > 1:
            return None
        # With a stride of 1 any length gives the same, as long as it is one.
        found.append(_margin(node, axis, 1 if length is None else length, reach, stride))
    return tuple(found)


def places(node: NodeDef, lengths: Sequence[int], window: Sequence[int]) -> tuple[int, ...]:
    """Returns how many positions the window of a node has per axis, on data of these lengths."""
    return tuple(_Positions.of(node, lengths, window).counts)


def beyond(length: int, reach: int, stride: int) -> int:
    """Returns how many places windows reach beyond an axis that is padded "SAME"; below 0, how many they do not reach.

    Args:
        length: of the axis.
        reach: how many places a window spans, gaps included.
        stride: from one position to the next.
    """
    return (-(-length // stride) - 1) * stride + reach - length


def _margin(node: NodeDef, axis: int, length: int, reach: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and behind an axis, counted without that of the images."""
    padding = attribute(node, "padding").s.decode()
    if padding == "SAME":
        total = max(beyond(length, reach, stride), 0)
        return total // 2, total - total // 2
    if padding == "EXPLICIT":
        explicit = attribute(node, "explicit_paddings").list.i
        start = 2 * (axis + (1 if data_format(node) == "NHWC" else 2))
        return int(explicit[start]), int(explicit[start + 1])
    return 0, 0
