"""Formats a comparison as text, and as JSON (docs/file_formats.md)."""

import json
import math
from typing import Any

from amct_tensorflow.io.contents import finite_or_none
from amct_tensorflow.io.table import format_table
from amct_tensorflow.log import printable
from amct_tensorflow.results.comparison.layer_comparison import ComparedLayer, Comparison
from amct_tensorflow.results.comparison.tensor_error import TensorError

# To be raised when a key changes its meaning or goes; new ones may come.
VERSION = 1

_HEADER = ("damage", "alone dB", "in place dB", "cosine", "max error", "type", "name")
_NUMBERS = _HEADER[:5]


def format_comparison(comparison: Comparison, data: str, width: int | None = None) -> str:
    """Returns a comparison as lines of text.

    Args:
        comparison: the comparison.
        data: the data on which the models were compared.
        width: names that would go beyond so many characters are shortened; None for whole names.
    """
    rows = [
        *(_row(f"{each.damage.value:.3g}", _decibels(each.alone), each) for each in comparison.layers),
        *(_row("?", "?", each) for each in comparison.in_place_only),
        *(("?", "?", "?", "?", "?", layer.op_type, printable(layer.name)) for layer in comparison.unseen),
    ]
    outputs = [
        ("", "", _decibels(error), f"{error.cosine:.6f}", f"{error.largest:.3g}", "output", printable(name))
        for name, error in comparison.outputs.items()
    ]
    unknown = len(comparison.in_place_only) + len(comparison.unseen)
    notes = [
        f"compared on {data}; all layers together do {comparison.divergence:.3g} damage",
        "damage: how far the outputs move if this layer alone is quantized (probabilities: KL divergence in nats; "
        "other values: squared error by squared value)",
        "dB: signal to noise of the layer's output, alone (reading float values) and in place (reading what comes)",
    ]
    if unknown:
        notes.append(f"?: for {unknown} layers the original model has no tensor of the value that they read or yield")
    causes = [f"{printable(each.layer.name)}: {cause.detail} {cause.remedy}" for each, cause in comparison.diagnoses]
    blocks = (format_table(_HEADER, [*rows, *outputs], _NUMBERS, width), notes, causes)
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _row(damage: str, alone: str, layer: ComparedLayer) -> tuple[str, ...]:
    error = layer.in_place
    return (
        damage, alone, _decibels(error), f"{error.cosine:.6f}", f"{error.largest:.3g}", layer.layer.op_type,
        printable(layer.layer.name),
    )  # fmt: skip


def _decibels(error: TensorError) -> str:
    return "exact" if error.sqnr == math.inf else f"{error.sqnr:.1f}"


def dump_comparison(comparison: Comparison, original: str, quantized: str, data: dict[str, Any]) -> str:
    """Returns a comparison as JSON."""
    document = {
        "version": VERSION,
        "original": original,
        "quantized": quantized,
        "data": data | {"batches": comparison.batches},
        "divergence": finite_or_none(comparison.divergence),
        "outputs": [{"name": name} | _error(error) for name, error in comparison.outputs.items()],
        "layers": [
            *(_layer(each, each.damage.value, _error(each.alone)) for each in comparison.layers),
            *(_layer(each, None, None) for each in comparison.in_place_only),
            *(
                {"name": layer.name, "type": layer.op_type, "damage": None, "alone": None, "in_place": None}
                for layer in comparison.unseen
            ),
        ],
        "diagnoses": [
            {"layer": each.layer.name, "kind": cause.kind, "detail": cause.detail, "remedy": cause.remedy}
            for each, cause in comparison.diagnoses
        ],
    }
    return json.dumps(document, indent=1)


def _layer(layer: ComparedLayer, damage: float | None, alone: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": layer.layer.name,
        "type": layer.layer.op_type,
        "damage": None if damage is None else finite_or_none(damage),
        "alone": alone,
        "in_place": _error(layer.in_place),
    }


def _error(error: TensorError) -> dict[str, Any]:
    return {
        "exact": error.sqnr == math.inf,
        "sqnr_db": finite_or_none(error.sqnr),
        "cosine": finite_or_none(error.cosine),
        "max_error": finite_or_none(error.largest),
    }
