"""Options that several subcommands have, in the form of the original command line (spec section 11)."""

from argparse import ArgumentParser, ArgumentTypeError

from amct_tensorflow.errors import ArgumentValueError
from amct_tensorflow.models.shape_text import parse_input_shapes


def add_model(parser: ArgumentParser) -> None:
    """Adds the model, and its outputs."""
    parser.usage = "%(prog)s MODEL [options]"  # behind --outputs the model would be taken for one of them
    parser.add_argument(
        "model", metavar="MODEL",
        help="the float model: frozen (.pb), directory of a SavedModel, or Keras model (.keras, .h5)",
    )  # fmt: skip
    parser.add_argument(
        "--outputs", metavar="NAME", nargs="+", type=output_names, default=[],
        help="output operators (default: whatever nothing reads)",
    )  # fmt: skip


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
