"""``amct_tensorflow auto-calibrate``: accuracy-based automatic quantization of any model."""

import json
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amct_tensorflow.cli.options import (
    Command,
    Gather,
    add_device,
    add_json,
    add_model,
    add_tables,
    add_workers,
    finite_float,
    non_negative_float,
    percentage,
    positive_int,
)
from amct_tensorflow.io.run_as_command import show
from amct_tensorflow.log import log_for
from amct_tensorflow.search.agreement import AGREEMENTS
from amct_tensorflow.search.choices import SENSITIVITIES, STRATEGIES

if TYPE_CHECKING:
    from amct_tensorflow.accuracy_based_auto_calibration import AutoCalibrationResult
    from amct_tensorflow.devices.graph_check import DeviceCheck
    from amct_tensorflow.model.float_model import FloatModel
    from amct_tensorflow.search.agreement_evaluator import DataFiles
    from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

TARGET_MISSED = 3

_FOLDER = "./outputs/accuracy_based_auto_calibration"
_EXAMPLES = """
  %(prog)s net.pb --evaluator my_evaluator.py
  %(prog)s net.pb --evaluator my_evaluator.py --target 0.5 --batch_num 4 --save_dir results/net
  %(prog)s net.pb --evaluator my_evaluator.py --target 0.5 --save_dir results/net --resume
  %(prog)s net.pb --data batches/*.npy --agreement 99
  %(prog)s net.pb --data batches/*.npy --labels labels.npy --target 0.5
"""


def _add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.usage = "%(prog)s MODEL {--evaluator FILE | --data FILE... [--labels FILE]} [options]"
    add = parser.add_argument
    add(
        "--evaluator",
        metavar="FILE",
        help="a Python file that makes an evaluator, an instance of a class derived from AutoCalibrationEvaluatorBase",
    )
    add("--data", metavar="FILE", nargs="+", action=Gather,
        help="instead of an evaluator, batches to calibrate and to evaluate on: .npz with an array per input, or .npy "
        "for the only input")  # fmt: skip
    add(
        "--agreement",
        metavar="PERCENT",
        type=percentage,
        help="with --data: how far the model must agree with the float model, see --measure",
    )
    add("--measure", choices=list(AGREEMENTS), help="with --agreement: what is counted (default: what suits the first "
        "output): the class with the highest score, the nearest neighbour of an embedding, or detections "
        "(x0, y0, x1, y1, score, class) by their F1 score")  # fmt: skip
    add("--snr", metavar="DB", type=finite_float, help="with --data: the least ratio of an output to its error, in dB")
    add("--labels", metavar="FILE", help="with --data and --target: an .npy file with the class of each image, as the "
        "model counts them; the number is the top-1 accuracy in percent")  # fmt: skip
    add("--target", metavar="LOSS", type=non_negative_float,
        help="the most that may be lost of the number that evaluate() returns (default: as metric_eval() of the "
        "evaluator says)")  # fmt: skip
    add("--lower_is_better", action="store_true", help="with --target: the number is an error, not an accuracy")
    add("--save_dir", metavar="PREFIX", help="folder of the results and prefix of their names (default: "
        f"{_FOLDER}/ and the name of the model)")  # fmt: skip
    add("--calibration_config", "--config_defination", metavar="CFG",
        help="simplified configuration of how to quantize (default: every layer, every default)")  # fmt: skip
    add("--batch_num", metavar="N", type=positive_int, help="batches to calibrate on (default: 1; with --data, as "
        "many files as hold 32 images)")  # fmt: skip
    add_tables(parser)
    add("--strategy", choices=list(STRATEGIES), default="PredictiveSearch",
        help="search strategy (default: %(default)s)")  # fmt: skip
    add("--sensitivity", choices=list(SENSITIVITIES), default="OutputDivergence",
        help="measure that ranks the layers (default: %(default)s)")  # fmt: skip
    add_device(parser)
    add("--raise_costless", choices=["yes", "no"], help="whether layers are in float from the start that do less than "
        "0.05 %% of the multiply-accumulates, and more damage than half of the layers (default: with --device, "
        "yes)")  # fmt: skip
    add_workers(parser)
    add("--resume", action="store_true", help="go on with a run that was cut off (default: start afresh)")
    add("--exact", action="store_true", help="evaluate every quantized model as it would be saved (default: in "
        "integers where the processor makes that faster, with the same results)")  # fmt: skip
    add_json(parser)


