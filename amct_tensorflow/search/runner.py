"""Accuracy-based auto-calibration in five steps (spec section 6).

The data is calibrated once; every configuration of the search uses the same factors, because they were observed in the
float model. No result is written before the search has ended, so that an error leaves those of an earlier run as they
are; what was found out is kept in a state, with which a run that was cut off goes on.
"""

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from amct_tensorflow.calibration.calibrator import CalibrationResult, Calibrator
from amct_tensorflow.config.schema import QuantConfig
from amct_tensorflow.console.progress_lines import duration
from amct_tensorflow.log import log_for
from amct_tensorflow.models.float_model import FloatModel
from amct_tensorflow.quantized.builder import QuantizedGraph
from amct_tensorflow.quantized.plan import QuantizationPlan
from amct_tensorflow.record.layer_factors import unfused_layers
from amct_tensorflow.search.evaluations import Evaluations
from amct_tensorflow.search.evaluator import CheckedEvaluator, Evaluation, format_metric
from amct_tensorflow.search.roll_back import RollBack
from amct_tensorflow.search.state import SearchState
from amct_tensorflow.search.statistics import LossInterval, paired_interval
from amct_tensorflow.search.strategy import CheckedStrategy
from amct_tensorflow.search.trials import Trial
from amct_tensorflow.sensitivity.layer_scores import LayerScores
from amct_tensorflow.sensitivity.measures import SensitivityBase


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
        target_loss: the loss up to which a model satisfies; None if it is not known, or nothing asks for it.
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
    effort: Effort
    interruption: KeyboardInterrupt | None

    @property
    def global_metric(self) -> Any:
        """What ``evaluate`` returned with every enabled layer quantized."""
        return self.trials[0].metric


def run_search(
    model: FloatModel,
    config: QuantConfig,
    evaluator: CheckedEvaluator,
    strategy: CheckedStrategy,
    sensitivity: SensitivityBase,
    state: SearchState,
) -> SearchResult:
    """Evaluates, calibrates, and rolls layers back until the requirement is met with as few as the strategy finds.

    Returns:
        The best model found: the satisfying one that the strategy settled on, or else the one with the least loss. If
        the search is interrupted when a quantized model has been evaluated, the best one until then.

    Raises:
        AmctError: the evaluator broke its contract, or calibration failed.
        KeyboardInterrupt: it was interrupted before that.
    """
    start = time.perf_counter()
    evaluations = Evaluations(evaluator, state, model.outputs)
    # Before hours of evaluation: what is wrong with the model or its configuration shows now.
    calibrator = None if state.calibration else _prepare_calibration(model, config, sensitivity)
    original = _evaluate_original(model, evaluations)
    calibration = state.calibration or _calibrate(calibrator, evaluator, model, state)
    _log_estimate(calibration, strategy, original)
    plan = calibration.plan(model.fuse(unfused_layers(calibration.factors)), model.outputs)
    with closing(LayerScores(model.prepared_graph, plan, calibration)) as scores:
        search = RollBack(plan, original, evaluations, scores)
        interruption = _roll_back(search, config, strategy, sensitivity)
    saved = search.trials.best(search.settled)
    interval = _interval(original, saved)
    return SearchResult(
        original=original,
        trials=tuple(search.trials),
        saved=saved,
        plan=plan.restrict(saved.configuration),
        quantized=search.model_of(saved),
        ranking=search.ranking,
        float_mac_share=search.float_share(saved.configuration),
        interval=interval,
        target_loss=evaluator.find_target(original.metric) if interval else None,
        effort=Effort(evaluator.evaluations, evaluator.reused, evaluator.seconds, time.perf_counter() - start),
        interruption=interruption,
    )


def _prepare_calibration(model: FloatModel, config: QuantConfig, sensitivity: SensitivityBase) -> Calibrator:
    comparison = sensitivity.layer_comparison()
    return Calibrator(model, config, lambda _: None, for_search=True, comparison=comparison)


def _evaluate_original(model: FloatModel, evaluations: Evaluations) -> Evaluation:
    original = evaluations.get(None, model.graph_def.SerializeToString(deterministic=True), "the original model")
    log_for().info("Accuracy of original model: %s", format_metric(original.metric))
    evaluations.evaluator.check_requirement(original.metric)
    return original


def _calibrate(
    calibrator: Calibrator | None, evaluator: CheckedEvaluator, model: FloatModel, state: SearchState
) -> CalibrationResult:
    assert calibrator is not None  # it was prepared, since the state knows no calibration
    try:
        evaluator.calibrate(model.graph, model.outputs)
    except Exception:
        # The evaluator only sees what TensorFlow made of an error inside a tap.
        if calibrator.error is not None:
            raise calibrator.error from None
        raise
    calibration = calibrator.check_complete()
    for name, analysis in calibration.analyses.items():
        log_for().debug("Layer %s: similarity %.9g", name, analysis.similarity)
    state.add_calibration(calibration)
    return calibration


def _roll_back(
    search: RollBack, config: QuantConfig, strategy: CheckedStrategy, sensitivity: SensitivityBase
) -> KeyboardInterrupt | None:
    """Judges the model with all layers quantized, and if need be those that the strategy wants to try.

    Returns:
        What interrupted it, when there was a result already.
    """
    first = search.judge(dict.fromkeys(config.enabled_layers(), True), "the model with all layers quantized")
    log_for().info("Accuracy of the model with all layers quantized: %s", format_metric(first.metric))
    if first.judged.satisfied:
        log_for().info("The model satisfies the requirement after all layers are quantized.")
        if sensitivity.scores_outputs:
            log_for().info("As nothing is rolled back, layers are ranked by their own outputs, not the model's.")
        return None
    try:
        search.search(strategy, sensitivity)
    except KeyboardInterrupt as interruption:
        return interruption
    return None


def _interval(original: Evaluation, saved: Trial) -> LossInterval | None:
    results = original.image_results, saved.evaluation.image_results
    if results[0] is None or results[1] is None:
        return None
    return paired_interval(results[0], results[1], saved.judged.loss)


def _log_estimate(calibration: CalibrationResult, strategy: CheckedStrategy, original: Evaluation) -> None:
    layers = len(calibration.analyses)
    times = ""
    if original.seconds is not None:
        times = f" One evaluation takes {duration(original.seconds)}. To expect: 2 evaluations in "
        times += duration(2 * original.seconds)
        most = strategy.evaluations_to_expect(layers)
        if most is not None and most > 2:
            times += f" if all layers can be quantized, else {most} in up to {duration(most * original.seconds)}"
        times += "."
    log_for().info("%d layers, calibrated on %s images.%s", layers, calibration.images or "an unknown number of", times)
