"""The loop of accuracy-based auto-calibration (spec section 6).

The data is calibrated once; every configuration of the search uses the same factors, because they were observed in the
float model. Nothing is written before the search has ended, so that an error leaves the results of an earlier run
untouched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from amct_tensorflow.calibration.calibrator import CalibrationResult, Calibrator
from amct_tensorflow.config.schema import QuantConfig
from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.log import log_for
from amct_tensorflow.quantized_graph import QuantizedGraph
from amct_tensorflow.saved_model import FloatModel
from amct_tensorflow.search.evaluator import CheckedEvaluator, MetricEval
from amct_tensorflow.search.history import Trial
from amct_tensorflow.search.sensitivity import SensitivityBase
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, check_decision

_NAMES_PER_LINE = 10


@dataclass(frozen=True, eq=False)
class SearchResult:
    """How a search ended.

    Attributes:
        original_metric: what ``evaluate`` returned for the original model.
        global_metric: what it returned with every enabled layer quantized.
        saved_metric: what it returned for the model to save.
        saved: the configuration to save and how it was judged.
        trials: every configuration that was judged, in order.
        calibration: the factors, corrections and similarities.
        quantized: the model to save.
    """

    original_metric: Any
    global_metric: Any
    saved_metric: Any
    saved: Trial
    trials: tuple[Trial, ...]
    calibration: CalibrationResult
    quantized: QuantizedGraph


def run_search(
    model: FloatModel,
    config: QuantConfig,
    evaluator: CheckedEvaluator,
    strategy: AutoCalibrationStrategyBase,
    sensitivity: SensitivityBase,
) -> SearchResult:
    """Evaluates, calibrates, and rolls layers back until the requirement is met with as few as the strategy finds.

    Returns:
        The best model found: the satisfying one with the fewest float layers, or else the one with the least loss.

    Raises:
        AmctError: the evaluator broke its contract, or calibration failed.
    """
    # Prepared first: what is wrong with the model should show before hours of evaluation.
    graph = import_graph(model.graph_def, model.path)
    calibrator = Calibrator(graph, config, sensitivity, lambda _: None, model.outputs)
    original = evaluator.evaluate(import_graph(model.graph_def, model.path), model.outputs, "the original model")
    log_for().info("Accuracy of original model: %s", format_metric(original))
    evaluator.check_requirement(original)
    calibration = _calibrate(evaluator, calibrator, graph, model.outputs)
    search = _Search(model, evaluator, original, calibration)
    judged = search.judge(dict.fromkeys(config.enabled_layers(), True), "the model with all layers quantized")
    log_for().info("Accuracy of the model with all layers quantized: %s", format_metric(search.last_metric))
    if judged.satisfied:
        log_for().info("The model satisfies the requirement after all layers are quantized.")
    else:
        search.roll_back(strategy)
    return search.result()


def format_metric(metric: Any) -> str:
    """Returns a metric for the log; floats without the noise of their last digits."""
    return str(float(f"{metric:.9g}")) if isinstance(metric, float) else str(metric)


def _calibrate(
    evaluator: CheckedEvaluator, calibrator: Calibrator, graph: tf.Graph, outputs: Sequence[str]
) -> CalibrationResult:
    try:
        evaluator.calibrate(graph, outputs)
    except Exception:
        # The evaluator only sees what TensorFlow made of an error inside a tap.
        if calibrator.error is not None:
            raise calibrator.error from None
        raise
    calibration = calibrator.check_complete()
    for name, analysis in calibration.analyses.items():
        log_for().debug("Layer %s: similarity %.9g", name, analysis.similarity)
    return calibration


class _Search:
    """The configurations judged so far; each is evaluated once."""

    def __init__(
        self, model: FloatModel, evaluator: CheckedEvaluator, original: Any, calibration: CalibrationResult
    ) -> None:
        self._model = model
        self._evaluator = evaluator
        self._original = original
        self._calibration = calibration
        self._trials: list[Trial] = []
        self._metrics: dict[frozenset[str], Any] = {}
        self.last_metric: Any = None

    def judge(self, configuration: Mapping[str, bool], title: str) -> MetricEval:
        """Evaluates a configuration unless that was done before."""
        key = _quantized_layers(configuration)
        if key in self._metrics:
            return next(trial.judged for trial in self._trials if _quantized_layers(trial.configuration) == key)
        quantized = self._quantize(configuration)
        graph = import_graph(quantized.graph_def, title)
        self.last_metric = self._evaluator.evaluate(graph, self._model.outputs, title)
        return self._remember(configuration, self.last_metric)

    def roll_back(self, strategy: AutoCalibrationStrategyBase) -> None:
        """Lets the strategy search, from the result of quantizing all layers."""
        ranking = {name: analysis.similarity for name, analysis in self._calibration.analyses.items()}
        if not ranking:  # only tensors are quantized
            return
        strategy.initialize(ranking)
        judged = self._trials[-1].judged
        step = 0
        while True:
            decision = check_decision(strategy, strategy.update_quant_config(judged), ranking)
            configuration = decision["roll_back_config"]
            if not any(configuration.values()):
                log_for().info("Every layer would have to be rolled back.")
                self._remember(configuration, self._original)
                break
            known = _quantized_layers(configuration) in self._metrics
            if not known:
                step += 1
                _log_step(step, configuration)
            judged = self.judge(configuration, f"the model of fine search step {step}")
            if not known:
                log_for().info("metric_eval: (%s, %g)", judged.satisfied, judged.loss)
            if decision["stop_flag"]:
                break
        log_for().info("Fine search finished after %d evaluations.", step)

    def result(self) -> SearchResult:
        """Returns the best quantized model among the trials."""
        quantized = [trial for trial in self._trials if any(trial.configuration.values())]
        best = min(quantized or self._trials[:1], key=_rank)
        metric = self._metrics[_quantized_layers(best.configuration)]
        first = self._metrics[_quantized_layers(self._trials[0].configuration)]
        return SearchResult(
            original_metric=self._original,
            global_metric=first,
            saved_metric=metric,
            saved=best,
            trials=tuple(self._trials),
            calibration=self._calibration,
            quantized=self._quantize(best.configuration),
        )

    def _remember(self, configuration: Mapping[str, bool], metric: Any) -> MetricEval:
        judged = self._evaluator.judge(self._original, metric)
        self._metrics[_quantized_layers(configuration)] = metric
        self._trials.append(Trial(dict(configuration), judged))
        return judged

    def _quantize(self, configuration: Mapping[str, bool]) -> QuantizedGraph:
        kept = self._calibration.restrict(configuration)
        return self._model.quantize(kept.factors, kept.corrections)


def _quantized_layers(configuration: Mapping[str, bool]) -> frozenset[str]:
    return frozenset(name for name, quantized in configuration.items() if quantized)


def _rank(trial: Trial) -> tuple[bool, float, float]:
    """Orders trials from best to worst: satisfying ones by their number of float layers, the others by loss."""
    judged = trial.judged
    floats = sum(not quantized for quantized in trial.configuration.values())
    return (not judged.satisfied, floats if judged.satisfied else judged.loss, judged.loss)


def _log_step(step: int, configuration: Mapping[str, bool]) -> None:
    stars = "*" * 20
    rolled_back = sum(not quantized for quantized in configuration.values())
    log_for().info("%s fine search step %d: %d layers in float %s", stars, step, rolled_back, stars)
    pairs = [f"({name}, {quantized})" for name, quantized in configuration.items()]
    log_for().debug("quant layers:")
    for start in range(0, len(pairs), _NAMES_PER_LINE):
        log_for().debug("%s", " ".join(pairs[start : start + _NAMES_PER_LINE]))
