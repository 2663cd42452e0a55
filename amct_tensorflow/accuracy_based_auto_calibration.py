"""The public entry of accuracy-based automatic quantization."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_tensorflow.arguments import require_names, require_path, require_type
from amct_tensorflow.config.json_file import dump_config, read_config
from amct_tensorflow.config.schema import QuantConfig
from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.files import check_writable, write_atomically
from amct_tensorflow.graph.layers import find_layers
from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.log import LOG_DIR, log_for
from amct_tensorflow.quantization import leave_out_unused, save_calibration
from amct_tensorflow.saved_model import FloatModel, ModelPaths, write_quantized_model
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase, CheckedEvaluator
from amct_tensorflow.search.history import FINAL_CONFIG_FILE, HISTORY_FILE, RANKING_FILE, dump_history, dump_ranking
from amct_tensorflow.search.predictive import PredictiveSearch
from amct_tensorflow.search.report import log_report
from amct_tensorflow.search.runner import SearchResult, run_search
from amct_tensorflow.search.sensitivity import (
    CosineSimilaritySensitivity,
    OutputDivergenceSensitivity,
    SensitivityBase,
)
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy

_NAME = "accuracy_based_auto_calibration"
_STRATEGIES = {"BinarySearch": BinarySearchStrategy, "PredictiveSearch": PredictiveSearch}
_SENSITIVITIES = {
    "CosineSimilarity": CosineSimilaritySensitivity,
    "OutputDivergence": OutputDivergenceSensitivity,
}


@dataclass(frozen=True, eq=False)
class AutoCalibrationResult:
    """What a run of accuracy-based automatic quantization led to.

    Attributes:
        original_metric: metric of the original model.
        global_metric: metric with every enabled layer quantized.
        saved_metric: metric of the saved model.
        target_met: whether the saved model satisfies ``metric_eval``.
        loss: loss of the saved model, as ``metric_eval`` computes it.
        roll_back_config: per layer, True if the saved model quantizes it.
        float_mac_share: share of the multiply-accumulates that the saved model does in float.
        loss_interval: 95 % confidence interval of its loss, (lower, upper); None unless the evaluator offers results
            per image.
        evaluations: number of calls of ``evaluate``.
        model_file: path of the saved model.
    """

    original_metric: Any
    global_metric: Any
    saved_metric: Any
    target_met: bool
    loss: float
    roll_back_config: dict[str, bool]
    float_mac_share: float
    loss_interval: tuple[float, float] | None
    evaluations: int
    model_file: Path


def accuracy_based_auto_calibration(
    model_file: str,
    outputs: list[str],
    record_file: str,
    config_file: str,
    save_dir: str,
    evaluator: AutoCalibrationEvaluatorBase,
    strategy: str | AutoCalibrationStrategyBase = "BinarySearch",
    sensitivity: str | SensitivityBase = "CosineSimilarity",
) -> AutoCalibrationResult:
    """Quantizes a model, rolling the most sensitive layers back to float until its accuracy suffices.

    Args:
        model_file: frozen float model (.pb).
        outputs: output operators, without ``:0``.
        record_file: file for the factors of the saved model.
        config_file: configuration from ``create_quant_config``; it is left as it is.
        save_dir: folder and prefix of the results.
        evaluator: runs and judges the model.
        strategy: ``"BinarySearch"``, ``"PredictiveSearch"`` (fewer evaluations, fewer layers in float), or an instance
            of ``AutoCalibrationStrategyBase``.
        sensitivity: ``"CosineSimilarity"`` (of each layer's own output), ``"OutputDivergence"`` (of the model's), or an
            instance of ``SensitivityBase``.

    Returns:
        What was found. If no configuration satisfies the requirement, the best model is saved all the same, and
        ``target_met`` is False.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        EvaluatorError: the evaluator, strategy or sensitivity is no such object, or broke its contract.
        AmctError: another input cannot be used; the results of an earlier run are then left as they are.
    """
    require_path(_NAME, "model_file", model_file)
    require_names(_NAME, "outputs", outputs)
    require_path(_NAME, "record_file", record_file)
    require_path(_NAME, "config_file", config_file)
    require_path(_NAME, "save_dir", save_dir, may_be_empty=True)
    checked = CheckedEvaluator(evaluator)
    chosen_strategy = _choose("strategy", strategy, _STRATEGIES, AutoCalibrationStrategyBase)
    chosen_sensitivity = _choose("sensitivity", sensitivity, _SENSITIVITIES, SensitivityBase)
    model = FloatModel.load(model_file, outputs)
    graph = import_graph(model.graph_def, model.path)
    config = read_config(config_file, find_layers(graph), model.view.op_types())
    config = leave_out_unused(config, model.view, outputs)
    paths = ModelPaths.of(save_dir)
    for folder in (paths.model.parent, Path(record_file).parent, LOG_DIR):
        check_writable(folder)
    result = run_search(model, config, checked, chosen_strategy, chosen_sensitivity)
    _write_results(paths, record_file, config, result)
    log_report(result, model_dir=_folder(save_dir), record_dir=_folder(record_file))
    return AutoCalibrationResult(
        original_metric=result.original_metric,
        global_metric=result.global_metric,
        saved_metric=result.saved_metric,
        target_met=result.saved.judged.satisfied,
        loss=result.saved.judged.loss,
        roll_back_config=result.saved.configuration,
        float_mac_share=result.float_mac_share,
        loss_interval=(result.interval.lower, result.interval.upper) if result.interval else None,
        evaluations=result.evaluations,
        model_file=paths.model,
    )


def _choose(argument: str, value: Any, known: dict[str, Any], base: type) -> Any:
    """Returns the instance that a name stands for, or the instance given."""
    require_type(_NAME, argument, value, object)
    if isinstance(value, base):
        return value
    if isinstance(value, str) and value in known:
        return known[value]()
    raise EvaluatorError(
        f"{_NAME}: {argument} is {value!r}; use {' or '.join(map(repr, known))}, or an instance of {base.__name__}."
    )


def _write_results(paths: ModelPaths, record_file: str, config: QuantConfig, result: SearchResult) -> None:
    folder = paths.model.parent
    if paths.model.exists():
        log_for().warning("%s and the files beside it already exist; they will be overwritten.", paths.model)
    save_calibration(record_file, result.calibration.restrict(result.saved.configuration))
    write_quantized_model(paths, result.quantized, announce=False)
    final_config = dump_config(config.with_enabled(result.saved.configuration))
    write_atomically(folder / FINAL_CONFIG_FILE, final_config, announce=False)
    write_atomically(folder / RANKING_FILE, dump_ranking(result.ranking), announce=False)
    write_atomically(LOG_DIR / HISTORY_FILE, dump_history(result.trials), announce=False)


def _folder(path: str) -> str:
    """Returns the folder part of a path as the user wrote it."""
    return os.path.dirname(path) or "."  # noqa: PTH120 - Path would drop a leading "./"
