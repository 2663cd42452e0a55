"""Collects the report of a finished run, and makes its files."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_tensorflow.devices.check_text import told, verdict
from amct_tensorflow.devices.graph_check import DeviceCheck
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.contents import finite_or_none
from amct_tensorflow.io.stages import Spent
from amct_tensorflow.log import log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection import Inspection
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.results.made_ahead import MadeAhead
from amct_tensorflow.results.report.changed_images import find_changed_images
from amct_tensorflow.results.report.diagnoses import diagnose
from amct_tensorflow.results.report.document import (
    VERSION,
    DeviceFinding,
    DeviceVerdict,
    Evaluation,
    FloatScaling,
    Interval,
    Metric,
    Outcome,
    QuantizedInput,
    Ranking,
    Report,
    Size,
    StageTime,
    Table,
)
from amct_tensorflow.results.report.layer_rows import activation_of
from amct_tensorflow.results.report.page import render_report
from amct_tensorflow.results.report.report_json import dump_report
from amct_tensorflow.results.report.reproduction import describe_reproduction
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.choices import SENSITIVITIES
from amct_tensorflow.search.configuration import decisions, layers_in_16_bits, layers_in_float
from amct_tensorflow.search.run_key import RunKey
from amct_tensorflow.search.sensitivity.measures import SensitivityBase
from amct_tensorflow.search.statistics import CONFIDENCE, LossInterval
from amct_tensorflow.search.trials import SearchResult, Trial


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """All that a report needs of a run.

    Attributes:
        model: the float model.
        original: SHA-256 of its file when the run began, by its path; empty if it has none.
        config: the configuration.
        inspection: the inspection of the model.
        evaluator: the user's evaluator, for pictures.
        sensitivity: the sensitivity that ranked the layers.
        key: the key of the run.
        asked: the arguments of the run, by name.
        result: the result of the search.
        model_file: the path of the quantized model.
        spent: what each stage of the run has taken so far.
        check: what the device that the model is for is expected to make of it; None if nothing is known of that.
        ahead: what was made before the search ended.
    """

    model: FloatModel
    original: Mapping[str, str]
    config: QuantConfig
    inspection: Inspection
    evaluator: CheckedEvaluator
    sensitivity: SensitivityBase
    key: RunKey
    asked: Mapping[str, object]
    result: SearchResult
    model_file: Path
    spent: Sequence[Spent]
    check: DeviceCheck | None
    ahead: MadeAhead


def make_report(run: FinishedRun, page: Path, numbers: Path) -> dict[Path, str]:
    """Returns the content of the files of a run's report.

    An error here must not lose the quantized model that took hours to find: it becomes a warning, and there is no
    report.

    Args:
        run: the run.
        page: the path of the page.
        numbers: the path of its numbers.
    """
    try:
        report = collect_report(run)
        contents = {page: render_report(report), numbers: dump_report(report)}
    except Exception as error:  # of the libraries that draw and write it, too
        log_for("report").warning(
            "There is no report: %s: %s. All other results are complete.", type(error).__name__, error
        )
        return {}
    log_for("report").info("The report is %s; any browser opens it.", page)
    return contents


def collect_report(run: FinishedRun) -> Report:
    """Returns the report of a run; those of equal runs, resumed or not, differ in nothing but times."""
    result, calibration = run.result, run.result.calibration
    layers = run.ahead.layers(result)
    return Report(
        version=VERSION,
        model=run.model_file.name,
        outcome=_outcome(result),
        ranking=_ranking(run),
        evaluations=tuple(_evaluation(run, number, trial) for number, trial in enumerate(result.trials, 2)),
        layers=layers,
        inputs=tuple(
            QuantizedInput(tensor.key, activation_of(tensor.key, calibration.factors[tensor.key], calibration))
            for tensor in run.config.tensor_quantize
        ),
        float_scalings=tuple(FloatScaling(each.name, each.reason) for each in run.inspection.float_scalings),
        changed_images=find_changed_images(run.evaluator, result.original, result.saved),
        size=_size(run),
        reproduction=describe_reproduction(
            run.original, run.config, run.key, run.asked, run.model_file, result.quantized.model, calibration.images
        ),
        tables=tuple(
            Table(
                each.name, each.shape, each.float_bytes, each.int8_bytes, each.name in result.plan.tables, each.reason
            )
            for each in run.inspection.tables
        ),
        device=None if run.check is None else _verdict(run.check),
        diagnoses=diagnose(layers, result, may_balance=run.config.input_balancing),
        times=tuple(
            StageTime(name, round(wall, 3), None if processor is None else round(processor, 3))
            for name, wall, processor in run.spent
        ),
    )


def _verdict(check: DeviceCheck) -> DeviceVerdict:
    findings = tuple(
        DeviceFinding(
            level=each.level, rule=each.rule, node=each.node, text=each.text, detail=each.detail, remedy=each.remedy,
            certainty=told(each.evidence), share=each.share,
        )
        for each in check.findings
    )  # fmt: skip
    return DeviceVerdict(
        device=check.device,
        verdict=verdict(check),
        findings=findings,
        chains=check.chains,
        matched=check.matched,
        int8_share=check.int8_share,
        in_fp16=check.in_fp16,
        command=check.command,
    )


def _outcome(result: SearchResult) -> Outcome:
    return Outcome(
        target_met=result.saved.judged.satisfied,
        loss=finite_or_none(result.saved.judged.loss),
        target=None if result.target_loss is None else finite_or_none(result.target_loss),
        interval=_interval(result.interval),
        original=_metric(result.original.metric),
        all_quantized=_metric(result.global_metric),
        saved=_metric(result.saved.metric),
        interrupted=result.interruption is not None,
    )


def _interval(interval: LossInterval | None) -> Interval | None:
    if interval is None or not math.isfinite(interval.lower + interval.upper):
        return None
    return Interval(interval.lower, interval.upper, CONFIDENCE, interval.images)


def _metric(metric: Any) -> Metric:
    """Returns a number that JSON can hold unchanged, and anything else as text."""
    if isinstance(metric, numbers.Real) and not isinstance(metric, bool) and math.isfinite(metric):
        return int(metric) if isinstance(metric, numbers.Integral) else float(metric)
    return str(metric)


def _ranking(run: FinishedRun) -> Ranking:
    local = {name: each.similarity for name, each in run.result.calibration.analyses.items()}
    of_outputs = run.sensitivity.scores_outputs and run.result.ranking != local
    kind = type(run.sensitivity)
    name = next((name for name, known in SENSITIVITIES.items() if known is kind), kind.__name__)
    return Ranking(name, of_outputs)


def _evaluation(run: FinishedRun, number: int, trial: Trial) -> Evaluation:
    in_float, wide = sorted(layers_in_float(trial.configuration)), sorted(layers_in_16_bits(trial.configuration))
    counts: dict[str, int] = {name: each.multiply_accumulates for name, each in run.result.calibration.analyses.items()}
    total = max(sum(counts.values()), 1)
    return Evaluation(
        number=number,
        in_float=tuple(in_float),
        float_mac_share=sum(counts.get(name, 0) for name in in_float) / total,
        metric=_metric(trial.metric),
        loss=finite_or_none(trial.judged.loss),
        satisfied=trial.judged.satisfied,
        in_integers=trial.in_integers,
        saved=trial is run.result.saved,
        in_16_bits=tuple(wide),
        wide_mac_share=sum(counts.get(name, 0) for name in wide) / total,
    )


def _size(run: FinishedRun) -> Size:
    layers, configuration = run.inspection.layers, run.result.saved.configuration
    quantized, raised = decisions(configuration), layers_in_16_bits(configuration)
    int8 = [layer for layer in layers if quantized.get(layer.name)]
    wide = [layer for layer in layers if LayerName(layer.name) in raised]
    total = run.inspection.multiply_accumulates
    return Size(
        original_bytes=run.model.graph_def.ByteSize(),
        quantized_bytes=len(run.result.quantized.model),
        multiply_accumulates=total,
        int8_multiply_accumulates=None if total is None else sum(each.multiply_accumulates or 0 for each in int8),
        parameters=run.inspection.parameters,
        int8_parameters=sum(layer.parameters for layer in int8),
        wide_multiply_accumulates=None if total is None else sum(each.multiply_accumulates or 0 for each in wide),
        content=run.result.quantized.content,
        given_bytes=run.model.given_bytes,
    )
