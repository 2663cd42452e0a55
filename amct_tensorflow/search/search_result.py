"""How a search ended."""

from dataclasses import dataclass
from typing import Any

from amct_tensorflow.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantized.builder import QuantizedGraph
from amct_tensorflow.quantized.plan import QuantizationPlan
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.statistics import LossInterval
from amct_tensorflow.search.trials import Trial


@dataclass(frozen=True)
class Effort:
    """What a run took.

    Attributes:
        evaluations: number of evaluations.
        reused: number of those that an earlier run had done.
        evaluation_seconds: how long the others took together.
        seconds: how long everything took.
    """

    evaluations: int
    reused: int
    evaluation_seconds: float
    seconds: float


@dataclass(frozen=True, eq=False)
class SearchResult:
    """How a search ended.

    Attributes:
        original: the evaluation of the original model.
        trials: every configuration that was judged, in order, first that with all layers quantized.
        saved: the one to save.
        plan: how its model is quantized.
        quantized: that model, as it was evaluated.
        ranking: per layer, its similarity by the sensitivity asked for.
        float_mac_share: share of the multiply-accumulates that the model does in float.
        interval: confidence interval of its loss; None if the evaluator offers no results per image.
        target_loss: the loss up to which a model satisfies; None if it is not known.
        calibration: what the calibration found of every layer.
        effort: what it took.
        interruption: what stopped the search before its end; None if nothing did.
    """

    original: Evaluation
    trials: tuple[Trial, ...]
    saved: Trial
    plan: QuantizationPlan
    quantized: QuantizedGraph
    ranking: dict[str, float]
    float_mac_share: float
    interval: LossInterval | None
    target_loss: float | None
    calibration: CalibrationResult
    effort: Effort
    interruption: KeyboardInterrupt | None

    @property
    def global_metric(self) -> Any:
        """What ``evaluate`` returned with every enabled layer quantized."""
        return self.trials[0].metric
