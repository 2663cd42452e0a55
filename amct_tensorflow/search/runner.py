"""Accuracy-based auto-calibration in five steps (spec section 6).

Errors in the model or its configuration show first, before hours of evaluation. Then the original model is evaluated
and calibrated once: every configuration of the search uses the same factors, because they were observed in the float
model. Of a small model the batches are run first, and calibrated on beside the evaluation, if the evaluator is known to
bear that; the first quantized model is made there, too. Layers are rolled back until the model satisfies, and the
result is summed up.

No result is written before the search has ended, so that an error leaves those of an earlier run as they are.
Evaluations and calibration are kept in a state, from which an interrupted run can be resumed.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from amct_tensorflow.devices.device_table import UNNAMED
from amct_tensorflow.devices.rungs import Ladder
from amct_tensorflow.graph.names import LayerName, PreparedName
from amct_tensorflow.io.progress import duration
from amct_tensorflow.io.stages import counted_beside, stage
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import free_log, log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.ops.multiply_accumulates import multiply_accumulates
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.search.beginning import Beginning
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator, format_metric
from amct_tensorflow.search.configuration import Configuration, layers_in_16_bits, layers_in_float
from amct_tensorflow.search.evaluations import Evaluations
from amct_tensorflow.search.evaluator import Evaluation, MetricEval
from amct_tensorflow.search.roll_back import RollBack
from amct_tensorflow.search.sensitivity.layer_scores import LayerScores
from amct_tensorflow.search.sensitivity.measures import SensitivityBase
from amct_tensorflow.search.start import Start, start_search
from amct_tensorflow.search.state import SearchState
from amct_tensorflow.search.statistics import LossInterval, paired_interval
from amct_tensorflow.search.strategy import CheckedStrategy
from amct_tensorflow.search.trials import RunCost, SearchResult, Trial
from amct_tensorflow.search.workers.scheduler import Scheduler

_ALL_QUANTIZED = "the model with all layers quantized"

# The check takes half a second (of deep networks up to a few), which integers save an evaluation of so many products
# on two cores.
_PRODUCTS_THAT_PAY = 10**11
# What an evaluator that does not tell is taken to evaluate.
_ASSUMED_IMAGES = 10_000


def run_search(
    model: FloatModel,
    config: QuantConfig,
    evaluator: CheckedEvaluator,
    strategy: CheckedStrategy,
    sensitivity: SensitivityBase,
    state: SearchState,
    scheduler: Scheduler | None = None,
    *,
    exact: bool = False,
    rungs: Ladder = UNNAMED.rungs,
    in_float: Mapping[LayerName, str] | None = None,
    raise_costless: bool = False,
    beside_first: Callable[[SearchResult], object] | None = None,
) -> SearchResult:
    """Evaluates, calibrates, and rolls back as few layers as the strategy finds, until the requirement is met.

    Every search needs the float model and the one with all layers quantized. Workers evaluate the first while this
    process calibrates, then the second. Quantized models run in integers where that pays, which yields what they yield
    themselves.

    Args:
        model: the float model.
        config: what to quantize, and how.
        evaluator: runs and judges models.
        strategy: says which layers to roll back.
        sensitivity: ranks the layers.
        state: the findings of an earlier run; new ones are added.
        scheduler: the scheduler of workers that evaluate; None if this process does.
        exact: run every model itself.
        rungs: the rungs of the device on which layers may stand.
        in_float: per layer that stays in float for the sake of the device, why.
        raise_costless: whether layers start in float that cost nothing there; see ``costless_layers``.
        beside_first: called beside the evaluation of the first quantized model, if that was made beside the one of the
            original model, and the evaluator lets the calibration go on beside both. It gets what is returned if that
            model is saved, but for its metric, and raises nothing.

    Returns:
        The best model found: the satisfying one that the strategy settled on, or else the one with the least loss. If
        the search is interrupted when a quantized model has been evaluated, the best one until then.

    Raises:
        AmctError: the evaluator broke its contract, or calibration failed.
        KeyboardInterrupt: it was interrupted earlier.
    """
    began = time.perf_counter()
    evaluations = Evaluations(evaluator, state, model.outputs, scheduler)
    # What asks the user's evaluator for nothing goes on beside its evaluations.
    with _beside() as beside:
        start_after = partial(
            start_search, model=model, config=config, evaluations=evaluations, rungs=strategy.rungs_of(rungs),
            in_float=in_float or {}, exact=exact, raise_costless=raise_costless,
        )  # fmt: skip
        # Layers that cost nothing are known only when all have been measured, which is done behind the calibration.
        beginning = Beginning(model, evaluations, start_after, beside, makes_ahead=not raise_costless)
        beginning.prepare(config, sensitivity, state.calibration)
        if scheduler is not None:
            with stage("waiting for workers"):
                scheduler.gather()
        original, start = beginning.run(), beginning.start()
        calibration, search = start.calibration, start.search
        with closing(start.scores):
            search.begin(start.first, _ALL_QUANTIZED)
            original = original or beginning.evaluate()
            # Only now, so that the state of a run with workers is that of one without.
            keeping = beside.submit(counted_beside(partial(_keep, calibration, state)))
            first_model = search.made_ahead
            if beside_first is not None and first_model is not None and evaluator.calibration_may_overlap:
                expect = partial(_expected, start, original, in_float or {}, rungs, first_model)
                beside.submit(counted_beside(lambda: beside_first(expect())))
            pays = not exact and _pays(original, calibration, model)
            search.compare_with(original, start.execution if pays else None)
            circumstance = " beside the calibration" if beginning.is_beside else ""
            _log_estimate(calibration, start.fused, strategy, original, circumstance)
            _log_gain(start.scores, start.whole, in_float or {})
            interruption = _roll_back(search, start.first, strategy, sensitivity, keeping)
    saved = search.trials.best(search.settled)
    result = _sum_up(start, original, in_float or {}, rungs, search.trials, saved, search.model_of(saved))
    return replace(
        result,
        interval=_interval(original, saved),
        target_loss=evaluator.find_target(original.metric),
        cost=RunCost(evaluator.evaluations, evaluator.reused, evaluator.seconds, time.perf_counter() - began),
        interruption=interruption,
    )


@contextmanager
def _beside() -> Iterator[ThreadPoolExecutor]:
    """Returns a thread; who leaves the block waits for what it does, and holds nothing that it may wait for."""
    with ThreadPoolExecutor(1) as beside:
        try:
            yield beside
        finally:
            free_log()


def _expected(
    start: Start,
    original: Evaluation,
    in_float: Mapping[LayerName, str],
    rungs: Ladder,
    first_model: QuantizedGraph,
) -> SearchResult:
    """Returns the result if the first quantized model satisfies; the evaluation of the original stands in for its own.

    Args:
        start: what the search starts with.
        original: the evaluation of the original model.
        in_float: per layer that stays in float for the sake of the device, why.
        rungs: the rungs of the device.
        first_model: the first quantized model.
    """
    first = Trial({**start.first, **start.plans.in_float}, original, MetricEval(True, 0.0))
    return _sum_up(start, original, in_float, rungs, [first], first, first_model)


def _sum_up(
    start: Start,
    original: Evaluation,
    in_float: Mapping[LayerName, str],
    rungs: Ladder,
    trials: Iterable[Trial],
    saved: Trial,
    quantized: QuantizedGraph,
) -> SearchResult:
    """Returns a result without what only the end of a search tells."""
    search = start.search
    return SearchResult(
        original=original,
        trials=tuple(trials),
        saved=saved,
        plan=start.plans.of(saved.configuration),
        quantized=quantized,
        ranking=search.ranking,
        float_mac_share=search.mac_share(layers_in_float(saved.configuration)),
        wide_mac_share=search.mac_share(layers_in_16_bits(saved.configuration)),
        calibration=start.calibration,
        rungs=rungs,
        left_in_float=dict(in_float),
        costless=start.costless,
    )


def _keep(calibration: CalibrationResult, state: SearchState) -> None:
    """Keeps a calibration in the state, unless it comes from there."""
    if calibration is state.calibration:
        return
    for name, analysis in calibration.analyses.items():
        log_for().debug("Layer %s: similarity %.9g", name, analysis.similarity)
    state.add_calibration(calibration)


def _log_gain(scores: LayerScores, plan: QuantizationPlan, in_float: Mapping[LayerName, str]) -> None:
    """Logs what is gained by layers that stay in float for the sake of the device."""
    layers = plan.factors.keys() & plan.fused.layers.keys()
    if not layers & in_float.keys():
        return
    every, others = scores.divergences([layers, layers - in_float.keys()])
    if not math.isfinite(every + others):
        return
    log_for().info(
        "With %s in float for the device, the outputs diverge by %.4g on the calibration data; in int8, by %.4g.",
        plural(len(layers & in_float.keys()), "layer"), others, every,
    )  # fmt: skip


def _roll_back(
    search: RollBack,
    all_quantized: Configuration,
    strategy: CheckedStrategy,
    sensitivity: SensitivityBase,
    keeping: Future[None],
) -> KeyboardInterrupt | None:
    """Judges the model with all layers quantized, and the candidates of the strategy if it does not satisfy.

    Returns, when the calibration has been kept, too, the exception that interrupted it after the first result; None if
    none did.
    """
    first = search.judge(all_quantized, _ALL_QUANTIZED)
    try:
        log_for().info("Accuracy of the model with all layers quantized: %s", format_metric(first.metric))
        if first.judged.satisfied:
            log_for().info("The model satisfies the requirement after all layers are quantized.")
            if sensitivity.scores_outputs:
                log_for().info("As nothing is rolled back, layers are ranked by their own outputs, not the model's.")
        else:
            with stage("searching"):
                search.search(strategy, sensitivity)
        keeping.result()
    except KeyboardInterrupt as interruption:
        return interruption
    return None


def _pays(original: Evaluation, calibration: CalibrationResult, model: FloatModel) -> bool:
    """Tells whether integers save more time in an evaluation than the check of the execution graph takes.

    It counts products, not seconds, so that equal runs decide alike.
    """
    images = _ASSUMED_IMAGES if original.image_results is None else len(original.image_results)
    pays = images * _products_per_image(calibration, model) >= _PRODUCTS_THAT_PAY
    if not pays:
        log_for("search").debug("Quantized models are simulated: an evaluation is too small for integers to pay.")
    return pays


def _products_per_image(calibration: CalibrationResult, model: FloatModel) -> float:
    """Returns the multiply-accumulates of the quantized layers; where shapes do not tell, they have been counted."""
    layers = [layer.name for layer in model.layers if layer.name in calibration.factors]
    counts = [multiply_accumulates(model.view, model.view.nodes[PreparedName(name)]) for name in layers]
    known = [count for count in counts if count is not None]
    if len(known) == len(counts):
        return sum(known)
    counted = sum(analysis.multiply_accumulates for analysis in calibration.analyses.values())
    return counted / (calibration.images or 1)


def _interval(original: Evaluation, saved: Trial) -> LossInterval | None:
    results = original.image_results, saved.evaluation.image_results
    if results[0] is None or results[1] is None:
        return None
    return paired_interval(results[0], results[1], saved.judged.loss)


def _log_estimate(
    calibration: CalibrationResult,
    fused: FusedGraph,
    strategy: CheckedStrategy,
    original: Evaluation,
    circumstance: str,
) -> None:
    layers = sum(name in fused.layers for name in calibration.factors)
    times = ""
    if original.seconds is not None:
        times = f" One evaluation takes {duration(original.seconds)}{circumstance}. To expect: 2 evaluations in "
        times += duration(2 * original.seconds)
        most = strategy.evaluations_to_expect(layers)
        if most is not None and most > 2:
            times += f" if all layers can be quantized, else {most} in up to {duration(most * original.seconds)}"
        times += "."
    images = plural(calibration.images, "image") if calibration.images else "an unknown number of images"
    log_for().info("%s, calibrated on %s.%s", plural(layers, "layer"), images, times)
