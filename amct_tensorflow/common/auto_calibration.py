"""What clients derive their evaluators, strategies and sensitivities from."""

from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.predictive import PredictiveSearch
from amct_tensorflow.search.sensitivity import (
    CosineSimilaritySensitivity,
    OutputDivergenceSensitivity,
    SensitivityBase,
)
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy, SearchKnowledge

__all__ = [
    "AutoCalibrationEvaluatorBase",
    "AutoCalibrationStrategyBase",
    "BinarySearchStrategy",
    "CosineSimilaritySensitivity",
    "OutputDivergenceSensitivity",
    "PredictiveSearch",
    "SearchKnowledge",
    "SensitivityBase",
]
