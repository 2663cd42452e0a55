"""``amct_tensorflow convert``: makes a quantized model of one whose factors are known (spec section 11)."""

from argparse import ArgumentParser, Namespace

from amct_tensorflow.commands.command import Command
from amct_tensorflow.commands.options import add_original_options

_EXAMPLES = """
  %(prog)s --model net.pb --record_file record.txt --outputs "scores:0" --save_path results/net
  %(prog)s --model qat.pb --outputs "scores:0" --save_path results/net
"""


def _add_arguments(parser: ArgumentParser) -> None:
    add_original_options(parser)
    parser.add_argument(
        "--record_file", metavar="TXT",
        help="the factors (default: those that the fake quantizers of a model trained for quantization imply)",
    )  # fmt: skip


def _run(arguments: Namespace) -> int:
    from amct_tensorflow.quantization import convert_model

    outputs = [name for names in arguments.outputs for name in names]
    convert_model(arguments.model, outputs, arguments.record_file, arguments.save_path)
    return 0


CONVERT = Command("convert", "make the quantized model for factors that are known", _add_arguments, _run, _EXAMPLES)
