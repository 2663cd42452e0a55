"""The float model that everything starts from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.fusion import FusedGraph, fuse
from amct_tensorflow.graph.model_file import check_not_quantized, check_outputs, read_graph_def
from amct_tensorflow.graph.view import GraphView


@dataclass(frozen=True, eq=False)
class FloatModel:
    """The original model, checked, and what its layers are."""

    path: Path
    graph_def: GraphDef
    view: GraphView
    outputs: tuple[str, ...]

    @classmethod
    def load(cls, path: str | Path, outputs: Sequence[str]) -> "FloatModel":
        """Reads a frozen float model.

        Raises:
            ModelError: the file is no float model, or does not have one of ``outputs``.
        """
        graph_def = read_graph_def(path)
        view = GraphView(graph_def)
        check_not_quantized(view, path)
        check_outputs(view, outputs, path)
        return cls(Path(path), graph_def, view, tuple(outputs))

    def fuse(self, unfused: Collection[str] = ()) -> FusedGraph:
        """Fuses the layers with what follows them, but for the BatchNorm behind ``unfused`` ones."""
        return fuse(self.graph_def, keep=self.outputs, skip_fusion_layers=unfused)
