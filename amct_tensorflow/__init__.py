"""Accuracy-based post-training quantization of frozen TensorFlow models.

The names here, and those in ``common`` and ``utils``, are those of the original toolkit; see docs/compatibility.md.
They are imported when they are first used: TensorFlow takes seconds, and a program that wants it quiet has to say so
before.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from amct_tensorflow.original.unsupported import (
    auto_channel_prune_search,
    auto_mixed_precision_search,
    create_compressed_retrain_model,
    create_prune_retrain_model,
    create_quant_config_ascend,
    create_quant_retrain_config,
    create_quant_retrain_model,
    perf_based_auto_calibration,
    quantize_model_ascend,
    save_compressed_retrain_model,
    save_model_ascend,
    save_prune_retrain_model,
    save_quant_retrain_model,
)

if TYPE_CHECKING:
    from amct_tensorflow.accuracy_based_auto_calibration import AutoCalibrationResult, accuracy_based_auto_calibration
    from amct_tensorflow.devices.graph_check import DeviceCheck
    from amct_tensorflow.errors import AmctError
    from amct_tensorflow.log import set_logging_level
    from amct_tensorflow.model.float_model import FloatModel
    from amct_tensorflow.quantization import (
        convert_model,
        convert_qat_model,
        create_quant_config,
        make_quant_config,
        quantize_model,
        quantize_preprocess,
        quantized_preprocess,
        save_model,
    )
    from amct_tensorflow.results.model_check import check
    from amct_tensorflow.search.graph_evaluator import GraphEvaluator

__version__ = "0.1.0"
__path__.append(str(Path(__file__).parent / "original"))

__all__ = [
    "AmctError",
    "AutoCalibrationResult",
    "DeviceCheck",
    "FloatModel",
    "GraphEvaluator",
    "accuracy_based_auto_calibration",
    "auto_channel_prune_search",
    "auto_mixed_precision_search",
    "check",
    "convert_model",
    "convert_qat_model",
    "create_compressed_retrain_model",
    "create_prune_retrain_model",
    "create_quant_config",
    "create_quant_config_ascend",
    "create_quant_retrain_config",
    "create_quant_retrain_model",
    "make_quant_config",
    "perf_based_auto_calibration",
    "quantize_model",
    "quantize_model_ascend",
    "quantize_preprocess",
    "quantized_preprocess",
    "save_compressed_retrain_model",
    "save_model",
    "save_model_ascend",
    "save_prune_retrain_model",
    "save_quant_retrain_model",
    "set_logging_level",
]

_HOMES = {
    "AmctError": "errors",
    "AutoCalibrationResult": "accuracy_based_auto_calibration",
    "DeviceCheck": "devices.graph_check",
    "FloatModel": "model.float_model",
    "GraphEvaluator": "search.graph_evaluator",
    "accuracy_based_auto_calibration": "accuracy_based_auto_calibration",
    "check": "results.model_check",
    "convert_model": "quantization",
    "convert_qat_model": "quantization",
    "create_quant_config": "quantization",
    "make_quant_config": "quantization",
    "quantize_model": "quantization",
    "quantize_preprocess": "quantization",
    "quantized_preprocess": "quantization",
    "save_model": "quantization",
    "set_logging_level": "log",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):  # amct.errors and the like, without an import of their own
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps public functions in place: Python would put a module of the same name there once it is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        is_module = isinstance(value, ModuleType) and _HOMES.get(name) == name
        super().__setattr__(name, getattr(value, name) if is_module else value)


sys.modules[__name__].__class__ = _Package
