"""The loop of accuracy-based auto-calibration (spec section 6).

The data is calibrated once; every configuration of the search uses the same factors, because they were observed in the
float model. No result is written before the search has ended, so that an error leaves those of an earlier run as they
are; what was found out is kept in a state, with which a run that was cut off goes on.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.calibrator import CalibrationResult, Calibrator
from amct_tensorflow.config.schema import QuantConfig
from amct_tensorflow.console.progress_lines import duration
from amct_tensorflow.errors import StateError
from amct_tensorflow.graph.float_model import FloatModel
from amct_tensorflow.graph.fusion import FusedGraph
from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.log import log_for
from amct_tensorflow.quantized.builder import QuantizedGraph, quantize_graph
from amct_tensorflow.record.layer_factors import unfused_layers
from amct_tensorflow.search.evaluator import CheckedEvaluator, Evaluation, MetricEval, format_metric
from amct_tensorflow.search.state import SearchState, digest
from amct_tensorflow.search.statistics import LossInterval, paired_interval
from amct_tensorflow.search.strategy import CheckedStrategy, SearchKnowledge
from amct_tensorflow.search.trials import Trial
from amct_tensorflow.sensitivity.layer_scores import LayerKnowledge
from amct_tensorflow.sensitivity.measures import (
    CosineSimilaritySensitivity,
    OutputDivergenceSensitivity,
    SensitivityBase,
)

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
        fused: the float model after fusion, as it was calibrated.
        calibration: the factors, corrections and similarities.
        ranking: per layer, its similarity by the sensitivity asked for.
        quantized: the model to save.
        float_mac_share: share of the multiply-accumulates that the model to save does in float.
        interval: confidence interval of its loss; None if the evaluator offers no results per image.
        target_loss: the loss up to which a model satisfies; None if it is not known, or nothing asks for it.
        evaluations: number of evaluations.
        reused: number of those that an earlier run had done.
        evaluation_seconds: how long the others took together.
        seconds: how long everything took.
        interruption: what stopped the search before its end; None if nothing did.
    """

    original_metric: Any
    global_metric: Any
    saved_metric: Any
    saved: Trial
    trials: tuple[Trial, ...]
    fused: FusedGraph
    calibration: CalibrationResult
    ranking: dict[str, float]
    quantized: QuantizedGraph
    float_mac_share: float
    interval: LossInterval | None
    target_loss: float | None
    evaluations: int
    reused: int
    evaluation_seconds: float
    seconds: float
    interruption: KeyboardInterrupt | None


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
    # Prepared first: what is wrong with the model should show before hours of evaluation.
    graph = import_graph(model.graph_def, model.path)
    calibrator = None
    if state.calibration is None:
        comparison = own_outputs(sensitivity)
        calibrator = Calibrator(graph, config, comparison, lambda _: None, model.outputs, keep_batches=True)
    evaluations = _Evaluations(evaluator, state, model.outputs)
    original = evaluations.get(None, model.graph_def.SerializeToString(deterministic=True), "the original model")
    log_for().info("Accuracy of original model: %s", format_metric(original.metric))
    evaluator.check_requirement(original.metric)
    calibration = state.calibration
    if calibrator is not None:
        calibration = _calibrate(evaluator, calibrator, graph, model.outputs)
        state.add_calibration(calibration)
    assert calibration is not None  # one or the other
    _log_estimate(calibration, strategy, original)
    fused = model.fuse(unfused_layers(calibration.factors))
    with closing(LayerKnowledge(graph, fused, calibration, model.outputs)) as knowledge:
        search = _Search(fused, evaluations, original, calibration, knowledge, sensitivity)
        judged = search.judge(dict.fromkeys(config.enabled_layers(), True), "the model with all layers quantized")
        log_for().info("Accuracy of the model with all layers quantized: %s", format_metric(search.first[1].metric))
        if judged.satisfied:
            log_for().info("The model satisfies the requirement after all layers are quantized.")
            if isinstance(sensitivity, OutputDivergenceSensitivity):
                log_for().info("As nothing is rolled back, layers are ranked by their own outputs, not the model's.")
        else:
            try:
                search.roll_back(strategy)
            except KeyboardInterrupt as interruption:
                return search.result(start, interruption)
        return search.result(start)


def own_outputs(sensitivity: SensitivityBase) -> SensitivityBase | None:
    """Returns what compares the outputs of each layer by itself; None for the cosine similarity."""
    is_cosine = type(sensitivity).compare is CosineSimilaritySensitivity.compare
    return None if is_cosine or isinstance(sensitivity, OutputDivergenceSensitivity) else sensitivity


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