def _check(parser: ArgumentParser, arguments: Namespace) -> None:
    if arguments.calibration_config and arguments.batch_num:
        parser.error(f"--batch_num has no effect; set batch_num in {arguments.calibration_config}")
    if arguments.calibration_config and arguments.weight_compress_only:
        parser.error(f"--weight_compress_only has no effect; set it in common_config of {arguments.calibration_config}")
    if arguments.lower_is_better and arguments.target is None:
        parser.error("--lower_is_better has no effect without --target")
    if bool(arguments.evaluator) == bool(arguments.data):
        parser.error("give either --evaluator, or --data with what is asked for")
    if arguments.data:
        _check_data(parser, arguments)
    elif arguments.labels or arguments.measure or arguments.agreement is not None or arguments.snr is not None:
        parser.error("--labels, --agreement, --measure and --snr belong to --data")


def _check_data(parser: ArgumentParser, arguments: Namespace) -> None:
    asked = [arguments.agreement is not None, arguments.snr is not None, arguments.labels is not None]
    if sum(asked) != 1:
        parser.error("with --data, give one of --agreement, --snr, and --labels with --target")
    if bool(arguments.labels) != (arguments.target is not None):
        parser.error("--labels and --target belong together, if there is --data")
    if arguments.lower_is_better:
        parser.error("--lower_is_better is for --evaluator")
    if arguments.measure and arguments.agreement is None:
        parser.error("--measure has no effect without --agreement")


def _run(arguments: Namespace) -> int:
    from amct_tensorflow.accuracy_based_auto_calibration import accuracy_based_auto_calibration
    from amct_tensorflow.quantization import make_quant_config

    evaluator = _evaluator(arguments) if arguments.evaluator else None
    model = _load(arguments.model, [name for names in arguments.outputs for name in names])
    # A simplified configuration says itself on how many batches to calibrate; else the data does.
    files = _files(arguments, model) if arguments.data and not arguments.calibration_config else None
    config = make_quant_config(
        model,
        batch_num=arguments.batch_num or (1 if files is None else len(files.calibration)),
        config_defination=arguments.calibration_config,
        weight_compress_only=arguments.weight_compress_only,
    )
    if evaluator is None:
        evaluator = _agreement(arguments, model, files or _files(arguments, model, config.batch_num))
    save_dir = arguments.save_dir or f"{_FOLDER}/{Path(arguments.model).stem}"
    folder = save_dir.rpartition("/")[0] or "."
    result = accuracy_based_auto_calibration(
        model_file=model,
        outputs=list(model.outputs),
        record_file=f"{folder}/record.txt",
        config_file=f"{folder}/config.json",
        save_dir=save_dir,
        evaluator=evaluator,
        strategy=arguments.strategy,
        sensitivity=arguments.sensitivity,
        resume=arguments.resume,
        exact=arguments.exact,
        config=config,
        num_workers=arguments.num_workers,
        ray=arguments.ray,
        device=arguments.device,
        free_roll_back=arguments.free_roll_back,
        raise_costless=None if arguments.raise_costless is None else arguments.raise_costless == "yes",
    )
    if arguments.json:
        show(json.dumps(_document(result), indent=1))
    return 0 if result.target_met else TARGET_MISSED


def _load(path: str, outputs: list[str]) -> "FloatModel":
    """Returns the model with the outputs that are asked for, else with those that nothing reads."""
    from amct_tensorflow.errors import ModelError
    from amct_tensorflow.model.endpoints import find_outputs
    from amct_tensorflow.model.float_model import FloatModel

    model = FloatModel.load(path, outputs)
    if outputs:
        return model
    found = [end.name for end in find_outputs(model)]
    if not found:
        raise ModelError(f"Nothing in {path} looks like an output. Name it with --outputs.")
    log_for("auto_calibrate").info("The outputs of %s are taken to be %s.", path, ", ".join(found))
    return model.with_outputs(found)


