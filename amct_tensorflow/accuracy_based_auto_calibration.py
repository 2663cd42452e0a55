"""The public entry of accuracy-based automatic quantization.

Its five steps: check the arguments, read model and configuration, open the state of the run, search, publish the
results.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amct_tensorflow.devices.device_run import check_result, prepare_for_device
from amct_tensorflow.devices.device_table import Device, choose_device
from amct_tensorflow.devices.graph_check import DeviceCheck
from amct_tensorflow.errors import ArgumentValueError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.arguments import require_names, require_path, require_positive, require_type
from amct_tensorflow.io.memory import older_objects_left_alone
from amct_tensorflow.io.stages import measured_stages, stage
from amct_tensorflow.log import follow_directory, log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection import Inspection, inspect_model
from amct_tensorflow.quantization import read_config_for
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.quantized.model_files import ModelPaths
from amct_tensorflow.results.coverage import log_coverage
from amct_tensorflow.results.file_size import log_file_size
from amct_tensorflow.results.made_ahead import MadeAhead
from amct_tensorflow.results.report.collect import FinishedRun, make_report
from amct_tensorflow.results.report.page import prepared_meanwhile
from amct_tensorflow.results.report.reproduction import digest_of_file, log_environment
from amct_tensorflow.results.result_files import ResultFiles
from amct_tensorflow.results.summary import log_report
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.choices import choose_sensitivity, choose_strategy
from amct_tensorflow.search.configuration import decisions, rung_names
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.resuming import open_state
from amct_tensorflow.search.run_key import run_key
from amct_tensorflow.search.runner import run_search
from amct_tensorflow.search.sensitivity.measures import SensitivityBase
from amct_tensorflow.search.strategy import AutoCalibrationStrategyBase
from amct_tensorflow.search.trials import SearchResult
from amct_tensorflow.search.workers.handshake import own_handshake
from amct_tensorflow.search.workers.pool import Pool
from amct_tensorflow.search.workers.process_pool import ProcessPool
from amct_tensorflow.search.workers.ray_pool import RayPool
from amct_tensorflow.search.workers.scheduler import Scheduler
from amct_tensorflow.search.workers.serialization import refuse_while_deserializing


def start_scheduler(
    evaluator: bytes, identity: Mapping[str, str], num_workers: int, ray: str | None, *, exact: bool
) -> Scheduler:
    """Returns the scheduler of workers, which start when its ``with`` block is entered and end with it.

    Args:
        evaluator: the serialized evaluator.
        identity: what the evaluator's ``identity`` returns in this process, as JSON by name.
        num_workers: number of workers; on a Ray cluster, 0 stands for one per CPU.
        ray: address of the cluster; None for this machine.
        exact: whether no model runs in integers.

    Raises:
        WorkerError: the cluster does not exist or has not so many CPUs, or this process is a worker itself.
    """
    refuse_while_deserializing()
    pool: Pool = ProcessPool(num_workers, evaluator) if ray is None else RayPool(num_workers, evaluator, ray)
    return Scheduler(pool, own_handshake(identity, exact=exact))


_NAME = "accuracy_based_auto_calibration"


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
        rungs: per layer, the name of its rung in the saved model, such as ``"int8"``, ``"a16w8"`` or ``"float"``.
        float_mac_share: share of the multiply-accumulates that the saved model does in float.
        loss_interval: 95 % confidence interval of its loss, (lower, upper); None unless the evaluator offers results
            per image.
        evaluations: number of evaluations, those of an earlier run that was resumed included.
        model_file: path of the saved model.
        device_check: what the device is expected to make of it, by public rules; None without such a device.
    """

    original_metric: Any
    global_metric: Any
    saved_metric: Any
    target_met: bool
    loss: float
    roll_back_config: dict[str, bool]
    rungs: dict[str, str]
    float_mac_share: float
    loss_interval: tuple[float, float] | None
    evaluations: int
    model_file: Path
    device_check: DeviceCheck | None = None

    @classmethod
    def of(cls, result: SearchResult, model_file: Path, check: DeviceCheck | None) -> "AutoCalibrationResult":
        """Returns the summary of a search whose results are saved."""
        saved, interval = result.saved, result.interval
        return cls(
            original_metric=result.original.metric,
            global_metric=result.global_metric,
            saved_metric=saved.metric,
            target_met=saved.judged.satisfied,
            loss=saved.judged.loss,
            roll_back_config=decisions(saved.configuration),
            rungs=rung_names(saved.configuration),
            float_mac_share=result.float_mac_share,
            loss_interval=(interval.lower, interval.upper) if interval else None,
            evaluations=result.cost.evaluations,
            model_file=model_file,
            device_check=check,
        )


