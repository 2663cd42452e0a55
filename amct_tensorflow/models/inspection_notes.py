"""What has to be said about the numbers of an inspection."""

from collections.abc import Iterator, Sequence

from amct_tensorflow.models.inspection import Inspection

_NAMES = 3


def notes(inspection: Inspection) -> list[str]:
    """Returns sentences that tell where numbers are not known, or not what one would expect."""
    return list(_notes(inspection))


def _notes(inspection: Inspection) -> Iterator[str]:
    layers = inspection.layers
    unknown = sum(layer.multiply_accumulates is None for layer in layers)
    if unknown:
        is_open = any(each.shape is None or None in each.shape[1:] for each in inspection.inputs)
        advice = " The shapes of the inputs may tell them (--input_shape)." if is_open else ""
        yield (
            f"The multiply-accumulates of {plural(unknown, 'layer')} are not known, so that shares are those of the "
            f"parameters.{advice}"
        )
    rows = sum(layer.counts_one_row and layer.multiply_accumulates is not None for layer in layers)
    if rows:
        number = plural(rows, "layer")
        yield f"The first axis of the output of {number} is not known even for one image; it counts as 1."
    in_loops = sum(layer.in_loop for layer in layers)
    if in_loops:
        yield f"Of loops, with {plural(in_loops, 'layer')}, one round is counted; shares in int8 are upper bounds."
    if inspection.images > 1:
        yield f"Inputs and outputs hold {inspection.images} images; multiply-accumulates are those of all of them."
    if inspection.unused:
        number = plural(len(inspection.unused), "layer")
        yield f"No output depends on {number}, not counted here: {few(inspection.unused)}."


def plural(number: int, noun: str) -> str:
    """Returns how many there are of something."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def few(names: Sequence[str]) -> str:
    """Returns the first few of some names."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
