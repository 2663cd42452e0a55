"""Functions of the original toolkit that are not this tool: training, decomposition, and what needs an NPU.

They exist with the original's arguments, so that a script which uses one is told what to use instead. Whatever it
passes, they raise ``UnsupportedError``.
"""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, NoReturn

from amct_tensorflow.errors import UnsupportedError

_TRAINS_QUANTIZED = (
    "it prepares a model for training, and this tool quantizes trained ones. Use accuracy_based_auto_calibration, "
    "which needs no training; or train with TensorFlow's own fake quantizers (such as those of "
    "tensorflow-model-optimization), freeze the model, and call convert_qat_model."
)
_REMAINS_TO_PRUNE = (
    "Prune while training (such as with tensorflow-model-optimization), freeze the model, and quantize that."
)
_PRUNES = f"it prunes channels and trains what is left, and this tool changes no network. {_REMAINS_TO_PRUNE}"
_COMPRESSES = f"it prunes and quantizes by training. {_REMAINS_TO_PRUNE}"
_DECOMPOSES = (
    "it splits convolutions in two, which are trained again, and this tool changes no network. Quantize the model as "
    "it is, or freeze what another tool has decomposed, and quantize that."
)
_MIXES = (
    "it chooses between bit widths for an NPU. Use accuracy_based_auto_calibration, which chooses per layer between "
    "int8 and float."
)
_TIMES = (
    "it times layers on an NPU, and no product supports it since 9.1. Use accuracy_based_auto_calibration, and leave "
    "out layers that turn out to be slow with skip_layers of create_quant_config."
)
_RUNS_ON_NPU = (
    "it calibrates on an NPU. Use {}, which calibrates on CPU or GPU; the saved model runs on the NPU as well."
)


def _unsupported(name: str, reason: str, *arguments: str, **defaults: object) -> Callable[..., NoReturn]:
    """Makes a function that says why it is none.

    Args:
        name: its name.
        reason: why, as the rest of a sentence; and what to use instead.
        arguments: its arguments without defaults.
        defaults: those with, and their defaults.
    """
    message = f"{name} is not supported: {reason}"

    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnsupportedError(message)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Is not supported: {reason}\n\nRaises:\n    UnsupportedError: always."
    required = [Parameter(argument, Parameter.POSITIONAL_OR_KEYWORD) for argument in arguments]
    optional = [Parameter(each, Parameter.POSITIONAL_OR_KEYWORD, default=value) for each, value in defaults.items()]
    refuse.__signature__ = Signature([*required, *optional])  # type: ignore[attr-defined]  # what help() shows
    return refuse


_SAVES = ("pb_model", "outputs", "record_file", "save_path")

create_quant_retrain_config = _unsupported(
    "create_quant_retrain_config", _TRAINS_QUANTIZED, "config_file", "graph", config_defination=None
)
create_quant_retrain_model = _unsupported(
    "create_quant_retrain_model", _TRAINS_QUANTIZED, "graph", "config_file", "record_file"
)
save_quant_retrain_model = _unsupported("save_quant_retrain_model", _TRAINS_QUANTIZED, *_SAVES)

create_prune_retrain_model = _unsupported(
    "create_prune_retrain_model", _PRUNES, "graph", "outputs", "record_file", "config_defination"
)
save_prune_retrain_model = _unsupported("save_prune_retrain_model", _PRUNES, *_SAVES)
auto_channel_prune_search = _unsupported(
    "auto_channel_prune_search", _PRUNES, "graph", "outputs", "config_defination", "input_data", "output_cfg"
)

create_compressed_retrain_model = _unsupported(
    "create_compressed_retrain_model", _COMPRESSES, "graph", "config_defination", "outputs", "record_file"
)
save_compressed_retrain_model = _unsupported("save_compressed_retrain_model", _COMPRESSES, *_SAVES)

auto_decomposition = _unsupported("auto_decomposition", _DECOMPOSES, "meta_path", "ckpt_path", "save_path")
decompose_graph = _unsupported("decompose_graph", _DECOMPOSES, "save_path")

auto_mixed_precision_search = _unsupported(
    "auto_mixed_precision_search", _MIXES, "model_file", "outputs", "config", "save_dir", "evaluator", "sensitivity"
)
perf_based_auto_calibration = _unsupported(
    "perf_based_auto_calibration", _TIMES,
    "original_model_file", "quantize_model_file", "outputs", "sampler_config_file", "save_dir",
    strategy="BatchRollBack",
)  # fmt: skip

create_quant_config_ascend = _unsupported(
    "create_quant_config_ascend", _RUNS_ON_NPU.format("create_quant_config"),
    "config_file", "graph", skip_layers=None, activation_offset=True, config_defination=None,
)  # fmt: skip
quantize_model_ascend = _unsupported(
    "quantize_model_ascend", _RUNS_ON_NPU.format("quantize_model"), "graph", "outputs", "config_file", "record_file"
)
save_model_ascend = _unsupported("save_model_ascend", _RUNS_ON_NPU.format("save_model"), *_SAVES)