def _evaluator(arguments: Namespace) -> "AutoCalibrationEvaluatorBase":
    from amct_tensorflow.errors import EvaluatorError
    from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
    from amct_tensorflow.search.evaluator_file import Target, derived_evaluator, load_evaluator

    evaluator = derived_evaluator(load_evaluator(arguments.evaluator), arguments.evaluator)
    has_own = type(evaluator).metric_eval is not AutoCalibrationEvaluatorBase.metric_eval
    name = type(evaluator).__name__
    if arguments.target is None:
        if not has_own:
            raise EvaluatorError(f"{name} does not implement metric_eval(). Give the most that may be lost: --target.")
        return evaluator
    if has_own:
        log_for("auto_calibrate").info("--target %g counts, not metric_eval() of %s.", arguments.target, name)
    # Of this one object alone: its class, by which a run that is resumed is known, stays as it is.
    evaluator.metric_eval = Target(arguments.target, arguments.lower_is_better)  # type: ignore[method-assign]
    return evaluator


def _files(arguments: Namespace, model: "FloatModel", calibration_files: int | None = None) -> "DataFiles":
    """Returns the data, divided."""
    from amct_tensorflow.model.endpoints import find_inputs
    from amct_tensorflow.search.agreement_evaluator import divide_files

    inputs = find_inputs(model, model.outputs)
    return divide_files(arguments.data, inputs, calibration_files or arguments.batch_num)


def _agreement(arguments: Namespace, model: "FloatModel", files: "DataFiles") -> "AutoCalibrationEvaluatorBase":
    """Returns the evaluator that compares outputs with those of the float model, or with labels."""
    from amct_tensorflow.model.input_batches import read_labels
    from amct_tensorflow.search.agreement import CLASSES, NOISE, noise_of, suitable_agreement
    from amct_tensorflow.search.agreement_evaluator import AgreementEvaluator, described, first_outputs

    log_for("auto_calibrate").info("%s", described(files))
    graph_def = model.graph_def.SerializeToString(deterministic=True)
    if arguments.labels:
        return AgreementEvaluator(graph_def, files, CLASSES, arguments.target, read_labels(arguments.labels))
    if arguments.snr is not None:
        log_for("auto_calibrate").info("What counts is %s; %g dB are a ratio of %.4g.", NOISE.summary, arguments.snr,
                                       noise_of(arguments.snr))  # fmt: skip
        return AgreementEvaluator(graph_def, files, NOISE, noise_of(arguments.snr))
    known = AGREEMENTS.get(arguments.measure)
    measure = known or suitable_agreement(first_outputs(graph_def, model.outputs, files))
    log_for("auto_calibrate").info("What counts is %s, in percent.", measure.summary)
    return AgreementEvaluator(graph_def, files, measure, 100.0 - arguments.agreement)


def _document(result: "AutoCalibrationResult") -> dict[str, Any]:
    """Returns the result, as JSON can hold it."""
    return {
        "version": 1,
        "original_metric": _value(result.original_metric),
        "global_metric": _value(result.global_metric),
        "saved_metric": _value(result.saved_metric),
        "target_met": result.target_met,
        "loss": _value(result.loss),
        "loss_interval": result.loss_interval,
        "layers_in_float": [name for name, quantized in result.roll_back_config.items() if not quantized],
        "layers": len(result.roll_back_config),
        "rungs": result.rungs,
        "float_mac_share": result.float_mac_share,
        "evaluations": result.evaluations,
        "model_file": str(result.model_file),
        "device_check": None if result.device_check is None else _checked(result.device_check, result.model_file),
    }


def _checked(check: "DeviceCheck", model: Path) -> dict[str, Any]:
    from amct_tensorflow.devices.check_text import document_of

    return document_of(check, str(model))


def _value(metric: Any) -> int | float | str:
    """Returns a number as it is if JSON knows it, and anything else as text."""
    known = isinstance(metric, int) or (isinstance(metric, float) and math.isfinite(metric))
    return metric if known else str(metric)


AUTO_CALIBRATE = Command(
    "auto-calibrate", "quantize a model, but for layers that its accuracy needs in float", _add_arguments, _run,
    _EXAMPLES, _check, "Interrupted. Give the same command with --resume to go on; nothing is evaluated twice.",
    ("model",),
)  # fmt: skip
