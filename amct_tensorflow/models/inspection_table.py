"""An inspection as text for a person: inputs and outputs, a table of the layers, what stays in float, and the sums."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from amct_tensorflow.console.table import abbreviated, format_table
from amct_tensorflow.graph.affine import BATCH_NORM
from amct_tensorflow.graph.view import Shape
from amct_tensorflow.log import printable
from amct_tensorflow.models.endpoints import Endpoint
from amct_tensorflow.models.inspection import InspectedLayer, Inspection
from amct_tensorflow.models.inspection_notes import few, notes, plural

_WIDTH = 120
_HEADER = ("type", "output", "params", "MACs", "share", "int8", "folded", "name")
_NUMBERS = ("params", "MACs", "share")
_SCALES = frozenset({"Mul", "RealDiv"})


def format_inspection(inspection: Inspection, width: int | None = None) -> str:
    """Returns an inspection as lines of text.

    Args:
        inspection: the inspection.
        width: names of layers that would go beyond so many characters are shortened; None for whole names.
    """
    reasons = list(dict.fromkeys(layer.obstacle for layer in inspection.layers if layer.obstacle is not None))
    rows = [_row(inspection, layer, reasons) for layer in inspection.layers]
    blocks = [
        [f"model    {inspection.source}", *_endpoints("input ", inspection.inputs),
         *_endpoints("output", inspection.outputs)],
        format_table(_HEADER, rows, _NUMBERS, width) if rows else [],
        [_obstacle(inspection, number, reason) for number, reason in enumerate(reasons, 1)],
        list(_scalings(inspection)),
        [line for note in notes(inspection) for line in wrap(f"note: {note}", width or _WIDTH)],
        _sums(inspection),
    ]  # fmt: skip
    return "\n\n".join("\n".join(map(printable, block)) for block in blocks if block)


def _endpoints(title: str, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    for each in endpoints:
        default = ", need not be fed" if each.has_default else ""
        yield f"{title}   {each.name}: {each.dtype} {_shape(each.shape)}{default}"


def _shape(shape: Shape | None) -> str:
    if shape is None:
        return "of any shape"
    return "x".join("?" if length is None else str(length) for length in shape) or "scalar"


def _row(inspection: Inspection, layer: InspectedLayer, reasons: Sequence[str]) -> tuple[str, ...]:
    count = layer.multiply_accumulates
    return (
        layer.op_type,
        "?" if layer.output_shape is None else _shape(layer.output_shape),
        abbreviated(layer.parameters),
        "-" if count is None else abbreviated(count),
        f"{100 * inspection.share([layer.name]).value:.1f}%",
        "yes" if layer.obstacle is None else f"no [{reasons.index(layer.obstacle) + 1}]",
        _folded(layer),
        printable(layer.name),
    )


def _folded(layer: InspectedLayer) -> str:
    """Names what was folded into a layer by what it does to channels."""
    scales = any(op in _SCALES for op in layer.absorbed_types)
    shifts = any(op not in _SCALES for op in layer.absorbed_types)
    if BATCH_NORM.intersection(layer.absorbed_types) or (scales and shifts):
        return "BatchNorm"
    return "scale" if scales else "bias" if shifts else "-"


def _obstacle(inspection: Inspection, number: int, reason: str) -> str:
    names = [layer.name for layer in inspection.layers if layer.obstacle == reason]
    return f"[{number}] {plural(len(names), 'layer')}, {100 * inspection.share(names).value:.1f} %: {reason}"


def _scalings(inspection: Inspection) -> Iterator[str]:
    """Yields what stays in float beside the layers, by the reason why."""
    found = inspection.float_scalings
    if found:
        yield "BatchNorms and other scalings of channels that stay in float:"
    for reason in dict.fromkeys(each.reason for each in found):
        names = [each.name for each in found if each.reason == reason]
        yield f"  {len(names)}: {reason}"
        yield f"     {few(names)}"


def _sums(inspection: Inspection) -> list[str]:
    if not inspection.layers:
        return ["No layer: nothing in the model multiplies and accumulates, or could be quantized."]
    count, quantizable = inspection.multiply_accumulates, len(inspection.quantizable)
    images = "per image" if inspection.images == 1 else f"for {inspection.images} images"
    counted = "an unknown number of" if count is None else abbreviated(count)
    return [
        f"{plural(len(inspection.layers), 'layer')}, {quantizable or 'none'} quantizable; "
        f"{abbreviated(inspection.parameters)} parameters, {counted} multiply-accumulates (MACs) {images}",
        f"in int8: {inspection.share(inspection.quantizable)}",
    ]
