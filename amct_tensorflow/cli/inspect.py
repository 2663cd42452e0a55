"""``amct_tensorflow inspect``: shows what of a model can be quantized, before any data is at hand."""

import shutil
import sys
from argparse import ArgumentParser, Namespace

from amct_tensorflow.cli.options import Command, Gather, add_json, add_model, input_shapes
from amct_tensorflow.io.run_as_command import show


def _add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--input_shape", metavar="SHAPES", action=Gather, type=input_shapes, default={},
        help='shapes of inputs, where the model leaves them open: "name:1,224,224,3;other:1,7"',
    )  # fmt: skip
    add_json(parser)


def _run(arguments: Namespace) -> int:
    from amct_tensorflow.model.float_model import FloatModel
    from amct_tensorflow.model.input_shapes import with_input_shapes
    from amct_tensorflow.model.inspection import inspect_model
    from amct_tensorflow.model.inspection_output import dump_inspection, format_inspection

    model = FloatModel.load(arguments.model, [name for names in arguments.outputs for name in names])
    inspection = inspect_model(with_input_shapes(model, arguments.input_shape) if arguments.input_shape else model)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    show(dump_inspection(inspection) if arguments.json else format_inspection(inspection, width))
    return 0


_EXAMPLES = """
  %(prog)s net.pb
  %(prog)s saved_model/ --input_shape "input:1,224,224,3" --json
"""

INSPECT = Command("inspect", "show what the tool makes of a model", _add_arguments, _run, _EXAMPLES, models=("model",))
