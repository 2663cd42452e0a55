"""A frozen graph, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """A frozen graph, and where it came from.

    Attributes:
        graph_def: the graph.
        source: the path that was given.
        frozen_now: whether it was frozen just now, so that no file has it yet; else the next two are empty, since the
            file of a frozen graph does not tell them.
        inputs: types and shapes of its inputs, by their operators.
        outputs: what the model calls its outputs, by their operators.
    """

    graph_def: GraphDef
    source: Path
    frozen_now: bool
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def data(self) -> bytes:
        """The graph as it stands in its file."""
        return bytes(self.graph_def.SerializeToString(deterministic=True))
