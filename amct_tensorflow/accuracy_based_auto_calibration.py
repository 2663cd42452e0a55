"""The public entry of accuracy-based automatic quantization."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from amct_tensorflow.arguments import require_names, require_path, require_type
from amct_tensorflow.calibration.calibrator import CalibrationResult
from amct_tensorflow.config.json_file import dump_config, read_config
from amct_tensorflow.config.schema import QuantConfig
from amct_tensorflow.errors import EvaluatorError, StateError
from amct_tensorflow.graph.float_model import FloatModel
from amct_tensorflow.graph.layers import find_layers
from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.log import LOG_DIR, follow_directory, log_for
from amct_tensorflow.quantization import leave_out_unused
from amct_tensorflow.quantized.model_files import ModelPaths
from amct_tensorflow.record.layer_factors import unfused_layers
from amct_tensorflow.record.record_file import check_record
from amct_tensorflow.results.environment import log_environment
from amct_tensorflow.results.result_files import ResultFiles
from amct_tensorflow.results.summary import log_report
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase, CheckedEvaluator
from amct_tensorflow.search.predictive import PredictiveSearch
from amct_tensorflow.search.runner import own_outputs, run_search
from amct_tensorflow.search.source_code import code_of, parameters_of
from amct_tensorflow.search.state import FOLDER as STATE_FOLDER
from amct_tensorflow.search.state import RunKey, SearchState, digest
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy, CheckedStrategy
from amct_tensorflow.sensitivity.measures import (
    CosineSimilaritySensitivity,
    OutputDivergenceSensitivity,
    SensitivityBase,
)
from amct_tensorflow.storage.files import check_writable
from amct_tensorflow.storage.locks import exclusive
from amct_tensorflow.storage.publishing import finish, publish
from amct_tensorflow.version import VERSION

_NAME = "accuracy_based_auto_calibration"
_FOLDER_NAME_LENGTH = 16
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
        evaluations: number of evaluations, those of an earlier run that was resumed included.
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
    *,
    resume: bool = False,
    config_copy: str | None = None,
) -> AutoCalibrationResult:
    """Quantizes a model, rolling the most sensitive layers back to float until its accuracy suffices.

    What is found out is kept in ``amct_log``, for a run that is resumed from the same directory. All results appear
    together when the search has ended. If it is interrupted (KeyboardInterrupt) after a quantized model was evaluated,
    they are those of the best one so far.

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
        resume: go on with a run that was cut off; nothing is evaluated again that it had evaluated. If the model, the
            configuration, the code of the evaluator, or what its ``identity`` tells has changed, the run starts afresh,
            and says why.
        config_copy: where a copy of the configuration is to appear together with the results.

    Returns:
        What was found. If no configuration satisfies the requirement, the best model is saved all the same, and
        ``target_met`` is False.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        EvaluatorError: the evaluator, strategy or sensitivity is no such object, or broke its contract.
        OutputError: a result cannot be written, or another run is writing to the same folder.
        AmctError: another input cannot be used; the results of an earlier run are then left as they are.
        KeyboardInterrupt: it was interrupted; what was found out is kept.
    """
    follow_directory()  # the state and the history go to it, too
    require_path(_NAME, "model_file", model_file)
    require_names(_NAME, "outputs", outputs)
    require_path(_NAME, "record_file", record_file)
    require_path(_NAME, "config_file", config_file)
    require_path(_NAME, "save_dir", save_dir, may_be_empty=True)
    checked = CheckedEvaluator(evaluator)
    chosen_strategy = _choose("strategy", strategy, _STRATEGIES, AutoCalibrationStrategyBase)
    chosen_sensitivity = _choose("sensitivity", sensitivity, _SENSITIVITIES, SensitivityBase)
    require_type(_NAME, "resume", resume, bool)
    if config_copy is not None:
        require_path(_NAME, "config_copy", config_copy)
    files = ResultFiles(ModelPaths.of(save_dir), Path(record_file), Path(config_copy) if config_copy else None)
    model = FloatModel.load(model_file, outputs)
    graph = import_graph(model.graph_def, model.path)
    config = read_config(config_file, find_layers(graph), model.view.op_types())
    original_config = Path(config_file).read_bytes()
    config = leave_out_unused(config, model.view, outputs)
    asked = {"model_file": model_file, "outputs": outputs, "save_dir": save_dir, "record_file": record_file,
             "strategy": strategy, "sensitivity": sensitivity, "resume": resume}  # fmt: skip
    for folder in files.folders:
        check_writable(folder)
    with exclusive(files.folders):
        finish(files.folder, files.paths)
        key = _run_key(model, config, checked, chosen_sensitivity)
        log_environment(asked, key.named)
        state = _open_state(files, key, partial(_check_calibration, model, config), resume)
        result = run_search(model, config, checked, CheckedStrategy(chosen_strategy), chosen_sensitivity, state)
        if files.model.model.exists():
            log_for().warning("%s and the files beside it already exist; they will be overwritten.", files.model.model)
        publish(files.folder, files.contents(result, config, original_config))
    log_report(result, model_dir=_folder(save_dir), record_dir=_folder(record_file))
    if result.interruption is not None:
        log_for().warning("The search was interrupted; this is the best model until then.")
        raise result.interruption
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
        model_file=files.model.model,
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


def _run_key(
    model: FloatModel, config: QuantConfig, evaluator: CheckedEvaluator, sensitivity: SensitivityBase
) -> RunKey:
    """Collects what determines the results of evaluations and of the calibration; decisions are made anew."""
    comparison = own_outputs(sensitivity)
    kind = CosineSimilaritySensitivity if comparison is None else type(comparison)
    things = {
        "evaluator": evaluator.name,
        "evaluator's code": evaluator.code(),
        "model": model.graph_def.SerializeToString(deterministic=True),
        "outputs": json.dumps(model.outputs),
        "configuration": dump_config(config),
        "sensitivity": f"{kind.__module__}.{kind.__qualname__}",
        "sensitivity's code": code_of(kind, "sensitivity") + parameters_of(comparison),
        "software": f"{VERSION}, TensorFlow {tf.__version__}, NumPy {np.__version__}",
    }
    identity = {name: digest(thing) for name, thing in evaluator.identity().items()}
    return RunKey({name: digest(thing) for name, thing in things.items()}, identity)


def _open_state(
    files: ResultFiles, key: RunKey, check: Callable[[CalibrationResult], None], resume: bool
) -> SearchState:
    """Opens the state of the run that writes these files; runs that write others have their own."""
    name = digest(os.path.abspath(files.model.model))[:_FOLDER_NAME_LENGTH]  # noqa: PTH100 - resolve() follows links
    folder = LOG_DIR / STATE_FOLDER / name
    return SearchState.resume(folder, key, check) if resume else SearchState.begin(folder, key)


def _check_calibration(model: FloatModel, config: QuantConfig, calibration: CalibrationResult) -> None:
    """Checks that a calibration from a file is one of this model with this configuration.

    Raises:
        AmctError: it is not.
    """
    fused = model.fuse(unfused_layers(calibration.factors))
    shapes = {name: (layer.op_type, layer.channels) for name, layer in fused.layers.items()}
    check_record(calibration.factors, shapes, model.view.op_types(), "of the earlier run")
    expected = {*config.enabled_layers(), *(tensor.key for tensor in config.tensor_quantize)}
    channels = {name: len(correction) for name, correction in calibration.corrections.items()}
    if (
        set(calibration.factors) != expected
        or set(calibration.analyses) != set(config.enabled_layers())
        or any(count != fused.layers[name].channels for name, count in channels.items())
        or (calibration.batches and len(calibration.batches) != config.batch_num)
    ):
        raise StateError("The calibration of the earlier run does not fit the model.")


def _folder(path: str) -> str:
    """Returns the folder part of a path as the user wrote it."""
    return os.path.dirname(path) or "."  # noqa: PTH120 - Path would drop a leading "./"
