"""A float graph in canonical form, and what its nodes stand for."""

from collections.abc import Mapping
from dataclasses import dataclass

from amct_tensorflow.graph.view import GraphView


@dataclass(frozen=True, eq=False)
class PreparedGraph:
    """A float graph in canonical form.

    A node that has the name of an original node has the same value.

    Attributes:
        view: the graph, indexed.
        origins: per node that is no original one, the original nodes it stands for.
    """

    view: GraphView
    origins: Mapping[str, tuple[str, ...]]

    def original_names(self, name: str) -> tuple[str, ...]:
        """Returns the original nodes that a node stands for."""
        return self.origins.get(name, (name,))