def accuracy_based_auto_calibration(
    model_file: str | FloatModel,
    outputs: list[str],
    record_file: str,
    config_file: str,
    save_dir: str,
    evaluator: AutoCalibrationEvaluatorBase,
    strategy: str | AutoCalibrationStrategyBase = "BinarySearch",
    sensitivity: str | SensitivityBase = "CosineSimilarity",
    *,
    resume: bool = False,
    exact: bool = False,
    config: QuantConfig | None = None,
    num_workers: int | None = None,
    ray: str | None = None,
    device: str | Device | None = None,
    free_roll_back: bool = True,
    raise_costless: bool | None = None,
) -> AutoCalibrationResult:
    """Quantizes a model, rolling the most sensitive layers back to float until its accuracy suffices.

    What is found out is kept in ``amct_log``, for a run that is resumed from the same directory. All results appear
    together when the search has ended. If it is interrupted (KeyboardInterrupt) after a quantized model was evaluated,
    they are those of the best one so far.

    Args:
        model_file: frozen float model (.pb), the directory of a SavedModel, a Keras model (.keras, .h5), a
            TensorFlow.js model (.json, or the directory of a model.json), or what ``FloatModel.load`` has made of one.
            What is not frozen is; the frozen graph appears among the results.
        outputs: output operators of the frozen graph, without ``:0``.
        record_file: file for the factors of the saved model.
        config_file: configuration from ``create_quant_config``; it is left as it is, unless ``config`` is given.
        save_dir: folder and prefix of the results.
        evaluator: runs and judges the model.
        strategy: ``"BinarySearch"``, ``"PredictiveSearch"`` (fewer evaluations, fewer layers in float), or an instance
            of ``AutoCalibrationStrategyBase``.
        sensitivity: ``"CosineSimilarity"`` (of each layer's own output), ``"OutputDivergence"`` (of the model's), or an
            instance of ``SensitivityBase``.
        resume: go on with a run that was cut off; nothing is evaluated again that it had evaluated. If the model, the
            configuration, the code of the evaluator, or what its ``identity`` tells has changed, the run starts afresh,
            and says why.
        exact: evaluate quantized models as they would be saved. Otherwise they run in integers, with the same results,
            where the processor makes that faster.
        config: a configuration from ``make_quant_config``, instead of that in ``config_file``, which is not read then,
            but written together with the results.
        num_workers: how many processes evaluate, each a share of the data; results are those of one. Without it this
            process evaluates, or on a Ray cluster one worker per CPU. The evaluator needs ``evaluate_share``.
        ray: address of an existing Ray cluster whose machines see the data under the same path; ``"auto"`` finds it.
        device: the device that the model is for. It says on which rungs layers may stand, and what they cost there:
            int8 and float if none is given; int8, activations of 16 bits and float for ``"generic"``; int8 and fp16
            for ``"ascend"``, for which the float model and the result are also checked by public rules
            (docs/ascend.md); or a ``Device`` of your own. BinarySearch knows the lowest rung and float.
        free_roll_back: whether layers that the device is expected to compute in fp16 anyway stay in float.
        raise_costless: whether layers are in float from the start that do less than 0.05 % of the
            multiply-accumulates, and more damage than half of the layers. None stands for True if there is a device.

    Returns:
        What was found. If no configuration satisfies the requirement, the best model is saved all the same, and
        ``target_met`` is False.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ArgumentValueError: an argument holds something wrong.
        EvaluatorError: the evaluator, strategy or sensitivity is no such object, or broke its contract.
        WorkerError: workers do not start, see other data, or keep dying.
        OutputError: a result cannot be written, or another run is writing to the same folder.
        AmctError: another input cannot be used; the results of an earlier run are then left as they are.
        KeyboardInterrupt: it was interrupted; what was found out is kept.
    """
    follow_directory()  # the state and the history go to it, too
    files = _check_arguments(model_file, outputs, record_file, config_file, save_dir, resume, exact, config)
    require_type(_NAME, "free_roll_back", free_roll_back, bool)
    raise_costless = device is not None if raise_costless is None else raise_costless
    require_type(_NAME, "raise_costless", raise_costless, bool)
    made_for = choose_device(_NAME, device)
    if num_workers is not None:
        require_positive(_NAME, "num_workers", num_workers)
    if ray is not None:
        require_path(_NAME, "ray", ray)
    asked = {"model_file": str(_source(model_file)), "outputs": outputs, "save_dir": save_dir,
             "record_file": record_file, "strategy": strategy, "sensitivity": sensitivity,
             "resume": resume, "exact": exact, "num_workers": num_workers, "ray": ray}  # fmt: skip
    if device is not None:
        asked |= {"device": made_for.described, "free_roll_back": free_roll_back}
    if device is not None or raise_costless:
        asked |= {"raise_costless": raise_costless}
    checked = CheckedEvaluator(evaluator)
    checked_strategy, chosen = choose_strategy(_NAME, strategy), choose_sensitivity(_NAME, sensitivity)
    # Workers import TensorFlow while this process reads the model.
    with (
        measured_stages() as clock,
        older_objects_left_alone(),
        _start_scheduler(checked, num_workers, ray, exact) as scheduler,
    ):
        model = _load(model_file, outputs)
        files = replace(files, frozen=model.frozen)
        config = config or read_config_for(model, config_file)
        demands = prepare_for_device(model, config, made_for, free_roll_back=free_roll_back)
        config = demands.config
        with files.reserved():
            key = run_key(model, config, checked, chosen)
            original = digest_of_file(model.source)
            log_environment(asked, key.named)
            inspection = inspect_model(model, config.unfused_layers())
            _log_coverage(inspection, config, demands.in_float)
            choices = {
                "strategy": checked_strategy.name,
                "device": made_for.described,
                "free_roll_back": str(free_roll_back),
                "raise_costless": str(raise_costless),
            }
            state = open_state(files.model.model, key, choices, model, config, resume=resume)
            ahead = MadeAhead(files, inspection)
            with prepared_meanwhile():
                result = run_search(
                    model, config, checked, checked_strategy, chosen, state, scheduler, exact=exact,
                    rungs=made_for.rungs, in_float=demands.in_float, raise_costless=raise_costless,
                    beside_first=ahead.make,
                )  # fmt: skip
            check: DeviceCheck | None = None
            report: dict[Path, str] = {}
            try:
                check = _check_for_device(result, made_for, model, files.model.model)
                run = FinishedRun(
                    model, original, config, inspection, checked, chosen, key, asked, result, files.model.model,
                    clock.spent(), check, ahead,
                )  # fmt: skip
                with stage("making the report"):
                    report = make_report(run, files.report_page, files.report_numbers)
            finally:  # who interrupts the drawing of figures must not lose the model either
                with stage("writing the results"):
                    files.publish(result, config, report, ahead.contents_of_model(result))
    _log_result(result, model, save_dir, record_file)
    if result.interruption is not None:
        log_for().warning("The search was interrupted; this is the best model until then.")
        raise result.interruption
    return AutoCalibrationResult.of(result, files.model.model, check)


