"""What clients derive their evaluators, strategies and sensitivities from."""

from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.predictive import PredictiveSearch
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy, SearchKnowledge
from amct_tensorflow.sensitivity.measures import (
    CosineSimilaritySensitivity,
    OutputDivergenceSensitivity,
    SensitivityBase,
)

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
