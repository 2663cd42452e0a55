"""``amct_tensorflow calibration``: calibrates and quantizes a model in one go (spec section 11)."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from amct_tensorflow.cli.options import (
    Command,
    add_device,
    add_original_options,
    add_raw_data,
    add_tables,
    positive_int,
)
from amct_tensorflow.log import log_for

if TYPE_CHECKING:
    from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

_EXAMPLES = """
  %(prog)s --model net.pb --outputs "scores:0" --save_path results/net --data_dir bins/ --input_shape "input:32,224,224,3" --data_types float32
  %(prog)s --model net.pb --outputs "scores:0" --save_path results/net --evaluator my_evaluator.py --batch_num 2
"""  # noqa: E501


def _add_arguments(parser: ArgumentParser) -> None:
    add_original_options(parser)
    add_raw_data(parser)
    add = parser.add_argument
    add("--evaluator", metavar="FILE", help="in place of data: a Python file that makes an object whose method "
        "calibration(graph, outputs) runs the batches")  # fmt: skip
    add("--calibration_config", metavar="CFG",
        help="simplified configuration of how to quantize (default: every layer, every default)")  # fmt: skip
    add("--batch_num", metavar="N", type=positive_int, help="batches to calibrate on (default: 1)")
    add_tables(parser)
    add_device(parser)
    add("--feature", metavar="NAME", help="taken for compatibility; has no effect")


def _check(parser: ArgumentParser, arguments: Namespace) -> None:
    if arguments.calibration_config and arguments.weight_compress_only:
        parser.error(f"--weight_compress_only has no effect; set it in common_config of {arguments.calibration_config}")
    data = {name: getattr(arguments, name) for name in ("data_dir", "input_shape", "data_types")}
    if arguments.evaluator and any(data.values()):
        parser.error(f"--evaluator excludes {', '.join(f'--{name}' for name, value in data.items() if value)}")
    if not arguments.evaluator and not all(data.values()):
        missing = ", ".join(f"--{name}" for name, value in data.items() if not value)
        parser.error(f"the following arguments are required without --evaluator: {missing}")


def _run(arguments: Namespace) -> int:
    from amct_tensorflow.devices.device_run import check_result, prepare_for_device
    from amct_tensorflow.devices.device_table import choose_device
    from amct_tensorflow.io.files import check_writable
    from amct_tensorflow.model.float_model import FloatModel
    from amct_tensorflow.model.inspection import inspect_model
    from amct_tensorflow.quantization import make_quant_config
    from amct_tensorflow.quantize.calibration.calibrate import prepare_calibration
    from amct_tensorflow.quantize.quantized.builder import quantize_graph
    from amct_tensorflow.quantize.quantized.model_files import ModelPaths, write_quantized_model
    from amct_tensorflow.quantize.quantized.node_map import dump_node_map
    from amct_tensorflow.quantize.record.factors import unfused_layers
    from amct_tensorflow.results.coverage import log_coverage
    from amct_tensorflow.results.file_size import log_file_size

    if arguments.feature is not None:
        log_for("calibration").warning("--feature %s has no effect.", arguments.feature)
    paths = ModelPaths.of(arguments.save_path)
    check_writable(paths.model.parent)
    model = FloatModel.load(arguments.model, [name for names in arguments.outputs for name in names])
    config = make_quant_config(
        model,
        batch_num=arguments.batch_num or 1,
        config_defination=arguments.calibration_config,
        weight_compress_only=arguments.weight_compress_only,
    )
    if arguments.batch_num not in (None, config.batch_num):  # the original's takes it, and so do its scripts
        log_for("calibration").warning("--batch_num has no effect; set batch_num in %s.", arguments.calibration_config)
    device = choose_device("calibration", arguments.device)
    demands = prepare_for_device(model, config, device, free_roll_back=arguments.free_roll_back)
    config = demands.config.with_enabled(dict.fromkeys(demands.in_float, False))
    evaluator = _evaluator(arguments, config.batch_num)
    inspection = inspect_model(model, config.unfused_layers())
    log_coverage(
        inspection, config.enabled_layers(), config.wide_layers(), config.compressed_tables(), demands.in_float
    )
    prepared = prepare_calibration(model, config, evaluator.calibrate)
    prepared.run()
    calibration = prepared.result()
    plan = calibration.plan(model.fuse(unfused_layers(calibration.factors), calibration.balance), model.outputs)
    quantized = quantize_graph(plan)
    write_quantized_model(paths, quantized.model, dump_node_map(quantized), model.frozen)
    log_file_size(model.original_bytes, quantized, model.tables, plan.tables)
    log_for("save_model").info("The model is saved in %s", paths.model)
    check_result(device, quantized.graph_def, model.outputs, str(paths.model), {})
    return 0


def _evaluator(arguments: Namespace, batch_num: int) -> "CheckedEvaluator":
    """Returns the evaluator that runs the batches."""
    from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
    from amct_tensorflow.search.evaluator_file import CalibratingEvaluator, load_evaluator
    from amct_tensorflow.search.graph_evaluator import GraphEvaluator

    if arguments.evaluator:
        evaluator = load_evaluator(arguments.evaluator)
        return CheckedEvaluator(CalibratingEvaluator(evaluator), type(evaluator).__name__)
    data = arguments.data_dir, arguments.input_shape, arguments.data_types
    return CheckedEvaluator(GraphEvaluator(*data, batch_num=batch_num))


CALIBRATION = Command(
    "calibration", "calibrate a model, and quantize it", _add_arguments, _run, _EXAMPLES, _check, models=("model",)
)
