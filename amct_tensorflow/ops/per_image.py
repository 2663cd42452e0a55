"""Which op types compute every image by itself: where the first axis of data counts images, so does that of the output.

A trait says it of a node, of whose inputs it is known which have an axis that counts images. What it denies may be true
all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, Shape, attribute, data_inputs


@dataclass(frozen=True)
class PerImage:
    """Computes every image by itself.

    Attributes:
        holds: takes a graph, a node of it, and per input whether its first axis counts images, as that of one of them
            does; tells whether the node computes every image by itself.
    """

    holds: Callable[[GraphView, NodeDef, Sequence[bool]], bool]


def _is_data_alone(_view: GraphView, _node: NodeDef, counting: Sequence[bool]) -> bool:
    """The first input holds images, and no other one, such as weights, does."""
    return counting[0] and not any(counting[1:])


def _slides(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    """No window reaches over several images, and none is left out."""
    first = [attribute(node, name).list.i[:1] for name in ("ksize", "strides", "dilations")]
    return _is_data_alone(view, node, counting) and all(list(each) in ([], [1]) for each in first)


def _normalizes(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    """Means and variances are given, not those of the batch, as they are in training, the default."""
    is_inference = "is_training" in node.attr and not node.attr["is_training"].b
    return is_inference and _is_data_alone(view, node, counting)


def _multiplies(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    return _is_data_alone(view, node, counting) and not attribute(node, "transpose_a").b


def _reduces(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    """The axes that vanish are known, and images are not among them."""
    axes, shape = view.constant(node.input[1]), view.shape(node.input[0])
    return counting[0] and _are_others(shape, axes)


def _squeezes(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    """Without names for them, all axes of length 1 vanish, which that of images may be."""
    axes = np.array(attribute(node, "squeeze_dims").list.i, np.int64)
    return counting[0] and bool(axes.size) and _are_others(view.shape(node.input[0]), axes)


def _reshapes(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    """Every image keeps all its values, whatever the number of images."""
    shape, target = view.shape(node.input[0]), view.constant(node.input[1])
    if not counting[0] or not shape or target is None or not target.size or target[0] != -1:
        return False
    own = [-1 if length is None else length for length in shape[1:]]
    return min(own, default=1) > 0 and prod(own) == int(np.prod(target[1:], dtype=np.int64))


def _pads(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    widths = view.constant(node.input[1])
    return _is_data_alone(view, node, counting) and widths is not None and not widths[:1].any()


def _lines_up(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    """All inputs hold images, and lie beside each other along another axis."""
    *parts, axis = data_inputs(node.input)
    return all(counting[:-1]) and _are_others(view.shape(parts[0]), view.constant(axis))


def _broadcasts(view: GraphView, node: NodeDef, counting: Sequence[bool]) -> bool:
    """Images meet those of the same number; what holds none has no first axis beside theirs, or a length of 1."""
    shapes = [view.shape(text) for text in data_inputs(node.input)]
    known = [shape for shape in shapes if shape is not None]
    rank = max(map(len, known), default=0)
    return len(known) == len(shapes) and all(
        len(shape) == rank if counts else len(shape) < rank or shape[0] == 1
        for shape, counts in zip(known, counting, strict=True)
    )


def _are_others(shape: Shape | None, axes: np.ndarray | None) -> bool:
    """Tells whether axes of a tensor are known, and the first one is not among them."""
    return bool(shape) and axes is not None and not np.any(np.asarray(axes) % len(shape or ()) == 0)


OF_DATA = PerImage(_is_data_alone)
WINDOWS = PerImage(_slides)
NORMALIZATION = PerImage(_normalizes)
PRODUCT = PerImage(_multiplies)
REDUCTION = PerImage(_reduces)
SQUEEZE = PerImage(_squeezes)
RESHAPE = PerImage(_reshapes)
PADDING = PerImage(_pads)
CONCATENATION = PerImage(_lines_up)
BROADCAST = PerImage(_broadcasts)
