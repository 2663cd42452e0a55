"""What the references of the ops that slide a window over an image have in common."""

from collections.abc import Iterator, Sequence

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.op_types.op_type import data_format
from amct_tensorflow.graph.view import attribute

Pair = tuple[int, int]


def spatial(node: NodeDef, name: str) -> Pair:
    """Returns height and width of an attribute with one number per axis, such as ``strides``; 1 if it is missing."""
    values = attribute(node, name).list.i or (1, 1, 1, 1)
    start = 1 if data_format(node) == "NHWC" else 2
    return int(values[start]), int(values[start + 1])


def to_nhwc(node: NodeDef, data: np.ndarray) -> np.ndarray:
    """Returns the data of a node in NHWC."""
    return data if data_format(node) == "NHWC" else np.moveaxis(data, 1, -1)


def from_nhwc(node: NodeDef, data: np.ndarray) -> np.ndarray:
    """Returns NHWC data in the data format of a node."""
    return data if data_format(node) == "NHWC" else np.moveaxis(data, -1, 1)


def taps(node: NodeDef, data: np.ndarray, window: Pair) -> Iterator[tuple[Pair, np.ndarray]]:
    """Yields per position in the window what it sees of zero-padded NHWC data, [N, rows, columns, channels]."""
    strides, dilations = spatial(node, "strides"), spatial(node, "dilations")
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]
    pads = [(0, 0), *(_pads(node, axis, data.shape[axis + 1], reach[axis], strides[axis]) for axis in (0, 1)), (0, 0)]
    padded = np.pad(data, pads)
    counts = [(padded.shape[axis + 1] - reach[axis]) // strides[axis] + 1 for axis in (0, 1)]
    for row in range(window[0]):
        for column in range(window[1]):
            starts = row * dilations[0], column * dilations[1]
            rows, columns = (
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(starts, counts, strides, strict=True)
            )
            yield (row, column), padded[:, rows, columns]


def pads(node: NodeDef, weights: Sequence[int]) -> bool:
    """Tells whether filters of a shape, [height, width, ...], reach beyond the data."""
    padding = attribute(node, "padding").s.decode()
    if padding == "EXPLICIT":
        return any(attribute(node, "explicit_paddings").list.i)
    return padding == "SAME" and max(weights[:2]) > 1


def _pads(node: NodeDef, axis: int, length: int, reach: int, stride: int) -> Pair:
    """Returns the zeros before and behind an axis (0: height, 1: width)."""
    padding = attribute(node, "padding").s.decode()
    if padding == "SAME":
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        return total // 2, total - total // 2
    if padding == "EXPLICIT":
        explicit = attribute(node, "explicit_paddings").list.i
        start = 2 * (axis + (1 if data_format(node) == "NHWC" else 2))
        return int(explicit[start]), int(explicit[start + 1])
    return 0, 0
