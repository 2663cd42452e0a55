"""The texts in which commands and GraphEvaluator take what belongs to inputs: folders, types and shapes.

Nothing here imports TensorFlow, so that a wrong text shows at once.
"""

from amct_tensorflow.errors import ArgumentValueError

_LONGEST = 2**31


def split_parts(text: str) -> list[str]:
    """Returns what stands between the semicolons of ``"dir1/;dir2/"``, without what is empty."""
    return [part.strip() for part in text.split(";") if part.strip()]


def parse_input_shapes(text: str) -> dict[str, tuple[int | None, ...]]:
    """Converts ``"name:1,224,224,3;other:0:1,7"`` to shapes by the names of operators.

    Args:
        text: the name and the lengths of each input; the ``:0`` of a name may be left out.

    Returns:
        Per input its shape; None stands for a length that is not known, which the text writes as -1.

    Raises:
        ArgumentValueError: the text has another form.
    """
    shapes: dict[str, tuple[int | None, ...]] = {}
    for part in split_parts(text):
        name, _, lengths = part.rpartition(":")
        name = name.strip().removesuffix(":0")
        if not name or name in shapes:
            raise ArgumentValueError(f'{part!r} is not, or not for the first time, of the form "name:1,224,224,3"')
        shapes[name] = tuple(_length(length.strip(), part) for length in lengths.split(","))
    return shapes


def _length(text: str, part: str) -> int | None:
    """Returns a length, None if it is not known; ``part`` is what messages quote."""
    if text == "-1":
        return None
    if not text.isdecimal() or not 0 < int(text) < _LONGEST:
        raise ArgumentValueError(f"{text!r} in {part!r} is no length; give a whole number above 0, or -1")
    return int(text)
