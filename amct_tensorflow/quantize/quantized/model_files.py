"""The files of a quantized model: ``<prefix>_quantized.pb``, ``<prefix>_quant.json``, ``<prefix>_frozen.pb``."""

from dataclasses import dataclass
from pathlib import Path

from amct_tensorflow.io.files import write_atomically

MODEL_ENDING = "quantized.pb"
_NODE_MAP_ENDING = "quant.json"


@dataclass(frozen=True)
class ModelPaths:
    """Where a quantized model goes.

    Attributes:
        model: the quantized model.
        node_map: which original nodes each of its nodes stands for.
        frozen: the original model, if it was frozen on the way; it is what the node map refers to.
    """

    model: Path
    node_map: Path
    frozen: Path

    @classmethod
    def of(cls, save_path: str | Path) -> "ModelPaths":
        """Splits ``save_path`` into folder and prefix; without a prefix the names are the bare ones (spec 1.1)."""
        text = str(save_path)
        folder, prefix = (Path(text), "") if text.endswith("/") or not text else (Path(text).parent, Path(text).name)
        prefix = f"{prefix}_" if prefix else ""
        return cls(
            folder / f"{prefix}{MODEL_ENDING}", folder / f"{prefix}{_NODE_MAP_ENDING}", folder / f"{prefix}frozen.pb"
        )


@dataclass(frozen=True)
class FileContent:
    """What the bytes of a quantized model's file are; together they are the file.

    Attributes:
        int8_weights: weights and tables in int8.
        float_weights: floats of what stayed in float.
        other_constants: scales and biases of the layers in int8, numbers, shapes and the like.
        names: names of nodes, and these names again where other nodes read them.
        rest: op types, attributes, and the functions that make TensorFlow run it.
    """

    int8_weights: int
    float_weights: int
    other_constants: int
    names: int
    rest: int


def node_map_of(model: Path) -> Path | None:
    """Returns where the node map of a quantized model is written; None if the model has been given another name."""
    if not model.name.endswith(MODEL_ENDING):
        return None
    return model.with_name(model.name.removesuffix(MODEL_ENDING) + _NODE_MAP_ENDING)


def prefix_of(model: Path) -> Path:
    """Returns folder and prefix of what is made of a quantized model: ``out/net`` for ``out/net_quantized.pb``.

    A model without a prefix gives its own name, as files need one: ``out/quantized`` for ``out/quantized.pb``.
    """
    return model.with_name(model.name.removesuffix(f"_{MODEL_ENDING}").removesuffix(".pb"))


def write_quantized_model(paths: ModelPaths, model: bytes, node_map: str, frozen: bytes | None) -> None:
    """Writes the model and its node map, each whole or not at all.

    Args:
        paths: where to.
        model: the quantized model.
        node_map: which original nodes each of its nodes stands for, as its file has it.
        frozen: the original model, if no file has it as it was frozen.
    """
    if frozen is not None:
        write_atomically(paths.frozen, frozen)
    write_atomically(paths.model, model)
    write_atomically(paths.node_map, node_map)
