"""``amct_tensorflow convert``: makes a quantized model from known factors (spec section 11).

With a record, it takes the factors from there. Without one it takes a model that was trained with fake quantization, as
the original's command always does.
"""

from argparse import ArgumentParser, Namespace

from amct_tensorflow.cli.options import Command, add_original_options

_EXAMPLES = """
  %(prog)s --model net.pb --record_file record.txt --outputs "scores:0" --save_path results/net
  %(prog)s --model qat.pb --outputs "scores:0" --save_path results/net
"""


def _add_arguments(parser: ArgumentParser) -> None:
    add_original_options(parser)
    parser.add_argument(
        "--record_file", metavar="TXT",
        help="the factors of a float model (default: the model was trained for quantization, and its fake quantizers "
        "imply them)",
    )  # fmt: skip


def _run(arguments: Namespace) -> int:
    from amct_tensorflow.quantization import convert_model, convert_qat_model

    outputs = [name for names in arguments.outputs for name in names]
    if arguments.record_file is None:
        convert_qat_model(arguments.model, outputs, arguments.save_path)
    else:
        convert_model(arguments.model, outputs, arguments.record_file, arguments.save_path)
    return 0


CONVERT = Command(
    "convert", "make the quantized model for factors that are known", _add_arguments, _run, _EXAMPLES, models=("model",)
)
