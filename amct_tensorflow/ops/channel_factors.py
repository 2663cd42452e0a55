"""How factors per channel go through ops: a node computes the same of tensors that are divided by them.

A tensor ``x`` is divided by factors that a layout names. A node may pass them on, from an input to its output or back:

    Relu(x / f) = Relu(x) / f        x / f + y / f = (x + y) / f        (x / f) * y = (x * y) / f

Or it may take them in, at its input or its output, if it multiplies by a constant:

    (x / f) * (c * f) = x * c        x * (c / f) = (x * c) / f

So gamma of a LayerNorm, a gain, a LayerScale and the 1/6 of a hard swish take in factors of both sides. What adds a
constant passes factors on, and its constant is divided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, Shape

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


def shape_at(view: GraphView, node: NodeDef, place: int) -> Shape | None:
    """Returns the shape of an input of a node, or of its ``OUTPUT``."""
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
        if moved is None or not fits(shape_at(view, node, other), moved):
            return []
        return [Way({place: layout, other: moved})]

    return Factors(ways)


def _of_rank(layout: Layout, rank: int) -> Layout | None:
    """Returns the layout of a tensor that is broadcast, or of what it is broadcast to; None if it lacks axes."""
    surplus = layout.ndim - rank
    if any(length > 1 for length in layout.shape[: max(surplus, 0)]):
        return None
    return layout.reshape(layout.shape[surplus:] if surplus > 0 else (1,) * -surplus + layout.shape)


def operand(view: GraphView, text: str, layout: Layout) -> Layout | None:
    """Returns the layout of an operand of a node with a layout; None if it is broadcast along channels."""
    shape = view.shape(text)
    own = None if shape is None else _of_rank(layout, len(shape))
    return own if own is not None and fits(shape, own) else None


def of_output(view: GraphView, node: NodeDef, layout: Layout) -> Layout | None:
    """Returns the layout of the output of an elementwise node with that of one of its operands."""
    return operand(view, node.name, layout)


def tied(view: GraphView, node: NodeDef, layout: Layout, operands: Sequence[int]) -> list[Way]:
    """All operands and the output are divided; those that are constants change."""
    shared = of_output(view, node, layout)
    if shared is None:
        return []
    divided, constants = {OUTPUT: shared}, {}
    for index in operands:
        constant = view.constant(node.input[index])
        if constant is None:
            own = operand(view, node.input[index], shared)
            if own is None:
                return []
            divided[index] = own
        elif constant.any():
            constants[index] = (shared, -1)
    return [Way(divided, constants)]
