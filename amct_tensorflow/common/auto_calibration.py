"""What clients derive their evaluators, strategies and sensitivities from."""

from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.sensitivity import CosineSimilaritySensitivity, SensitivityBase
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy

__all__ = [
    "AutoCalibrationEvaluatorBase",
    "AutoCalibrationStrategyBase",
    "BinarySearchStrategy",
    "CosineSimilaritySensitivity",
    "SensitivityBase",
]
