"""Options that several subcommands have, in the form of the original command line (spec section 11)."""

from argparse import ArgumentParser, ArgumentTypeError

_LONGEST = 2**31


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
    shapes: dict[str, tuple[int | None, ...]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, lengths = part.rpartition(":")
        name = name.strip().removesuffix(":0")
        if not name or name in shapes:
            raise ArgumentTypeError(f'{part!r} is not, or not for the first time, of the form "name:1,224,224,3"')
        shapes[name] = tuple(_length(length.strip(), part) for length in lengths.split(","))
    return shapes


def _length(text: str, part: str) -> int | None:
    if text == "-1":
        return None
    if not text.isdecimal() or not 0 < int(text) < _LONGEST:
        raise ArgumentTypeError(f"{text!r} in {part!r} is no length; give a whole number above 0, or -1")
    return int(text)
