"""The trials of a search, and its result."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from amct_tensorflow.devices.rungs import Ladder
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.search.configuration import (
    Configuration,
    layers_in_16_bits,
    layers_in_float,
    quantized_layers,
)
from amct_tensorflow.search.evaluator import Evaluation, MetricEval
from amct_tensorflow.search.statistics import LossInterval


@dataclass(frozen=True, eq=False)
class Trial:
    """A configuration with the evaluation and the judgement of its model.

    Attributes:
        configuration: per layer, the rung on which it stands.
        evaluation: what the evaluator gave for the model.
        judged: whether the model satisfies the requirement, and the loss.
        in_integers: whether its execution graph was run, which yields the same.
    """

    configuration: Configuration
    evaluation: Evaluation
    judged: MetricEval
    in_integers: bool = False

    @property
    def quantized(self) -> frozenset[str]:
        """The quantized layers; see ``quantized_layers``."""
        return quantized_layers(self.configuration)

    @property
    def in_float(self) -> int:
        """Number of layers in float."""
        return len(layers_in_float(self.configuration))

    @property
    def in_16_bits(self) -> int:
        """Number of layers that read 16 bits."""
        return len(layers_in_16_bits(self.configuration))

    @property
    def metric(self) -> Any:
        """What ``evaluate`` returned."""
        return self.evaluation.metric

    @property
    def rank(self) -> tuple[bool, float, float, float]:
        """Orders trials from best to worst: satisfying ones by their layers in float and 16 bits, others by loss."""
        satisfied, loss = self.judged
        raised = (self.in_float, self.in_16_bits) if satisfied else (loss, 0)
        return not satisfied, *raised, loss


class Trials:
    """Every configuration that was judged, in order; the first is the one with all layers quantized."""

    def __init__(self) -> None:
        self._trials: dict[frozenset[str], Trial] = {}

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials.values())

    @property
    def first(self) -> Trial:
        """The trial with all layers quantized."""
        return next(iter(self))

    def find(self, quantized: frozenset[str]) -> Trial | None:
        """Returns the trial of a set of quantized layers, None if it has not been judged."""
        return self._trials.get(quantized)

    def add(self, trial: Trial) -> None:
        """Adds a trial."""
        self._trials[trial.quantized] = trial

    def best(self, settled: frozenset[str] = frozenset()) -> Trial:
        """Returns the trial of ``settled`` layers, if there are any and it satisfies; else the best quantized one."""
        wanted = self._trials.get(settled)
        if settled and wanted is not None and wanted.judged.satisfied:
            return wanted
        return min([trial for trial in self if trial.quantized] or list(self), key=lambda trial: trial.rank)


@dataclass(frozen=True)
class RunCost:
    """The cost of a run: evaluations and time.

    Attributes:
        evaluations: number of evaluations.
        reused: number of those that come from an earlier run.
        evaluation_seconds: how long the others took together.
        seconds: how long everything took.
    """

    evaluations: int
    reused: int
    evaluation_seconds: float
    seconds: float


_NO_COST = RunCost(0, 0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    Attributes:
        original: the evaluation of the original model.
        trials: every configuration that was judged, in order, first that with all layers quantized.
        saved: the trial to save.
        plan: the plan of its model.
        quantized: the graph of its model, as it was evaluated.
        ranking: per layer, its similarity by the sensitivity asked for.
        float_mac_share: share of the multiply-accumulates that the model does in float.
        wide_mac_share: share of those that it does with activations of 16 bits.
        calibration: the findings of the calibration.
        rungs: the rungs of the device.
        left_in_float: per layer that stays in float for the sake of the device, why.
        costless: the layers that are in float from the start, as that costs nothing.
        interval: confidence interval of its loss; None if the evaluator offers no results per image.
        target_loss: the loss up to which a model satisfies; None if it is not known.
        cost: the cost of the run.
        interruption: the exception that interrupted the search; None if none did.
    """

    original: Evaluation
    trials: tuple[Trial, ...]
    saved: Trial
    plan: QuantizationPlan
    quantized: QuantizedGraph
    ranking: dict[str, float]
    float_mac_share: float
    wide_mac_share: float
    calibration: CalibrationResult
    rungs: Ladder
    left_in_float: Mapping[LayerName, str] = field(default_factory=dict)
    costless: Collection[LayerName] = ()
    interval: LossInterval | None = None
    target_loss: float | None = None
    cost: RunCost = _NO_COST
    interruption: KeyboardInterrupt | None = None

    @property
    def has_wide_rung(self) -> bool:
        """Whether layers may have been raised to 16 bits."""
        return any(rung.is_wide for rung in self.rungs)

    @property
    def global_metric(self) -> Any:
        """What ``evaluate`` returned with every enabled layer quantized."""
        return self.trials[0].metric
