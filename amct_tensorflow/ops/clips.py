"""What clips values to a range: Relu, Relu6, and the larger or smaller of values and a constant."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import data_inputs

_FIXED = {"Relu": (0.0, np.inf), "Relu6": (0.0, 6.0)}


class Clip(NamedTuple):
    """The range to which values are clipped; an infinite end clips nothing."""

    lowest: float
    highest: float

    def then(self, following: "Clip") -> "Clip":
        """Returns what clips as this and another one do, one after the other; where they do not meet, to one value."""
        lowest, highest = (float(np.clip(bound, following.lowest, following.highest)) for bound in self)
        return Clip(lowest, highest)


NO_CLIP = Clip(-np.inf, np.inf)


def as_clip(node: NodeDef, constant: Callable[[str], np.ndarray | None]) -> tuple[Clip, str] | None:
    """Returns how a node clips, and what, as GraphDef writes the input; None if it does something else.

    Args:
        node: the node.
        constant: returns the value of an input, None if it is no constant; bounds are those of rank 0.
    """
    inputs = data_inputs(node.input)
    if node.op in _FIXED:
        return Clip(*_FIXED[node.op]), inputs[0]
    if node.op not in ("Minimum", "Maximum", "ClipByValue"):
        return None
    values = [constant(text) for text in inputs]
    bounds = [float(value) for value in values if value is not None and value.ndim == 0 and not np.isnan(value)]
    data = [text for text, value in zip(inputs, values, strict=True) if value is None]
    if len(data) != 1 or len(bounds) != len(inputs) - 1:
        return None
    if node.op == "Minimum":
        return Clip(-np.inf, bounds[0]), data[0]
    if node.op == "Maximum":
        return Clip(bounds[0], np.inf), data[0]
    return (Clip(bounds[0], np.inf).then(Clip(-np.inf, bounds[1])), data[0]) if data[0] == inputs[0] else None