class _Evaluations:
    """Evaluations of models, each taken from the state if it is known there."""

    def __init__(self, evaluator: CheckedEvaluator, state: SearchState, outputs: Sequence[str]) -> None:
        self.evaluator = evaluator
        self.outputs = outputs
        self._state = state

    def get(self, quantized: Collection[str] | None, model: bytes, title: str) -> Evaluation:
        """Returns the evaluation of a model, which an earlier run may have done, of the very same bytes.

        Args:
            quantized: its quantized layers; None for the original model.
            model: what stands in its file.
            title: what it is called in messages.
        """
        identity = digest(model)
        evaluation = self._state.evaluation(quantized)
        if evaluation is not None and evaluation.model == identity:
            log_for().info("The result of %s is known from the earlier run.", title)
            self.evaluator.reuse()
            return evaluation
        graph = import_graph(tf.compat.v1.GraphDef.FromString(model), title)
        evaluation = replace(self.evaluator.evaluate(graph, self.outputs, title), model=identity)
        self._state.add_evaluation(quantized, evaluation)
        return evaluation


class _Search:
    """The configurations judged so far; each is evaluated once."""

    def __init__(
        self,
        fused: FusedGraph,
        evaluations: _Evaluations,
        original: Evaluation,
        calibration: CalibrationResult,
        knowledge: LayerKnowledge,
        sensitivity: SensitivityBase,
    ) -> None:
        self._fused = fused
        self._evaluations = evaluations
        self._outputs = evaluations.outputs
        self._evaluator = evaluations.evaluator
        self._original = original
        self._calibration = calibration
        self._knowledge = knowledge
        self._shares = knowledge.mac_shares
        self._sensitivity = sensitivity
        # Ranking by the model's outputs takes time; nobody needs it unless layers are to be rolled back.
        self._ranking = knowledge.local_similarities()
        self._trials: dict[frozenset[str], tuple[Trial, Evaluation]] = {}
        self._settled: frozenset[str] | None = None
        # The best model so far, as it was evaluated: what is saved in the end is not built again. Only one is kept,
        # so that memory does not grow with the number of evaluations.
        self._built: tuple[frozenset[str], QuantizedGraph] | None = None

    @property
    def first(self) -> tuple[Trial, Evaluation]:
        """The first configuration, with all layers quantized, and its evaluation."""
        return next(iter(self._trials.values()))

    def judge(self, configuration: Mapping[str, bool], title: str) -> MetricEval:
        """Evaluates a configuration unless that was done before; none has to be run if all layers are in float."""
        key = _quantized_layers(configuration)
        if key not in self._trials:
            evaluation = self._original
            if key or not self._trials:
                quantized = self._quantize(configuration)
                evaluation = self._evaluations.get(key, quantized.model, title)
            judged = self._evaluator.judge(self._original.metric, evaluation.metric)
            self._trials[key] = Trial(dict(configuration), judged), evaluation
            if evaluation is not self._original and self._best() is self._trials[key]:
                self._built = key, quantized
        return self._trials[key][0].judged

    def roll_back(self, strategy: CheckedStrategy) -> None:
        """Lets the strategy search, from the result of quantizing all layers."""
        self._ranking = self._knowledge.ranking(self._sensitivity)
        if not self._ranking:  # only tensors are quantized
            return
        find_target = partial(self._evaluator.find_target, self._original.metric)
        strategy.begin(SearchKnowledge(self._knowledge.divergences, self._shares, find_target), self._ranking)
        judged = self.first[0].judged
        repetitions = 0
        while True:
            decision = strategy.decide(judged, self._ranking)
            configuration = decision["roll_back_config"]
            self._settled = _quantized_layers(configuration)
            known = self._settled in self._trials
            step = len(self._trials)
            if not self._settled:
                log_for().info("Every layer would have to be rolled back.")
            elif not known:
                self._log_step(step, configuration, strategy)
            judged = self.judge(configuration, f"the model of fine search step {step}")
            if self._settled and not known:
                log_for().info("metric_eval: (%s, %g)", judged.satisfied, judged.loss)
            if decision["stop_flag"] or not self._settled:
                break
            repetitions = repetitions + 1 if known else 0
            if repetitions > len(self._trials):
                log_for().warning(
                    "%s asked %d times in a row for configurations that have been evaluated, and does not set "
                    "stop_flag. The search ends here.",
                    strategy.name, repetitions,
                )  # fmt: skip
                self._settled = None
                break
        log_for().info("Fine search finished after %d evaluations.", self._evaluator.evaluations - 2)

    def result(self, start: float, interruption: KeyboardInterrupt | None = None) -> SearchResult:
        """Returns the best quantized model among the trials; ``start`` is when everything began."""
        saved, evaluation = self._best()
        interval = self._interval(saved, evaluation)
        return SearchResult(
            original_metric=self._original.metric,
            global_metric=self.first[1].metric,
            saved_metric=evaluation.metric,
            saved=saved,
            trials=tuple(trial for trial, _ in self._trials.values()),
            fused=self._fused,
            calibration=self._calibration,
            ranking=self._ranking,
            quantized=self._model_of(saved, evaluation),
            float_mac_share=self._float_share(saved.configuration),
            interval=interval,
            target_loss=self._evaluator.find_target(self._original.metric) if interval else None,
            evaluations=self._evaluator.evaluations,
            reused=self._evaluator.reused,
            evaluation_seconds=self._evaluator.seconds,
            seconds=time.perf_counter() - start,
            interruption=interruption,
        )

    def _best(self) -> tuple[Trial, Evaluation]:
        """Returns what the strategy settled on if that satisfies; else the best of what was tried."""
        settled = self._trials.get(self._settled or frozenset())
        if self._settled and settled is not None and settled[0].judged.satisfied:
            return settled
        quantized = [found for key, found in self._trials.items() if key]
        return min(quantized or list(self._trials.values()), key=lambda found: _rank(found[0]))

    def _interval(self, trial: Trial, evaluation: Evaluation) -> LossInterval | None:
        results: tuple[np.ndarray | None, np.ndarray | None] = self._original.image_results, evaluation.image_results
        if results[0] is None or results[1] is None:
            return None
        return paired_interval(results[0], results[1], trial.judged.loss)

    def _quantize(self, configuration: Mapping[str, bool]) -> QuantizedGraph:
        kept = self._calibration.restrict(configuration)
        return quantize_graph(self._fused, kept.factors, kept.corrections, self._outputs)

    def _model_of(self, trial: Trial, evaluation: Evaluation) -> QuantizedGraph:
        """Returns the model that was evaluated in a trial; one that had not been the best is built again.

        Raises:
            StateError: it is not the one that was evaluated.
        """
        key = _quantized_layers(trial.configuration)
        if self._built is not None and self._built[0] == key:
            return self._built[1]
        quantized = self._quantize(trial.configuration)
        if key and digest(quantized.model) != evaluation.model:
            raise StateError("The model to save is not the one that was evaluated. Start again, without resume.")
        return quantized

    def _float_share(self, configuration: Mapping[str, bool]) -> float:
        return sum(self._shares.get(name, 0.0) for name, quantized in configuration.items() if not quantized)

    def _log_step(self, step: int, configuration: Mapping[str, bool], strategy: CheckedStrategy) -> None:
        stars = "*" * 20
        rolled_back = sum(not quantized for quantized in configuration.values())
        log_for().info(
            "%s fine search step %d: %d of %d layers (%.1f %% of the multiply-accumulates) in float %s",
            stars, step, rolled_back, len(configuration), 100 * self._float_share(configuration), stars,
        )  # fmt: skip
        expected = strategy.evaluations_to_expect(len(configuration))
        number = self._evaluator.evaluations + 1
        total = f" of about {max(expected, number)}" if expected else ""
        seconds = self.first[1].seconds
        log_for().info("Evaluation %d%s%s.", number, total, "" if seconds is None else f", about {duration(seconds)}")
        pairs = [f"({name}, {quantized})" for name, quantized in configuration.items()]
        log_for().debug("quant layers:")
        for begin in range(0, len(pairs), _NAMES_PER_LINE):
            log_for().debug("%s", " ".join(pairs[begin : begin + _NAMES_PER_LINE]))


def _quantized_layers(configuration: Mapping[str, bool]) -> frozenset[str]:
    return frozenset(name for name, quantized in configuration.items() if quantized)


def _rank(trial: Trial) -> tuple[bool, float, float]:
    """Orders trials from best to worst: satisfying ones by their number of float layers, the others by loss."""
    judged = trial.judged
    floats = sum(not quantized for quantized in trial.configuration.values())
    return (not judged.satisfied, floats if judged.satisfied else judged.loss, judged.loss)
