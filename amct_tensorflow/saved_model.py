"""The files of a quantized model: ``<prefix>_quantized.pb`` and ``<prefix>_quant.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.files import write_atomically
from amct_tensorflow.graph.fusion import FusedGraph, fuse
from amct_tensorflow.graph.model_file import check_not_quantized, check_outputs, read_graph_def
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.node_map import dump_node_map
from amct_tensorflow.quantized_graph import QuantizedGraph
from amct_tensorflow.record import LayerFactors


@dataclass(frozen=True)
class ModelPaths:
    """Where a quantized model goes."""

    model: Path
    node_map: Path

    @classmethod
    def of(cls, save_path: str | Path) -> "ModelPaths":
        """Splits ``save_path`` into folder and prefix; without a prefix the names are the bare ones (spec 1.1)."""
        text = str(save_path)
        folder, prefix = (Path(text), "") if text.endswith("/") or not text else (Path(text).parent, Path(text).name)
        prefix = f"{prefix}_" if prefix else ""
        return cls(folder / f"{prefix}quantized.pb", folder / f"{prefix}quant.json")


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

    def fuse(self, factors: Mapping[str, LayerFactors]) -> FusedGraph:
        """Fuses as the record says: its factors are those of the fused layers (spec section 4)."""
        skipped = [name for name, layer in factors.items() if layer.skip_fusion]
        return fuse(self.graph_def, keep=self.outputs, skip_fusion_layers=skipped)


def write_quantized_model(paths: ModelPaths, quantized: QuantizedGraph) -> None:
    """Writes the model and its node map, each whole or not at all."""
    write_atomically(paths.model, quantized.model)
    write_atomically(paths.node_map, dump_node_map(quantized))
