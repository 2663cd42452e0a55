"""``amct_tensorflow export``: exports the quantized model of a run for a runtime with int8 kernels."""

import json
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from amct_tensorflow.cli.options import (
    Command,
    Gather,
    add_json,
    add_outputs,
    add_raw_data,
    non_negative_float,
    positive_int,
)
from amct_tensorflow.errors import ModelNotFoundError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.io.memory import import_tensorflow
from amct_tensorflow.io.run_as_command import show
from amct_tensorflow.log import log_for

if TYPE_CHECKING:
    from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase


def find_result(given: str | Path) -> Path:
    """Returns the quantized model of a run.

    Args:
        given: the folder of its results, their prefix (``results/net``), or the quantized model itself.

    Raises:
        ModelNotFoundError: there is none, or a folder holds several.
    """
    from amct_tensorflow.quantize.quantized.model_files import MODEL_ENDING, ModelPaths

    path = Path(given)
    if path.is_dir():
        found = sorted(path.glob(f"*{MODEL_ENDING}"))
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise ModelNotFoundError(f"{path} holds several quantized models: {names}. Give the path of one.")
        if not found:
            raise ModelNotFoundError(f"{path} holds no PREFIX_{MODEL_ENDING}. Give the folder of the results of a run.")
        return found[0]
    if path.is_file():
        return path
    model = ModelPaths.of(path).model
    if not model.is_file():
        raise ModelNotFoundError(
            f"There is neither {path} nor {model}. Give the folder, the prefix, or the PREFIX_{MODEL_ENDING} of a run."
        )
    return model


DIFFERS = 3

# Twice what 8 bits at every output of a layer cost on the networks in benchmarks/README.md.
_LIMIT = 0.01
_EXAMPLES = """
  %(prog)s outputs/accuracy_based_auto_calibration --to tflite --evaluator my_evaluator.py
  %(prog)s results/net --to onnx --data images.npy --labels labels.npy
  %(prog)s results/net --to openvino --data_dir bins/ --input_shape "input:32,224,224,3" --data_types float32
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "%(prog)s RESULT --to FORMAT (--evaluator FILE | --data FILE... | --data_dir DIRS) [options]"
    add = parser.add_argument
    add("result", metavar="RESULT", help="folder or prefix of the results of a run, or its PREFIX_quantized.pb")
    add("--to", choices=list(TARGETS), required=True, help="the format (required)")
    add("--evaluator", metavar="FILE", help="a Python file that makes an evaluator, as for auto-calibrate")
    add("--data", metavar="FILE", nargs="+", action=Gather,
        help="a batch per file: .npz with an array per input, or .npy for the only input")  # fmt: skip
    add("--labels", metavar="FILE", help="with --data: .npy with the class of each image, as the model counts them")
    add_raw_data(parser)
    add("--batch_num", metavar="N", type=positive_int,
        help="how many of the batches of --data or --data_dir calibrate (default: 1)")  # fmt: skip
    add_outputs(parser, "outputs of the model (default: those that it was quantized for)")
    add("--between", choices=("float", "int8"), default="float",
        help="how residual Adds between quantized layers are computed: float, or int8, which is faster, and rounds "
        "once more (default: %(default)s; openvino has no use for int8: its kernels add in float on the way)",
    )  # fmt: skip
    add("--weight_bits", type=int, choices=(7, 8), default=8,
        help="7 for x86 processors without VNNI, on which ONNX Runtime and OpenVINO saturate products of weights in 8 "
        "bits (default: %(default)s; tflite needs no 7 anywhere)")  # fmt: skip
    add("--output", metavar="PREFIX", help="folder and prefix of the files (default: those of the result)")
    add("--max_divergence", metavar="D", type=non_negative_float,
        help="how far the outputs may lie from those of the simulation; of probabilities, mean KL divergence in nats "
        f"(default: {_LIMIT}, or how far rounding moves the simulation itself from float, if that is more); a file "
        "beyond that gets a name with _diverges, and the exit code is 3")  # fmt: skip
    add_json(parser)


def _check(parser: ArgumentParser, arguments: Namespace) -> None:
    given = [bool(each) for each in (arguments.evaluator, arguments.data, arguments.data_dir)]
    if sum(given) != 1:
        parser.error("give one of --evaluator, --data and --data_dir: the file is checked on these images")
    if bool(arguments.data_dir) != bool(arguments.data_types) or bool(arguments.data_dir) != bool(
        arguments.input_shape
    ):
        parser.error("--data_dir, --input_shape and --data_types belong together")
    if arguments.labels and not arguments.data:
        parser.error("--labels belongs to --data")
    if arguments.batch_num and arguments.evaluator:
        parser.error("--batch_num has no effect; the evaluator says how many batches calibrate")
    if arguments.data and (arguments.batch_num or 1) > len(arguments.data):
        parser.error(f"--batch_num is {arguments.batch_num}, but --data gives {len(arguments.data)} batches")


def _run(arguments: Namespace) -> int:
    model = find_result(arguments.result)  # that there is none shows before TensorFlow is imported
    import_tensorflow()

    from amct_tensorflow.export.export_model import export_model
    from amct_tensorflow.export.export_report import format_document
    from amct_tensorflow.quantize.quantized.model_files import prefix_of
    from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

    document = export_model(
        model,
        [name for names in arguments.outputs for name in names],
        TARGETS[arguments.to],
        CheckedEvaluator(_evaluator(arguments, model)),
        Path(arguments.output) if arguments.output else prefix_of(model),
        _LIMIT if arguments.max_divergence is None else arguments.max_divergence,
        sums_in_int8=arguments.between == "int8",
        weight_bits=arguments.weight_bits,
        rises=arguments.max_divergence is None,
    )
    _renew_report(model.parent)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    show(json.dumps(document, indent=1) if arguments.json else format_document(document, width))
    return 0 if document["within_limit"] else DIFFERS


def _renew_report(folder: Path) -> None:
    """Shows the export in the report of the run, if that is there; the export is made all the same if it cannot be."""
    from amct_tensorflow.errors import AmctError, ReportNotFoundError
    from amct_tensorflow.results.report.report_files import renew

    try:
        renew(folder)
    except ReportNotFoundError:
        return
    except AmctError as error:
        log_for("export").warning("The report of the run does not show the export: %s", error)


def _evaluator(arguments: Namespace, model: Path) -> "AutoCalibrationEvaluatorBase":
    if arguments.evaluator:
        from amct_tensorflow.search.evaluator_file import derived_evaluator, load_evaluator

        return derived_evaluator(load_evaluator(arguments.evaluator), arguments.evaluator)
    if arguments.data_dir:
        from amct_tensorflow.search.graph_evaluator import GraphEvaluator

        return GraphEvaluator(
            arguments.data_dir, arguments.input_shape, arguments.data_types, batch_num=arguments.batch_num or 1
        )
    from amct_tensorflow.export.file_evaluator import FileEvaluator
    from amct_tensorflow.model.input_batches import read_labels

    labels = read_labels(arguments.labels) if arguments.labels else None
    return FileEvaluator(arguments.data, model, arguments.batch_num or 1, labels)


EXPORT = Command(
    "export", "export the quantized model of a run to TensorFlow Lite, ONNX or OpenVINO", _add_arguments, _run,
    _EXAMPLES, _check,
)  # fmt: skip
