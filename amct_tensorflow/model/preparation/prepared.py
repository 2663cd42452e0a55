"""A float graph under preparation, and the original nodes that its nodes stand for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import tensorflow as tf

from amct_tensorflow.graph.names import OriginalName, PreparedName
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.outline import import_outline

# Per node of a graph under edit, the original nodes that it stands for.
Origins = dict[str, tuple[OriginalName, ...]]


@dataclass(frozen=True, eq=False)
class PreparedGraph:
    """A float graph under preparation.

    A node that has the name of an original node has the same values, or is among ``origins``.

    Attributes:
        view: the graph, indexed.
        kept: nodes that must stay, with their names: the outputs asked for, and those that nothing reads.
        original: names of the nodes before anything was prepared; no new node gets one of them.
        origins: per node that is new, or that stands for other nodes than itself, the original nodes that it stands
            for.
        renamed: per node that had to leave its name to another one, which has the value asked for, that name.
        source: what messages call the model.
    """

    view: GraphView
    kept: frozenset[OriginalName]
    original: frozenset[OriginalName]
    source: str | Path
    origins: Mapping[PreparedName, tuple[OriginalName, ...]] = field(default_factory=dict)
    renamed: Mapping[PreparedName, OriginalName] = field(default_factory=dict)

    @classmethod
    def of(cls, view: GraphView, outputs: Sequence[str], source: str | Path) -> "PreparedGraph":
        """Returns a graph of which nothing is prepared yet."""
        unread = (name for name in view.nodes if not view.consumers(name))
        kept = frozenset(OriginalName(name) for name in (*outputs, *unread))
        return cls(view, kept, frozenset(OriginalName(name) for name in view.nodes), source)

    def editor(self) -> GraphEditor:
        """Returns the graph for an edit."""
        return GraphEditor(self.view, self.original)

    @cached_property
    def outline(self) -> tf.Graph:
        """The graph as TensorFlow sees it, without its weights.

        Raises:
            ModelError: TensorFlow refuses it.
        """
        return import_outline(self.view.graph_def, self.source)

    @cached_property
    def shaped(self) -> GraphView:
        """The index of the graph with the static shapes that TensorFlow infers."""
        return GraphView(self.view.graph_def, static_shapes(self.outline))

    def original_names(self, name: PreparedName) -> tuple[OriginalName, ...]:
        """Returns the original nodes that a node stands for: itself, unless ``origins`` tells others."""
        return self.origins.get(name, (OriginalName(name),))

    def originals_of(self, names: Iterable[PreparedName]) -> tuple[OriginalName, ...]:
        """Returns the original nodes that several nodes stand for together, each once."""
        return tuple(dict.fromkeys(original for name in names for original in self.original_names(name)))

    def edited(
        self,
        editor: GraphEditor,
        origins: Mapping[str, tuple[OriginalName, ...]] | None = None,
        renamed: Mapping[str, OriginalName] | None = None,
    ) -> "PreparedGraph":
        """Returns the graph after an edit, without the nodes that lost their last reader.

        Args:
            editor: holds the edited graph.
            origins: per new node, the original nodes it stands for.
            renamed: per node that left its name to another, that name.
        """
        view = GraphView(editor.graph_def_for([*self.kept, *editor.names_of("Placeholder", "PlaceholderWithDefault")]))
        together = {**self.origins, **{PreparedName(name): each for name, each in (origins or {}).items()}}
        names = {**self.renamed, **{PreparedName(name): each for name, each in (renamed or {}).items()}}
        return replace(
            self,
            view=view,
            origins={name: each for name, each in together.items() if name in view.nodes},
            renamed={name: each for name, each in names.items() if name in view.nodes},
        )
