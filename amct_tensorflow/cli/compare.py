"""``amct_tensorflow compare``: shows where a quantized model differs from the float model that it was made from."""

import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from amct_tensorflow.cli.options import (
    MODEL_FORMS,
    Command,
    Gather,
    add_json,
    add_outputs,
    add_raw_data,
    finite_float,
    positive_int,
)
from amct_tensorflow.io.run_as_command import show
from amct_tensorflow.log import log_for

if TYPE_CHECKING:
    from amct_tensorflow.model.endpoints import Endpoint
    from amct_tensorflow.model.input_batches import Batch

_EXAMPLES = """
  %(prog)s net.pb results/net_quantized.pb
  %(prog)s net.pb results/net_quantized.pb --data images.npy --json
  %(prog)s net.pb results/net_quantized.pb --data_dir bins/ --input_shape "input:32,224,224,3" --data_types float32
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "%(prog)s ORIGINAL QUANTIZED [options]"
    add = parser.add_argument
    add("original", metavar="ORIGINAL", help=f"the float model: {MODEL_FORMS}")
    add("quantized", metavar="QUANTIZED", help="what was made of it: PREFIX_quantized.pb")
    add("--node_map", metavar="JSON", help="its node map (default: PREFIX_quant.json beside it)")
    add_outputs(parser, "outputs to compare (default: those of the quantized model)")
    add("--data", metavar="FILE", nargs="+", action=Gather,
        help="a batch per file: .npz with an array per input, or .npy for the only input (default: random values)",
    )  # fmt: skip
    add_raw_data(parser, ", also of random values")
    add("--batch_num", metavar="N", type=positive_int, help="number of batches (default: all; 1 of random values)")
    add("--range", metavar=("LOW", "HIGH"), nargs=2, type=finite_float,
        help="random values lie between these (default: -1 1, and none for inputs that take integers)",
    )  # fmt: skip
    add("--float16", action="store_true", help="round what each AscendDequant yields to float16, as Ascend 910B hands "
        "it on (default: float32)")  # fmt: skip
    add("--seed", metavar="N", type=positive_int, default=1, help="seed of random values (default: 1)")
    add_json(parser)


def _check(parser: ArgumentParser, arguments: Namespace) -> None:
    has_data = arguments.data or arguments.data_dir
    if arguments.data and (arguments.data_dir or arguments.data_types or arguments.input_shape):
        parser.error("give --data, or --data_dir with --input_shape and --data_types, but not both")
    if bool(arguments.data_dir) != bool(arguments.data_types) or (arguments.data_dir and not arguments.input_shape):
        parser.error("--data_dir, --input_shape and --data_types belong together")
    if arguments.range and has_data:
        parser.error("--range is for random values, but there is data")
    if arguments.range and not arguments.range[0] < arguments.range[1]:
        parser.error("--range: LOW must be below HIGH")


def _run(arguments: Namespace) -> int:
    from amct_tensorflow.model.endpoints import find_inputs
    from amct_tensorflow.model.float_model import FloatModel
    from amct_tensorflow.results.comparison.comparison_text import dump_comparison, format_comparison
    from amct_tensorflow.results.comparison.correspondence import read_mapped_model
    from amct_tensorflow.results.comparison.layer_comparison import compare_models

    quantized = read_mapped_model(arguments.quantized, arguments.node_map)
    if arguments.float16:
        quantized = quantized.with_float16_values()
    outputs = [name for names in arguments.outputs for name in names] or list(quantized.outputs)
    model = FloatModel.load(arguments.original, outputs)
    data = _data(arguments)
    log_for("compare").info("The models are compared on %s.", _said(data))
    batches = islice(_batches(arguments, find_inputs(model, outputs)), arguments.batch_num)
    comparison = compare_models(model, quantized, outputs, batches)
    if arguments.json:
        show(dump_comparison(comparison, arguments.original, arguments.quantized, data))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        show(format_comparison(comparison, _said(data), width))
    return 0


def _data(arguments: Namespace) -> dict[str, Any]:
    """Returns on what data the models are compared."""
    if arguments.data or arguments.data_dir:
        return {"files": arguments.data or arguments.data_dir}
    return {"random": arguments.range or [-1.0, 1.0], "seed": arguments.seed}


def _said(data: dict[str, Any]) -> str:
    if "files" in data:
        return f"data of {', '.join(data['files'])}"
    low, high = data["random"]
    return f"random values from {low:g} to {high:g} (seed {data['seed']}), which are no real data"


def _batches(arguments: Namespace, inputs: "list[Endpoint]") -> "Iterable[Batch]":
    """Returns the batches that are asked for."""
    from amct_tensorflow.model.input_batches import RandomInputs, checked_batch, read_batches

    if arguments.data:
        return read_batches(arguments.data, inputs)
    if arguments.data_dir:
        from amct_tensorflow.data import RawBatches

        raw = RawBatches(arguments.input_shape, arguments.data_dir, arguments.data_types, arguments.batch_num)
        return (checked_batch(batch, inputs, "The data") for batch in raw)
    low, high = arguments.range or (-1.0, 1.0)
    random = RandomInputs(low, high, bool(arguments.range), arguments.seed, arguments.batch_num or 1)
    return random.draw(inputs, arguments.input_shape)


COMPARE = Command(
    "compare",
    "show where a quantized model differs from its original",
    _add_arguments,
    _run,
    _EXAMPLES,
    _check,
    models=("quantized", "original"),
)