def _log_coverage(inspection: Inspection, config: QuantConfig, in_float: Mapping[LayerName, str]) -> None:
    layers = [name for name in config.enabled_layers() if name not in in_float]
    log_coverage(inspection, layers, config.wide_layers(), config.compressed_tables(), in_float)


def _log_result(result: SearchResult, model: FloatModel, save_dir: str, record_file: str) -> None:
    log_file_size(model.original_bytes, result.quantized, model.tables, result.plan.tables)
    log_report(result, model_dir=_folder(save_dir), record_dir=_folder(record_file))


def _check_for_device(result: SearchResult, device: Device, model: FloatModel, model_file: Path) -> DeviceCheck | None:
    """Returns what a device is expected to make of the saved model, and logs it; None if nothing is known of it."""
    summaries = result.calibration.summaries
    ranges = {str(name): (each.lowest, each.highest) for name, each in summaries.items()}
    return check_result(device, result.quantized.graph_def, model.outputs, str(model_file), ranges)


def _start_scheduler(
    evaluator: CheckedEvaluator, num_workers: int | None, ray: str | None, exact: bool
) -> AbstractContextManager[Scheduler | None]:
    """Returns the scheduler of the workers asked for; None if this process evaluates.

    Raises:
        EvaluatorError: the evaluator cannot be shared out.
        WorkerError: the cluster does not exist, or has not so many CPUs.
    """
    if ray is None and num_workers in (None, 1):
        return nullcontext()
    return start_scheduler(evaluator.serialized(), evaluator.identity(), num_workers or 0, ray, exact=exact)


def _check_arguments(
    model_file: str | FloatModel,
    outputs: list[str],
    record_file: str,
    config_file: str,
    save_dir: str,
    resume: bool,
    exact: bool,
    config: QuantConfig | None,
) -> ResultFiles:
    """Checks the arguments other than the user's own objects; returns where the results go."""
    require_path(_NAME, "model_file", _source(model_file))
    require_names(_NAME, "outputs", outputs)
    require_path(_NAME, "record_file", record_file)
    require_path(_NAME, "config_file", config_file)
    require_path(_NAME, "save_dir", save_dir, may_be_empty=True)
    require_type(_NAME, "resume", resume, bool)
    require_type(_NAME, "exact", exact, bool)
    if config is not None:
        require_type(_NAME, "config", config, QuantConfig)
    return ResultFiles(ModelPaths.of(save_dir), Path(record_file), None if config is None else Path(config_file), None)


def _load(model_file: str | FloatModel, outputs: list[str]) -> FloatModel:
    """Returns the model to quantize.

    Raises:
        ArgumentValueError: it was loaded with other outputs.
        ModelError: it cannot be used.
    """
    if not isinstance(model_file, FloatModel):
        return FloatModel.load(model_file, outputs)
    if model_file.outputs != tuple(outputs):
        raise ArgumentValueError(
            f"{_NAME}: outputs is {outputs}, but model_file was loaded with {list(model_file.outputs)}. Give the same."
        )
    return model_file


def _source(model_file: str | FloatModel) -> str | Path:
    """Returns what messages call the model: its path, if it has one."""
    return model_file.source if isinstance(model_file, FloatModel) else model_file


def _folder(path: str) -> str:
    """Returns the folder part of a path as the user wrote it."""
    return os.path.dirname(path) or "."  # noqa: PTH120 - Path would drop a leading "./"
