"""Reads and writes corrections, in two files beside record.txt.

The record must stay readable by the original toolkit, which rounds each weight to the nearest integer. So the bias
corrections stand in ``record_bias_correction.json`` beside it, and the integers of weights that are rounded otherwise
in ``record_weights.npz``.

A correction holds only for the factors and the integers with which it was measured. Digests of these stand with it, so
that it is left out, not misapplied, if the record of its layer was edited or replaced. Factors hold only for the folded
weights that were calibrated, and folding depends on the outputs asked for. So a digest of weights and bias stands
there, too.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from amct_tensorflow.errors import ContentError, RecordError
from amct_tensorflow.graph.names import LayerName, RecordKey
from amct_tensorflow.io.contents import decode, dump_arrays, parse_arrays
from amct_tensorflow.io.files import refusal, write_atomically
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.fusion import FusedLayer
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors
from amct_tensorflow.quantize.record.record_file import dump_record

_CORRECTIONS = "_bias_correction.json"
_WEIGHTS = "_weights.npz"


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """The entry of a layer in ``record_bias_correction.json``.

    Attributes:
        factors: digest of the factors with which the corrections were measured.
        weights: digest of the weights and the bias that were calibrated.
        integers: digest of the integers of the weights; absent if each is the nearest one.
        bias_correction: added to the bias, per channel; absent without a correction.
    """

    factors: str
    weights: str
    integers: str | None = None
    bias_correction: list[float] | None = None

    @property
    def correction(self) -> LayerCorrection:
        """The correction, without the integers of weights."""
        bias = self.bias_correction
        return LayerCorrection(None if bias is None else np.array(bias, np.float64))


def corrections_path(record_file: str | Path) -> Path:
    """Returns where the corrections of ``record.txt`` are: ``record_bias_correction.json`` beside it."""
    return _beside(record_file, _CORRECTIONS)


def weights_path(record_file: str | Path) -> Path:
    """Returns where the integers of ``record.txt`` are: ``record_weights.npz`` beside it."""
    return _beside(record_file, _WEIGHTS)


def correction_paths(record_file: str | Path) -> list[Path]:
    """Returns the paths of all files with corrections of a record."""
    return [corrections_path(record_file), weights_path(record_file)]


def _beside(record_file: str | Path, suffix: str) -> Path:
    path = Path(record_file)
    return path.with_name(path.stem + suffix)


def remove_corrections(record_file: str | Path) -> None:
    """Removes the corrections of an earlier record.

    Raises:
        OutputError: it cannot be removed.
    """
    for path in correction_paths(record_file):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise refusal(path, error) from error


def dump_corrections(
    record_file: str | Path,
    factors: Mapping[LayerName, LayerFactors],
    corrections: Mapping[LayerName, LayerCorrection],
    layers: Mapping[LayerName, FusedLayer],
) -> dict[Path, str | bytes]:
    """Returns the content of the files with corrections.

    Args:
        record_file: the record.
        factors: its factors.
        corrections: per layer name, its corrections; layers without any are left out.
        layers: the layers that were calibrated, after fusion; at least those that the record has.
    """
    entries: dict[str, _Entry] = {}
    weights: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        if name not in factors or layer.weights is None:
            continue
        correction = corrections.get(name, LayerCorrection())
        if correction.weights is not None:
            weights[name] = correction.weights
        entries[name] = _Entry(
            _digest(name, factors[name]),
            layer.digest,
            correction.weights_digest,
            None if correction.bias is None else correction.bias.tolist(),
        )
    text = json.dumps(msgspec.to_builtins(entries), indent=4, separators=(",", ":"), allow_nan=False)
    return {corrections_path(record_file): text, weights_path(record_file): dump_arrays(weights)}


def write_corrections(
    record_file: str | Path,
    factors: Mapping[LayerName, LayerFactors],
    corrections: Mapping[LayerName, LayerCorrection],
    layers: Mapping[LayerName, FusedLayer],
) -> None:
    """Writes the corrections of a record; see ``dump_corrections``.

    Raises:
        OutputError: it cannot be written.
    """
    for path, content in dump_corrections(record_file, factors, corrections, layers).items():
        write_atomically(path, content, announce=False)


def read_corrections(
    record_file: str | Path, factors: Mapping[RecordKey, LayerFactors], layers: Mapping[RecordKey, FusedLayer]
) -> dict[RecordKey, LayerCorrection]:
    """Reads the corrections of a record, and checks that the record belongs to a model.

    Args:
        record_file: the record beside which they stand.
        factors: its factors.
        layers: the layers of the model, after fusion.

    Returns:
        The corrections per layer name; empty if there is no file. Layers whose factors have changed, or whose integers
        are missing, are left out, with a warning.

    Raises:
        RecordError: a file is damaged, or other weights than those of the model were calibrated.
    """
    path = corrections_path(record_file)
    if not path.exists():
        return {}
    try:
        stored = decode(path.read_bytes(), dict[str, msgspec.Raw])
        entries = {name: _entry(name, stored[name]) for name in factors if name in stored}
    except (OSError, ContentError) as error:
        raise RecordError(f"{path} cannot be read ({error}). Delete it, or calibrate again.") from error
    known = {name: entry for name, entry in entries.items() if entry.factors == _digest(name, factors[name])}
    _check_weights(path, {name: entry.weights for name, entry in known.items()}, layers)
    if len(known) < len(entries):
        log_for("record").warning(
            "The factors of %s differ from those that %s was measured with, which is not corrected.",
            plural(len(entries) - len(known), "layer"), path,
        )  # fmt: skip
    return _with_integers(weights_path(record_file), known, layers)


def _entry(name: str, content: msgspec.Raw) -> _Entry:
    """Raises ContentError if what stands there for a layer is not what ``dump_corrections`` writes."""
    try:
        return decode(content, _Entry)
    except ContentError as error:
        raise ContentError(f"layer {name!r}: {error}") from error


def _with_integers(
    path: Path, entries: Mapping[RecordKey, _Entry], layers: Mapping[RecordKey, FusedLayer]
) -> dict[RecordKey, LayerCorrection]:
    """Adds the integers with which corrections were measured; a correction without its integers is dropped."""
    stored: dict[str, np.ndarray] = {}
    if path.exists():
        try:
            stored = parse_arrays(path.read_bytes(), str(path))
        except (OSError, ContentError) as error:
            raise RecordError(f"{path} cannot be read ({error}). Delete it, or calibrate again.") from error
    found = {
        name: replace(entry.correction, weights=stored.get(name) if entry.integers is not None else None)
        for name, entry in entries.items()
    }
    fitting = {
        name: correction
        for name, correction in found.items()
        if correction.weights_digest == entries[name].integers and correction.fits(layers[name])
    }
    if len(fitting) < len(found):
        log_for("record").warning(
            "%s does not hold the integers of %s: weights are rounded to the nearest there, which is less "
            "accurate, and biases are not corrected. Put the file beside the record, or calibrate again.",
            path, plural(len(found) - len(fitting), "layer"),
        )  # fmt: skip
    return {name: correction for name, correction in fitting.items() if correction.parts()}


def _check_weights(path: Path, weights: Mapping[RecordKey, str], layers: Mapping[RecordKey, FusedLayer]) -> None:
    """Refuses factors that were calibrated for other weights, even if the channels fit."""
    others = [name for name, digest in weights.items() if name not in layers or digest != layers[name].digest]
    if others:
        raise RecordError(
            f"{path}: layer {others[0]!r}{f' and {len(others) - 1} more' if others[1:] else ''} had other weights or "
            "another bias when it was calibrated. Which nodes are folded into a layer depends on the outputs: give "
            "quantize_model the outputs of save_model as calib_outputs, and save_model the model that was calibrated; "
            "then calibrate again."
        )


def _digest(name: str, factors: LayerFactors) -> str:
    return hashlib.sha256(dump_record({LayerName(name): factors}).encode()).hexdigest()[:16]
