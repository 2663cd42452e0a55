"""The float model that everything starts from."""

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.fusion import FusedGraph, fuse
from amct_tensorflow.graph.layers import LayerSpec, find_layers
from amct_tensorflow.graph.model_file import check_not_quantized, check_outputs, import_graph, read_model
from amct_tensorflow.graph.view import GraphView


class FloatModel:
    """A float model in inference form, checked: read once, indexed once, and imported at most once.

    Attributes:
        view: index of its nodes.
        outputs: the operators asked for.
        source: what messages call it: its path, if it has one.
    """

    def __init__(self, view: GraphView, outputs: Sequence[str], source: str | Path, graph: tf.Graph | None) -> None:
        """Takes a graph that ``source`` names in messages; ``load`` and ``of_graph`` are the ways to get here.

        Raises:
            ModelError: it is quantized already, or does not have one of ``outputs``.
        """
        check_not_quantized(view, source)
        check_outputs(view, outputs, source)
        self.view = view
        self.outputs = tuple(outputs)
        self.source = source
        self._given = graph
        self._fused: dict[frozenset[str], FusedGraph] = {}

    @classmethod
    def load(cls, path: str | Path, outputs: Sequence[str]) -> "FloatModel":
        """Reads a frozen float model.

        Args:
            path: a binary GraphDef (``.pb``).
            outputs: output operators, without ``:0``.

        Raises:
            ModelNotFoundError: there is no such file.
            ModelError: the file is no float model, or does not have one of ``outputs``.
        """
        return cls(read_model(path), outputs, path, None)

    @classmethod
    def of_graph(cls, graph: tf.Graph, outputs: Sequence[str] = ()) -> "FloatModel":
        """Takes a live graph of the caller's.

        Raises:
            ModelError: it is quantized already, or does not have one of ``outputs``.
        """
        return cls(GraphView(graph.as_graph_def()), outputs, "the graph", graph)

    @property
    def graph_def(self) -> GraphDef:
        """The model as its file has it."""
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
