"""``amct_tensorflow check``: tells what the compiler of a device is expected to make of a model."""

import shutil
import sys
from argparse import ArgumentParser, Namespace

from amct_tensorflow.cli.options import MODEL_FORMS, Command, Gather, add_json, add_outputs, input_shapes
from amct_tensorflow.devices.device_table import ASCEND, DEVICES
from amct_tensorflow.io.run_as_command import show

ERRORS_FOUND = 3

_EXAMPLES = """
  %(prog)s results/net_quantized.pb --device ascend
  %(prog)s net.pb --input_shape "input:1,224,224,3" --json
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "%(prog)s MODEL [options]"
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"PREFIX_quantized.pb, or a float model: {MODEL_FORMS}")
    add("--device", choices=[each.name for each in DEVICES.values() if each.has_rules], default=ASCEND.name,
        help="the device (default: %(default)s)")  # fmt: skip
    add_outputs(parser, "output operators (default: all nodes are examined)")
    add("--input_shape", metavar="SHAPES", action=Gather, type=input_shapes, default={},
        help='shapes of inputs, where the model leaves them open: "name:1,224,224,3;other:1,7"')  # fmt: skip
    add("--report", metavar="PATH", help="report.json of the run, for the ranges of values in calibration "
        "(default: the one beside the model)")  # fmt: skip
    add_json(parser)


def _run(arguments: Namespace) -> int:
    from amct_tensorflow.devices.check_text import dump_check, format_check
    from amct_tensorflow.results.model_check import check

    found = check(
        arguments.model,
        [name for names in arguments.outputs for name in names],
        device=arguments.device,
        input_shapes=arguments.input_shape,
        report=arguments.report,
    )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    model = str(arguments.model)
    show(dump_check(found, model) if arguments.json else format_check(found, model, width))
    return ERRORS_FOUND if found.errors else 0


CHECK = Command(
    "check",
    "tell what the compiler of a device will make of a model",
    _add_arguments,
    _run,
    _EXAMPLES,
    models=("model",),
)
