"""The base classes of clients' evaluators, strategies and sensitivities."""

from typing import Any

from amct_tensorflow.devices.device_table import Device
from amct_tensorflow.devices.rungs import A16W8, FLOAT, FP16, INT8, Rung
from amct_tensorflow.errors import UnsupportedError
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.predictive import PredictiveSearch
from amct_tensorflow.search.sensitivity.measures import (
    CosineSimilaritySensitivity,
    OutputDivergenceSensitivity,
    SensitivityBase,
)
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy, SearchKnowledge

__all__ = [
    "A16W8",
    "FLOAT",
    "FP16",
    "INT8",
    "AccuracyBasedAutoCalibrationBase",
    "AutoCalibrationEvaluatorBase",
    "AutoCalibrationStrategyBase",
    "BinarySearchStrategy",
    "CosineSimilaritySensitivity",
    "Device",
    "OutputDivergenceSensitivity",
    "PredictiveSearch",
    "Rung",
    "SearchKnowledge",
    "SensitivityBase",
]


class AccuracyBasedAutoCalibrationBase:
    """The original's search as a class to derive from; here strategies and sensitivities are what can be replaced."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Raises UnsupportedError."""
        raise UnsupportedError(
            "AccuracyBasedAutoCalibrationBase is not supported. Call accuracy_based_auto_calibration; its strategy and "
            "sensitivity may be instances of your own classes."
        )
