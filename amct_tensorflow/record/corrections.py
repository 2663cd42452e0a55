"""What a calibration found and record.txt has no place for, in a JSON file beside it.

The record must stay readable by the original toolkit. A bias correction belongs to the very factors with which it was
measured; a digest of those stands beside it, so that the corrections of layers whose record was edited afterwards, or
replaced, are left out instead of applied wrongly. And the factors belong to the folded weights that were calibrated:
which nodes are folded depends on the outputs asked for, so that a digest of the weights and bias stands there, too.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amct_tensorflow.errors import ContentError, RecordError
from amct_tensorflow.graph.fusion import FusedLayer
from amct_tensorflow.log import log_for
from amct_tensorflow.record.layer_factors import LayerFactors
from amct_tensorflow.record.record_file import dump_record
from amct_tensorflow.storage.files import refusal, write_atomically
from amct_tensorflow.storage.json_text import expect, parse_json

_SUFFIX = "_bias_correction.json"


def corrections_path(record_file: str | Path) -> Path:
    """Returns where the corrections of ``record.txt`` are: ``record_bias_correction.json`` beside it."""
    path = Path(record_file)
    return path.with_name(path.stem + _SUFFIX)


def remove_corrections(record_file: str | Path) -> None:
    """Removes the corrections of an earlier record.

    Raises:
        OutputError: they cannot be removed.
    """
    path = corrections_path(record_file)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise refusal(path, error) from error


def dump_corrections(
    factors: Mapping[str, LayerFactors], corrections: Mapping[str, np.ndarray], layers: Mapping[str, FusedLayer]
) -> str:
    """Returns as JSON text what belongs to a record.

    Args:
        factors: the record.
        corrections: per layer name, what to add to its bias, float [Cout]; layers without a correction are left out.
        layers: the layers that were calibrated, after fusion; at least those that the record has.
    """
    entries: dict[str, dict[str, Any]] = {}
    for name, layer in layers.items():
        if name not in factors or layer.weights is None:
            continue
        entries[name] = {"factors": _digest(name, factors[name]), "weights": layer.digest}
        if name in corrections:
            entries[name]["bias_correction"] = corrections[name].tolist()
    return json.dumps(entries, indent=4, separators=(",", ":"), allow_nan=False)


def write_corrections(
    record_file: str | Path,
    factors: Mapping[str, LayerFactors],
    corrections: Mapping[str, np.ndarray],
    layers: Mapping[str, FusedLayer],
) -> None:
    """Writes what belongs to a record beside it; see ``dump_corrections``.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(corrections_path(record_file), dump_corrections(factors, corrections, layers), announce=False)


def read_corrections(
    record_file: str | Path, factors: Mapping[str, LayerFactors], layers: Mapping[str, FusedLayer]
) -> dict[str, np.ndarray]:
    """Reads the corrections that belong to a record, and checks that it belongs to a model.

    Args:
        record_file: the record beside which they stand.
        factors: what it holds.
        layers: the layers of the model, after fusion.

    Returns:
        Per layer name, float64 [Cout]; empty if there is no file. Layers whose factors have changed are left out.

    Raises:
        RecordError: the file is damaged, or what was calibrated are other weights than those of the model.
    """
    path = corrections_path(record_file)
    if not path.exists():
        return {}
    try:
        stored = expect(dict, parse_json(path.read_bytes()), "the file")
        entries = {name: _entry(name, stored[name]) for name in factors if name in stored}
    except (OSError, ContentError) as error:
        raise RecordError(f"{path} cannot be read ({error}). Delete it, or calibrate again.") from error
    known = {name: entry for name, entry in entries.items() if entry.factors == _digest(name, factors[name])}
    _check_weights(path, {name: entry.weights for name, entry in known.items()}, layers)
    if len(known) < len(entries):
        log_for("record").warning(
            "The factors of %d layers differ from those that %s was measured with; their biases are not corrected.",
            len(entries) - len(known), path,
        )  # fmt: skip
    return {name: entry.correction for name, entry in known.items() if entry.correction is not None}


class _Entry(NamedTuple):
    """What stands in the file for a layer."""

    factors: str
    weights: str
    correction: np.ndarray | None


def _entry(name: str, content: object) -> _Entry:
    """Raises ContentError if what stands there for a layer is not what ``dump_corrections`` writes."""
    entry = expect(dict, content, f"layer {name!r}")
    factors, weights = (expect(str, entry.get(key), f"{key!r} of layer {name!r}") for key in ("factors", "weights"))
    if "bias_correction" not in entry:
        return _Entry(factors, weights, None)
    values = expect(list, entry["bias_correction"], f"the bias correction of layer {name!r}")
    # Of integers some are too large for a float; NaN is not within the limits, either.
    if not all(type(value) in (float, int) and abs(value) <= sys.float_info.max for value in values):
        raise ContentError(f"the bias correction of layer {name!r} is no list of numbers")
    return _Entry(factors, weights, np.array(values, np.float64))


def _check_weights(path: Path, weights: Mapping[str, str], layers: Mapping[str, FusedLayer]) -> None:
    """Refuses factors of other weights than those to be quantized: the channels fit, but the values would not."""
    others = [name for name, digest in weights.items() if name not in layers or digest != layers[name].digest]
    if others:
        raise RecordError(
            f"{path}: layer {others[0]!r}{f' and {len(others) - 1} more' if others[1:] else ''} had other weights or "
            "another bias when it was calibrated. Which nodes are folded into a layer depends on the outputs: give "
            "quantize_model the outputs of save_model as calib_outputs, and save_model the model that was calibrated; "
            "then calibrate again."
        )


def _digest(name: str, factors: LayerFactors) -> str:
    return hashlib.sha256(dump_record({name: factors}).encode()).hexdigest()[:16]
