"""The class of subcommands, and options that several of them share."""

import math
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_tensorflow.devices.device_file import read_device
from amct_tensorflow.devices.device_table import DEVICES, Device
from amct_tensorflow.errors import ArgumentValueError
from amct_tensorflow.io.memory import import_tensorflow
from amct_tensorflow.model.input_texts import parse_input_shapes, split_parts
from amct_tensorflow.model.loading.forms import recognize


def _accept(parser: ArgumentParser, arguments: Namespace) -> None:
    """Accepts all arguments."""


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: how it is called.
        summary: what it does, in one line.
        add_arguments: adds its arguments to its parser.
        run: does the work; returns an exit code. It imports TensorFlow itself, so that other commands, wrong arguments
            and help need not wait for that.
        examples: how it may be called, for its help; ``%(prog)s`` stands for the command.
        check: calls the parser's ``error`` if arguments do not fit together.
        models: the arguments that are paths of models; a path with nothing at it shows before TensorFlow is imported.
        interrupted: what to say when Ctrl-C or SIGTERM ends it.
    """

    name: str
    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    examples: str
    check: Callable[[ArgumentParser, Namespace], None] = _accept
    interrupted: str = "Interrupted."
    models: tuple[str, ...] = ()

    def do(self, arguments: Namespace) -> int:
        """Does the work; returns an exit code.

        Raises:
            AmctError: an input cannot be used.
        """
        for name in self.models:
            recognize(Path(getattr(arguments, name)))
        if self.models:
            import_tensorflow()  # which reads them
        return self.run(arguments)


class Gather(Action):
    """Adds what an option has to what it had where it came before, of which argparse would keep the last alone."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Puts the values, a list or a dictionary, behind those that are there."""
        before = getattr(namespace, self.dest) or type(values)()
        setattr(namespace, self.dest, before | values if isinstance(values, dict) else [*before, *values])


_LARGEST = 2**31 - 1


MODEL_FORMS = "frozen (.pb), directory of a SavedModel, Keras model (.keras, .h5), or TensorFlow.js model (.json)"


def add_model(parser: ArgumentParser) -> None:
    """Adds the model, and its outputs."""
    parser.usage = "%(prog)s MODEL [options]"  # behind --outputs the model would be taken for one of them
    parser.add_argument("model", metavar="MODEL", help=f"the float model: {MODEL_FORMS}")
    add_outputs(parser, "output operators (default: whatever nothing reads)")


def add_original_options(parser: ArgumentParser) -> None:
    """Adds the arguments of all commands of the original."""
    parser.add_argument("--model", metavar="PATH", required=True, help=f"the model: {MODEL_FORMS}")
    add_outputs(parser, "outputs of the model", required=True)
    parser.add_argument(
        "--save_path", metavar="PREFIX", required=True,
        help="folder and prefix of the results: out/net gives out/net_quantized.pb and out/net_quant.json",
    )  # fmt: skip


def add_outputs(parser: ArgumentParser, meaning: str, *, required: bool = False) -> None:
    """Adds the outputs."""
    parser.add_argument(
        "--outputs", metavar="NAME", nargs="+", action=Gather, type=output_names, default=[], required=required,
        help=f'{meaning}; as in --outputs a b, or "a:0;b:0"',
    )  # fmt: skip


def add_raw_data(parser: ArgumentParser, shapes_also: str = "") -> None:
    """Adds the arguments for raw data: folders, shapes and types."""
    parser.add_argument(
        "--data_dir", metavar="DIRS", action=Gather, type=parts,
        help='a folder of raw files per input, each file a batch, in the order of their names: "dir1/;dir2/"',
    )  # fmt: skip
    parser.add_argument(
        "--input_shape", metavar="SHAPES", action=Gather, type=input_shapes, default={},
        help=f'shape of a batch{shapes_also}, per input: "name:32,224,224,3;other:32,7"',
    )  # fmt: skip
    parser.add_argument(
        "--data_types", metavar="TYPES", action=Gather, type=parts, help='type per input: "float32;int64"'
    )


def add_json(parser: ArgumentParser) -> None:
    """Adds the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON, with all there is to tell")


def add_tables(parser: ArgumentParser) -> None:
    """Adds the choice to store tables in int8."""
    parser.add_argument(
        "--weight_compress_only", action="store_true",
        help="store tables, constants whose rows are looked up as those of an embedding, in int8 with a scale per row "
        "(default: in float)",
    )  # fmt: skip


def add_workers(parser: ArgumentParser) -> None:
    """Adds who evaluates."""
    parser.add_argument(
        "--num_workers", metavar="N", type=positive_int,
        help="processes that evaluate, each a share of the data (default: this one; with --ray one per CPU)",
    )  # fmt: skip
    parser.add_argument(
        "--ray", metavar="ADDRESS",
        help='evaluate on an existing Ray cluster, whose machines see the data under the same path; "auto" finds it '
        "(default: on this machine)",
    )  # fmt: skip


def add_device(parser: ArgumentParser) -> None:
    """Adds the device that the model is for."""
    parser.add_argument(
        "--device", metavar="DEVICE", type=device,
        help=f"what the model is for, {' or '.join(DEVICES)}, or a JSON file that says what layers cost there: ascend "
        "checks model and result by the public rules of its compiler, and leaves layers in float that run in fp16 "
        "there anyway; for generic, a search may raise layers to activations of 16 bits before it rolls them back "
        "to float (default: one that has int8 and float)",
    )  # fmt: skip
    parser.add_argument(
        "--no_free_roll_back", dest="free_roll_back", action="store_false",
        help="with --device ascend: quantize those layers, too",
    )  # fmt: skip


def device(text: str) -> Device:
    """Converts the name of a device, or the path of a JSON file, to the device."""
    try:
        return read_device(text)
    except ArgumentValueError as error:
        raise ArgumentTypeError(str(error)) from error


def parts(text: str) -> list[str]:
    """Converts ``"a;b"`` to a list of what stands between."""
    found = split_parts(text)
    if not found:
        raise ArgumentTypeError(f"{text!r} names nothing")
    return found


def positive_int(text: str) -> int:
    """Converts an argument to an int above 0."""
    if not text.isdecimal() or len(text) > 10 or not 0 < int(text) <= _LARGEST:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_LARGEST}")
    return int(text)


def non_negative_float(text: str) -> float:
    """Converts an argument to a finite float that is at least 0."""
    value = finite_float(text)
    if value < 0:
        raise ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def percentage(text: str) -> float:
    """Converts an argument to a percentage."""
    value = finite_float(text)
    if not 0 <= value <= 100:
        raise ArgumentTypeError(f"{text!r} is no percentage, from 0 to 100")
    return value


def finite_float(text: str) -> float:
    """Converts an argument to a finite float."""
    value = math.nan
    with suppress(ValueError):
        value = float(text)
    if not math.isfinite(value):
        raise ArgumentTypeError(f"{text!r} is no number")
    return value


def output_names(text: str) -> list[str]:
    """Converts ``"a:0;b:0"``, or the name of one operator, to names of operators."""
    names = [name.strip().removesuffix(":0") for name in text.split(";")]
    return [name for name in names if name]


def input_shapes(text: str) -> dict[str, tuple[int | None, ...]]:
    """Converts ``"name:1,224,224,3;other:1,7"`` to shapes by names; -1 stands for a length that is not known."""
    try:
        return parse_input_shapes(text)
    except ArgumentValueError as error:
        raise ArgumentTypeError(str(error)) from error
