"""The bias corrections of a calibration, in a JSON file beside the record.

record.txt has no place for them and must stay readable by the original toolkit. A correction belongs to the very
factors with which it was measured; a digest of those stands beside it, so that the corrections of layers whose record
was edited afterwards, or replaced, are left out instead of applied wrongly.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from amct_tensorflow.errors import RecordError
from amct_tensorflow.files import write_atomically
from amct_tensorflow.log import log_for
from amct_tensorflow.record import LayerFactors, dump_record

_SUFFIX = "_bias_correction.json"


def corrections_path(record_file: str | Path) -> Path:
    """Returns where the corrections of ``record.txt`` are: ``record_bias_correction.json`` beside it."""
    path = Path(record_file)
    return path.with_name(path.stem + _SUFFIX)


def write_corrections(
    record_file: str | Path, factors: Mapping[str, LayerFactors], corrections: Mapping[str, np.ndarray]
) -> None:
    """Writes the corrections of a record; with none, removes those of an earlier record."""
    path, text = corrections_path(record_file), dump_corrections(factors, corrections)
    if text is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, text, announce=False)


def dump_corrections(factors: Mapping[str, LayerFactors], corrections: Mapping[str, np.ndarray]) -> str | None:
    """Returns the corrections as JSON text; None if there are none."""
    if not corrections:
        return None
    layers = {
        name: {"factors": _digest(name, factors[name]), "bias_correction": correction.tolist()}
        for name, correction in corrections.items()
    }
    return json.dumps(layers, indent=4, separators=(",", ":"))


def read_corrections(record_file: str | Path, factors: Mapping[str, LayerFactors]) -> dict[str, np.ndarray]:
    """Reads the corrections that belong to a record.

    Returns:
        Per layer name, float64 [Cout]; empty if there is no file. Layers whose factors have changed are left out.

    Raises:
        RecordError: the file is damaged.
    """
    path = corrections_path(record_file)
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        corrections = {
            name: np.asarray(stored[name]["bias_correction"], np.float64)
            for name, layer in factors.items()
            if name in stored and stored[name]["factors"] == _digest(name, layer)
        }
        valid = all(value.ndim == 1 and np.isfinite(value).all() for value in corrections.values())
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RecordError(f"{path} cannot be read ({error}). Delete it, or calibrate again.") from error
    if not valid:
        raise RecordError(f"{path} holds a bias correction that is no list of numbers. Delete it, or calibrate again.")
    outdated = set(stored) & set(factors) - set(corrections)
    if outdated:
        log_for("record").warning(
            "The factors of %d layers differ from those that %s was measured with; their biases are not corrected.",
            len(outdated), path,
        )  # fmt: skip
    return corrections


def _digest(name: str, factors: LayerFactors) -> str:
    return hashlib.sha256(dump_record({name: factors}).encode()).hexdigest()[:16]
