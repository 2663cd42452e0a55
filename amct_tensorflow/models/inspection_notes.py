"""What has to be said about the numbers of an inspection."""

from collections.abc import Sequence

from amct_tensorflow.models.inspection import InspectedLayer, Inspection

_NAMES = 3


def notes(inspection: Inspection) -> list[str]:
    """Returns sentences that tell where numbers are not known, or not what one would expect."""
    layers = inspection.layers
    unknown = [layer for layer in layers if layer.multiply_accumulates is None]
    rows = [layer for layer in layers if layer.counts_one_row and not layer.in_loop and layer not in unknown]
    fixed = [each for each in inspection.inputs if each.shape and len(each.shape) > 1 and (each.shape[0] or 1) > 1]
    return [
        *_of_unknown(inspection, unknown),
        *_of(rows, "how many rows one image makes is not known; their multiply-accumulates are those of one row."),
        *_of(
            [layer for layer in layers if layer.in_loop],
            "they run in loops, and are counted for one round, so that shares in int8 are upper bounds.",
        ),
        *(f"The first axis of input {each.name!r} has a fixed length; all of it is counted." for each in fixed),
        *_of_names(inspection.unused, "no output depends on them; they are left out."),
    ]


def _of(layers: Sequence[InspectedLayer], text: str) -> list[str]:
    return _of_names([layer.name for layer in layers], text)


def _of_names(names: Sequence[str], text: str) -> list[str]:
    return [f"{len(names)} {'layer' if len(names) == 1 else 'layers'}, {few(names)}: {text}"] if names else []


def _of_unknown(inspection: Inspection, layers: Sequence[InspectedLayer]) -> list[str]:
    is_open = any(each.shape is None or None in each.shape[1:] for each in inspection.inputs)
    advice = " The shapes of the inputs may tell them (--input_shape)." if is_open else ""
    return _of(layers, f"multiply-accumulates are not known. Shares are those of the parameters.{advice}")


def few(names: Sequence[str]) -> str:
    """Returns the first few of some names."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
