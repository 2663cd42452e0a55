"""Reports an export as JSON (docs/file_formats.md) and as text."""

import json
import math
from typing import Any

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.saturation import can_saturate
from amct_tensorflow.export.target import Exported, Target
from amct_tensorflow.export.verification import Check, Comparison, OutputErrors, top1
from amct_tensorflow.io.contents import finite_or_none
from amct_tensorflow.io.table import format_table
from amct_tensorflow.log import printable
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, INT16_BITS
from amct_tensorflow.search.evaluator import Evaluation

# To be raised when a key changes its meaning or goes; new ones may come.
VERSION = 1

_ROLLED_BACK = "it is in float in the quantized model, too"
_HEADER = ("dB", "in float", "why")


def make_document(
    plan: ExportPlan, target: Target, exported: Exported, check: Check, file: str, limit: float, weight_bits: int
) -> dict[str, Any]:
    """Returns the report as a JSON document.

    Args:
        plan: the plan.
        target: the format.
        exported: the exported model.
        check: its comparison with the simulation.
        file: name of the file to open.
        limit: the divergence that it may have.
        weight_bits: how many bits its weights have.
    """
    compared, saturating = check.exported, check.saturating
    return {
        "version": VERSION,
        "format": target.name,
        "file": file,
        "file_bytes": sum(map(len, exported.files.values())),
        "weight_bits": weight_bits,
        "images": compared.images,
        "simulation": _metrics(check.simulation),
        "exported": _metrics(compared.evaluation),
        "kl": finite_or_none(compared.divergence),
        "kl_limit": limit,
        "within_limit": compared.divergence <= limit,
        "agreement": compared.agreement,
        "this_processor": None if saturating is None else _where_bytes_saturate(saturating),
        "notes": [*exported.notes, *([] if target.never_saturates else [_on_weights(plan, weight_bits)])],
        "layers": [
            *(_layer(name, plan, exported, check) for name in plan.layers),
            *({**_part(name, _ROLLED_BACK), "kernel_bits": None, "snr_db": None} for name in plan.float_layers),
        ],
        "outputs": [_output(name, errors) for name, errors in check.outputs.items()],
        "sums": [_part(name, exported.in_float.get(name)) for name in plan.sums],
    }


def _on_weights(plan: ExportPlan, bits: int) -> str:
    """Returns on which processors the weights are exact, for a format whose runtime may saturate."""
    if can_saturate(plan.quantized_layers.values()):
        return (
            f"x86 processors without VNNI saturate products of weights in {bits} bits; --weight_bits 7 makes files for "
            "them, too."
        )
    return f"No processor saturates products of these weights, which have {bits} bits."


def _where_bytes_saturate(found: Comparison) -> dict[str, Any]:
    return {**_metrics(found.evaluation), "kl": finite_or_none(found.divergence), "agreement": found.agreement}


def _metrics(evaluation: Evaluation) -> dict[str, Any]:
    return {"top1": top1(evaluation), "metric": _metric(evaluation.metric)}


def _layer(name: str, plan: ExportPlan, exported: Exported, check: Check) -> dict[str, Any]:
    layer, error = plan.layers[name], check.layers.get(name)
    in_float, wide = exported.in_float.get(name), exported.wide.get(name)
    bits = None if in_float is not None else INT8_BITS if wide is None else INT16_BITS
    snr_db = None if error is None else finite_or_none(error.sqnr)
    return {**_part(layer.key, in_float or wide), "kernel_bits": bits, "snr_db": snr_db}


def _output(name: str, errors: OutputErrors) -> dict[str, Any]:
    found = {"simulation": errors.simulation.sqnr, "exported": errors.exported.sqnr, "lost": errors.lost}
    return {"name": name, **{f"{key}_db": _rounded(value) for key, value in found.items()}}


def _rounded(decibels: float) -> float | None:
    return round(decibels, 1) if math.isfinite(decibels) else None


def _part(name: str, reason: str | None) -> dict[str, Any]:
    return {"name": name, "int8": reason is None, "reason": reason}


def dump_document(document: dict[str, Any]) -> str:
    """Returns the document as the file holds it."""
    return json.dumps(document, indent=1) + "\n"


def format_document(document: dict[str, Any], width: int | None = None) -> str:
    """Returns the document as lines of text: what is in float, and the figures.

    Args:
        document: the document.
        width: names that would go beyond so many characters are shortened; None for whole names.
    """
    layers, sums = document["layers"], document["sums"]
    rows = [
        (_decibels(each.get("snr_db")), _named(each), each["reason"]) for each in (*layers, *sums) if not each["int8"]
    ]
    wide = sum(each.get("kernel_bits") == INT16_BITS for each in layers)
    counts = f"{_count(layers)} layers in int8" + (f", {wide} in 16 bits" if wide else "")
    counts += f", {_count(sums)} sums between them" if sums else ""
    lines = [
        f"{document['file']}: {document['file_bytes'] / 1e6:.2f} MB, {counts}",
        f"compared with the simulation on {document['images']} images: {_figures(document, document)}",
        *_on_this_processor(document),
        *document["notes"],
    ]
    table = format_table(_HEADER, rows, ("dB",), width) if rows else []
    return "\n".join([*table, *([""] if rows else []), *lines])


def _named(part: dict[str, Any]) -> str:
    return printable(part["name"]) + (" (16 bits)" if part.get("kernel_bits") == INT16_BITS else "")


def _count(parts: list[dict[str, Any]]) -> str:
    return f"{sum(each['int8'] for each in parts)} of {len(parts)}"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _on_this_processor(document: dict[str, Any]) -> list[str]:
    found = document["this_processor"]
    if found is None:
        return []
    return [f"as this processor computes it, where products of bytes saturate: {_figures(found, document)}"]


def format_divergence(value: float | None) -> str:
    """Returns a divergence as text."""
    return "not finite" if value is None else f"{value:.5f}"


def _figures(found: dict[str, Any], document: dict[str, Any]) -> str:
    kl, agreement = found["kl"], found["agreement"]
    parts = [f"divergence {format_divergence(kl)}"]
    if agreement is not None:
        parts.append(f"same class for {100 * agreement:.2f} %")
    before, after = document["simulation"]["top1"], found.get("exported", found)["top1"]
    if before is not None and after is not None:
        parts.append(f"top-1 {after:.2f} instead of {before:.2f}")
    return ", ".join(parts)


def _metric(metric: Any) -> float | str:
    """Returns a number as it is if JSON knows it, and anything else as text."""
    known = isinstance(metric, int) or (isinstance(metric, float) and math.isfinite(metric))
    return metric if known else str(metric)
