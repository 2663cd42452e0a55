"""The files of a quantized model: ``<prefix>_quantized.pb`` and ``<prefix>_quant.json``."""

from dataclasses import dataclass
from pathlib import Path

from amct_tensorflow.quantized.builder import QuantizedGraph
from amct_tensorflow.quantized.node_map import dump_node_map
from amct_tensorflow.storage.files import write_atomically


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


def write_quantized_model(paths: ModelPaths, quantized: QuantizedGraph) -> None:
    """Writes the model and its node map, each whole or not at all."""
    write_atomically(paths.model, quantized.model)
    write_atomically(paths.node_map, dump_node_map(quantized))
