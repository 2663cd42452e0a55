"""The float model that everything starts from."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.names import LayerName, OriginalName, PreparedName
from amct_tensorflow.graph.view import GraphView, NamedGraph, upstream
from amct_tensorflow.io.stages import stage
from amct_tensorflow.model.equalization import equalize
from amct_tensorflow.model.fusion import FusedGraph, fuse
from amct_tensorflow.model.fusion_before import fold_before
from amct_tensorflow.model.layers import LayerSpec, find_layers
from amct_tensorflow.model.loading.frozen_graph import FrozenModel
from amct_tensorflow.model.loading.load import load_frozen
from amct_tensorflow.model.model_file import check_not_fake_quantized, check_not_quantized, check_outputs, import_graph
from amct_tensorflow.model.preparation.prepare import prepare
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.model.preparation.prepared_before import keep_prepared, take_prepared
from amct_tensorflow.model.tables import Table, find_tables


class FloatModel:
    """A float model in inference form, checked: read, indexed, prepared and imported once each.

    Attributes:
        original: index of the nodes that its file has.
        outputs: the operators asked for.
        source: what messages call it: its path, if it has one.
        frozen: the graph as it is to stand in a file, if it was frozen when it was loaded; else None.
        given_bytes: the size of the files from which it was frozen; else None.
    """

    def __init__(
        self,
        view: GraphView,
        outputs: Sequence[str],
        source: str | Path,
        *,
        graph: tf.Graph | None = None,
        frozen: FrozenModel | None = None,
    ) -> None:
        """Takes a graph, which messages call ``source``; callers use ``load`` or ``of_graph``.

        Raises:
            ModelError: it is quantized already, or does not have one of ``outputs``.
        """
        check_not_quantized(view, source)
        check_not_fake_quantized(view, source)
        check_outputs(view, outputs, source, frozen.outputs if frozen else {})
        self.original = cast(NamedGraph[OriginalName], view)
        self.outputs = tuple(outputs)
        self.source = source
        self.frozen = frozen.data if frozen and frozen.frozen_now else None
        self.given_bytes = frozen.given_bytes if frozen else None
        self._given = graph
        self._fused: dict[tuple[object, ...], FusedGraph] = {}

    @classmethod
    @stage("reading the model")
    def load(cls, path: str | Path, outputs: Sequence[str]) -> "FloatModel":
        """Reads a frozen float model, or freezes one of another form.

        Args:
            path: as for ``load_frozen``.
            outputs: output operators of the frozen graph, without ``:0``.

        Raises:
            ModelNotFoundError: there is nothing.
            ModelError: there is no float model, one that cannot be frozen, or one without one of ``outputs``.
        """
        frozen = load_frozen(path)
        return cls(GraphView(frozen.graph_def), outputs, path, frozen=frozen)

    @classmethod
    def of_graph(cls, graph: tf.Graph, outputs: Sequence[str] = ()) -> "FloatModel":
        """Takes a live graph of the caller's.

        Raises:
            ModelError: it is quantized already, or does not have one of ``outputs``.
        """
        return cls(GraphView(graph.as_graph_def()), outputs, "the graph", graph=graph)

    def with_outputs(self, outputs: Sequence[str]) -> "FloatModel":
        """Returns the same model, asked for other outputs.

        Raises:
            ModelError: it does not have one of them.
        """
        other = FloatModel(self.original, outputs, self.source, graph=self._given)
        other.frozen, other.given_bytes = self.frozen, self.given_bytes
        return other

    @property
    def graph_def(self) -> GraphDef:
        """The model as it was loaded."""
        return self.original.graph_def

    @property
    def original_bytes(self) -> int:
        """The size of the original: of its frozen graph, or of the files that were given if these take less."""
        frozen = int(self.graph_def.ByteSize())
        return frozen if self.given_bytes is None else min(frozen, self.given_bytes)

    @cached_property
    def graph(self) -> tf.Graph:
        """The original model as a ``tf.Graph``. There is one, to which calibration adds its taps.

        Raises:
            ModelError: TensorFlow refuses the model.
        """
        return self._given or import_graph(self.graph_def, self.source)

    def forget_graph(self) -> None:
        """Frees the graph, which has all weights; there is another one for who asks."""
        self.__dict__.pop("graph", None)

    def forget_fused(self) -> None:
        """Frees the fused form likewise."""
        self._fused = {}

    @cached_property
    def _prepared(self) -> PreparedGraph:
        known = None if self._given is None else take_prepared(self._given, self.original, self.outputs)
        return known or prepare(self.original, self.outputs, self.source)

    def keep_prepared(self) -> None:
        """Leaves what the caller's graph was prepared to for the next model of the same graph."""
        if self._given is not None:
            keep_prepared(self._given, self.graph_def, self._prepared)

    @property
    def view(self) -> NamedGraph[PreparedName]:
        """Index of the prepared model, with shapes.

        Raises:
            ModelError: the model cannot be prepared.
        """
        return cast(NamedGraph[PreparedName], self._prepared.shaped)

    @property
    def outline(self) -> tf.Graph:
        """The prepared model as a ``tf.Graph`` without its weights; it tells shapes and types."""
        return self._prepared.outline

    @cached_property
    def op_types(self) -> dict[str, str]:
        """The op types of all prepared nodes, and of the original ones that preparation removed, by name."""
        return {**self.original.op_types(), **self.view.op_types()}

    @cached_property
    def layers(self) -> list[LayerSpec]:
        """Its quantizable layers, in its order."""
        renamed = self._prepared.renamed
        return [replace(layer, written_as=renamed.get(PreparedName(layer.name))) for layer in find_layers(self.view)]

    @cached_property
    def tables(self) -> list[Table]:
        """Its constants that are looked up, in its order."""
        return find_tables(self.view, self.outputs)

    def fuse(
        self, unfused: Collection[LayerName] = (), balance: Mapping[LayerName, tuple[float, ...]] | None = None
    ) -> FusedGraph:
        """Folds the nodes around each layer into it, and scales the equalization groups between the layers.

        Args:
            unfused: layers next to which BatchNorms are kept.
            balance: per layer by what to divide its input, [Cin]; see ``equalize``.

        Raises:
            RecordError: the model cannot be balanced so.
        """
        kept, factors = frozenset(unfused), dict(balance or {})
        key = (kept, frozenset(factors.items()))
        if key not in self._fused:
            fused = self._fused.get((kept, frozenset())) or self._fold(kept)
            self._fused = {key: equalize(fused, factors, self.outputs)}  # the last alone: each has all the weights
        return self._fused[key]

    def _fold(self, unfused: Collection[LayerName]) -> FusedGraph:
        behind = fuse(self.view, keep=self.outputs, unfused=unfused, origins=self._prepared.origins)
        return fold_before(behind, self.outputs, unfused)

    def original_upstream(self, names: Iterable[PreparedName]) -> set[OriginalName]:
        """Returns the original nodes on which prepared nodes depend."""
        originals = {original for name in names for original in self._prepared.original_names(name)}
        return {OriginalName(name) for name in upstream(self.original.nodes, originals & self.original.nodes.keys())}
