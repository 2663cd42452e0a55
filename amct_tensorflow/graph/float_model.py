"""The float model that everything starts from."""

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.fusion import FusedGraph, fuse
from amct_tensorflow.graph.layers import LayerSpec, find_layers
from amct_tensorflow.graph.model_file import check_not_quantized, check_outputs, import_graph
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.loading.frozen_model import FrozenModel
from amct_tensorflow.loading.load import load_frozen


class FloatModel:
    """A float model in inference form, checked: read once, indexed once, and imported at most once.

    Attributes:
        view: index of its nodes.
        outputs: the operators asked for.
        source: what messages call it: its path, if it has one.
        frozen: the graph as it is to stand in a file, if it was frozen when it was loaded; else None.
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
        """Takes a graph that ``source`` names in messages; ``load`` and ``of_graph`` are the ways to get here.

        Raises:
            ModelError: it is quantized already, or does not have one of ``outputs``.
        """
        check_not_quantized(view, source)
        check_outputs(view, outputs, source, frozen.outputs if frozen else {})
        self.view = view
        self.outputs = tuple(outputs)
        self.source = source
        self.frozen = frozen.data if frozen and frozen.frozen_now else None
        self._given = graph
        self._fused: dict[frozenset[str], FusedGraph] = {}

    @classmethod
    def load(cls, path: str | Path, outputs: Sequence[str]) -> "FloatModel":
        """Reads a frozen float model, or freezes one of another form.

        Args:
            path: a frozen graph (``.pb``), the directory of a SavedModel, or a Keras model (``.keras``, ``.h5``).
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

    @property
    def graph_def(self) -> GraphDef:
        """The model as it was loaded."""
        return self.view.graph_def

    @cached_property
    def graph(self) -> tf.Graph:
        """The model as TensorFlow sees it. There is one, to which calibration adds its taps.

        Raises:
            ModelError: TensorFlow refuses the model.
        """
        return self._given or import_graph(self.graph_def, self.source)

    @cached_property
    def layers(self) -> list[LayerSpec]:
        """Its quantizable layers, in its order."""
        return find_layers(self.graph, self.view)

    def fuse(self, unfused: Collection[str] = ()) -> FusedGraph:
        """Fuses the layers with what follows them, but for the BatchNorm behind ``unfused`` ones."""
        kept = frozenset(unfused)
        if kept not in self._fused:
            self._fused[kept] = fuse(self.view, keep=self.outputs, unfused=kept)
        return self._fused[kept]
