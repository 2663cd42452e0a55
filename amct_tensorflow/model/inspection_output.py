"""Formats an inspection as text and as JSON, with notes about its numbers."""

import json
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from amct_tensorflow.graph.view import Shape
from amct_tensorflow.io.table import abbreviated, format_table, plural
from amct_tensorflow.log import printable
from amct_tensorflow.model.endpoints import Endpoint
from amct_tensorflow.model.float_scalings import FloatScaling
from amct_tensorflow.model.inspection import InspectedLayer, Inspection
from amct_tensorflow.model.tables import Table
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.affine import PerChannelAffine

_NAMES = 3


def notes(inspection: Inspection) -> list[str]:
    """Returns notes about numbers that are unknown or unexpected."""
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
    if inspection.random:
        yield random_sentence(inspection.random)


def random_sentence(names: Sequence[str]) -> str:
    """Returns a sentence about nodes that draw random numbers, and what to do about them."""
    return (
        f"{plural(len(names), 'node', 'draws', 'draw')} random numbers: {few(names)}. If they count, results differ "
        "from run to run by chance, as with a dropout that was left on. Freeze the model for inference."
    )


def few(names: Sequence[str]) -> str:
    """Returns the first few of some names."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


_WIDTH = 120
_LEFT = "both operands are computed; it is left in float unless quant_enable or quantize_products asks for it"
_HEADER = ("type", "output", "params", "MACs", "share", "int8", "folded", "name")
_NUMBERS = ("params", "MACs", "share")


def format_inspection(inspection: Inspection, width: int | None = None) -> str:
    """Returns an inspection as lines of text.

    Args:
        inspection: the inspection.
        width: names of layers that would go beyond so many characters are shortened; None for whole names.
    """
    found = [_why_float(layer) for layer in inspection.layers]
    reasons = list(dict.fromkeys(reason for reason in found if reason is not None))
    rows = [_row(inspection, layer, reasons) for layer in inspection.layers]
    blocks = [
        [f"model    {inspection.source}", *_endpoints("input ", inspection.inputs),
         *_endpoints("output", inspection.outputs)],
        format_table(_HEADER, rows, _NUMBERS, width) if rows else [],
        [_reason(inspection, number, reason) for number, reason in enumerate(reasons, 1)],
        list(_scalings(inspection)),
        list(_tables(inspection)),
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
        _int8(layer, reasons),
        _folded(layer),
        printable(layer.name),
    )


def _why_float(layer: InspectedLayer) -> str | None:
    """Returns why a layer stays in float by default; None if it does not."""
    return _LEFT if layer.reason is None and layer.is_product else layer.reason


def _int8(layer: InspectedLayer, reasons: Sequence[str]) -> str:
    reason = _why_float(layer)
    if reason is None:
        return "yes"
    return f"{'no' if layer.reason else 'off'} [{reasons.index(reason) + 1}]"


def _folded(layer: InspectedLayer) -> str:
    """Returns short names of the nodes folded into a layer."""
    affine = [each for op in layer.absorbed_types if (each := trait(op, PerChannelAffine)) is not None]
    scales, shifts = any(each.scales for each in affine), any(each.shifts for each in affine)
    if scales and shifts:
        return "BatchNorm"
    return "scale" if scales else "bias" if shifts else "-"


def _reason(inspection: Inspection, number: int, reason: str) -> str:
    names = [layer.name for layer in inspection.layers if _why_float(layer) == reason]
    return f"[{number}] {plural(len(names), 'layer')}, {100 * inspection.share(names).value:.1f} %: {reason}"


def _scalings(inspection: Inspection) -> Iterator[str]:
    """Yields the scalings that stay in float, grouped by reason."""
    found = inspection.float_scalings
    if found:
        yield "BatchNorms and other scalings of channels that stay in float:"
    for reason in dict.fromkeys(each.reason for each in found):
        names = [each.name for each in found if each.reason == reason]
        yield f"  {len(names)}: {reason}"
        yield f"     {few(names)}"


def _tables(inspection: Inspection) -> Iterator[str]:
    if inspection.tables:
        yield "tables, constants that are looked up:"
    for table in inspection.tables:
        yield f"  {table_sentence(table)}"


def table_sentence(table: Table, *, compressed: bool = False) -> str:
    """Returns a sentence about how a table is stored, or can be."""
    size = f"Table {table.name!r}, {_shape(table.shape)} {table.dtype.name}, {_megabytes(table.float_bytes)}"
    if table.reason is not None:
        return f"{size}, stays in float: {table.reason}."
    stored = _megabytes(table.int8_bytes)
    if compressed:
        return f"{size}, becomes int8 with a scale per row, {stored}."
    return f"{size}, stays in float; with weight_compress_only it takes {stored}."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _sums(inspection: Inspection) -> list[str]:
    if not inspection.layers:
        return ["No layer: nothing in the model multiplies and accumulates, or could be quantized."]
    count, quantizable = inspection.multiply_accumulates, len(inspection.quantizable)
    images = "per image" if inspection.images == 1 else f"for {inspection.images} images"
    counted = "an unknown number of" if count is None else abbreviated(count)
    return [
        f"{plural(len(inspection.layers), 'layer')}, {quantizable or 'none'} quantizable; "
        f"{abbreviated(inspection.parameters)} parameters, {counted} multiply-accumulates (MACs) {images}",
        f"in int8: {inspection.share(inspection.quantized_by_default)}",
    ]


# To be raised when a key changes its meaning or goes; new ones may come.
VERSION = 1


def dump_inspection(inspection: Inspection) -> str:
    """Returns an inspection as JSON."""
    share = inspection.share(inspection.quantized_by_default)
    document = {
        "version": VERSION,
        "model": str(inspection.source),
        "inputs": [_endpoint(each) | {"has_default": each.has_default} for each in inspection.inputs],
        "outputs": [_endpoint(each) for each in inspection.outputs],
        "layers": [_layer(each) for each in inspection.layers],
        "float_scalings": [_scaling(each) for each in inspection.float_scalings],
        "unused_layers": list(inspection.unused),
        "tables": [_table(each) for each in inspection.tables],
        "summary": {
            "layers": len(inspection.layers),
            "quantizable": len(inspection.quantizable),
            "quantized_by_default": len(inspection.quantized_by_default),
            "parameters": inspection.parameters,
            "multiply_accumulates": inspection.multiply_accumulates,
            "int8_share": share.value if inspection.layers else None,
            "int8_share_of": share.of,
            "int8_share_is_upper_bound": share.is_upper_bound,
        },
        "notes": notes(inspection),
    }
    return json.dumps(document, indent=1)


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "dtype": endpoint.dtype, "shape": endpoint.shape}


def _layer(layer: InspectedLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "type": layer.op_type,
        "input_shape": layer.input_shape,
        "weights_shape": layer.weights_shape,
        "output_shape": layer.output_shape,
        "parameters": layer.parameters,
        "multiply_accumulates": layer.multiply_accumulates,
        "in_loop": layer.in_loop,
        "folded": layer.absorbed,
        "folded_types": layer.absorbed_types,
        "quantizable": layer.reason is None,
        "quantized_by_default": layer.reason is None and not layer.is_product,
        "reason": layer.reason,
    }


def _scaling(scaling: FloatScaling) -> dict[str, Any]:
    return {"name": scaling.name, "types": scaling.op_types, "reason": scaling.reason}


def _table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "type": table.op_type,
        "lookups": list(table.lookups),
        "shape": table.shape,
        "dtype": table.dtype.name,
        "bytes": table.float_bytes,
        "int8_bytes": table.int8_bytes,
        "compressible": table.fits,
        "reason": table.reason,
    }
