"""Keeps the findings of a search on disk, so that an interrupted run can be resumed.

The state is a folder: ``state.json``, and arrays in npz files that it names with their SHA-256. It holds the results of
evaluations and of the calibration, but no decisions. A resumed run makes these again, by the same steps, so that its
results are those of an uninterrupted run.

A state belongs to one ``RunKey``, which has a digest of all that could change a result.
"""

import json
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from amct_tensorflow.errors import AmctError, ContentError, OutputError, RecordError, StateError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.contents import decode, dump_arrays, parse_arrays, version_of
from amct_tensorflow.io.files import write_atomically
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.algorithms.range_shape import RangeShape
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.calibration.layer_analysis import LayerAnalysis
from amct_tensorflow.quantize.calibration.observers import ActivationSummary
from amct_tensorflow.quantize.record.factors import LayerCorrection
from amct_tensorflow.quantize.record.record_file import dump_record, parse_balance, parse_record, parse_tables
from amct_tensorflow.search.evaluator import Evaluation, is_list_of_predictions
from amct_tensorflow.search.run_key import RunKey, digest

FOLDER = "accuracy_based_auto_calibration_state"
_VERSION = 3
_FILE = "state.json"
_CALIBRATION = "calibration"
_RESULTS = "results"
_PREDICTIONS = "predictions"
_FILE_NAME_LENGTH = 16
_ORIGINAL = "original"


class _Arrays(msgspec.Struct, frozen=True):
    """The file with the arrays of an entry."""

    file: str
    sha256: str


class _EvaluationEntry(msgspec.Struct, frozen=True):
    """The entry of an evaluation in the document."""

    metric: Any
    model: str
    arrays: _Arrays | msgspec.UnsetType = msgspec.UNSET


class _CalibrationEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The entry of the calibration in the document.

    Attributes:
        record: factors and balance, as record.txt.
        layers: per layer, its similarity and its multiply-accumulates. JSON knows no infinity, which a user's
            sensitivity may give; repr() and float() know all numbers.
        noise: per layer, its noise and the noise without the correction of its bias.
        ranges: per layer or input, the least and the greatest value.
        shapes: per layer or input, how its values fill that range, as the parts of a ``RangeShape``.
        batches: number of batches among the arrays.
        images: number of images, if it is known.
        obstacles: per layer that stays in float, why.
    """

    record: str
    layers: dict[LayerName, tuple[str, int]]
    noise: dict[LayerName, tuple[float | None, float | None]] = {}
    ranges: dict[LayerName, tuple[float, float]] = {}
    shapes: dict[LayerName, tuple[int, float, float, float | None]] = {}
    batches: int
    images: int | None = None
    obstacles: dict[LayerName, str] = {}
    arrays: _Arrays | msgspec.UnsetType = msgspec.UNSET


class _Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """``state.json``.

    Attributes:
        version: of the format.
        key: the key of the run.
        choices: what was chosen that changes decisions, but neither evaluations nor the calibration, in words by name.
        evaluations: the entries of evaluations.
        calibration: the entry of the calibration.
    """

    version: int
    key: RunKey
    choices: dict[str, str] = {}
    evaluations: dict[str, _EvaluationEntry] = {}
    calibration: dict[str, _CalibrationEntry] = {}


@dataclass(eq=False)
class SearchState:
    """The state of a search.

    Attributes:
        folder: its folder.
        key: the key of its run.
        choices: what else was chosen for it, in words by name, such as the device; only decisions depend on it.
    """

    folder: Path
    key: RunKey
    choices: Mapping[str, str] = field(default_factory=dict)
    _evaluations: dict[str, Evaluation] = field(default_factory=dict)
    _calibration: CalibrationResult | None = None
    _document: _Document | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)  # the calibration is kept beside evaluations

    @classmethod
    def begin(cls, folder: Path, key: RunKey, choices: Mapping[str, str]) -> "SearchState":
        """Begins a state; it replaces the content of the folder when there is something to keep."""
        if (folder / _FILE).exists():
            log_for("state").info("Starting afresh; the evaluations of the earlier run in %s are not used.", folder)
        return cls(folder, key, choices)

    @classmethod
    def resume(
        cls, folder: Path, key: RunKey, choices: Mapping[str, str], check: Callable[[CalibrationResult], None]
    ) -> "SearchState":
        """Opens the state in a folder if it belongs to the same run; else begins a new one and says why.

        Args:
            folder: its folder.
            key: the key of this run.
            choices: what else is chosen for this run; it is said what has changed.
            check: raises an error if a calibration does not fit the model.
        """
        try:
            state = cls._load(folder, key, choices)
            if state._calibration is not None:
                check(state._calibration)
            return state
        except FileNotFoundError:
            log_for("state").info("There is nothing to resume in %s; starting from the beginning.", folder)
        except AmctError as error:
            log_for("state").warning("%s Starting from the beginning.", error)
        return cls(folder, key, choices)

    def evaluation(self, quantized: Collection[str] | None) -> Evaluation | None:
        """Returns the evaluation of a set of quantized layers (None: of the original model), if it is known."""
        return self._evaluations.get(_name(quantized))

    def add_evaluation(self, quantized: Collection[str] | None, evaluation: Evaluation) -> None:
        """Keeps an evaluation, unless its metric cannot be written exactly."""
        name = _name(quantized)
        self._evaluations[name] = evaluation
        try:
            metric = _exactly(evaluation.metric)
        except ValueError:
            log_for("state").warning(
                "evaluate() returned %.100r (%s), which cannot be kept in a file; a run that goes on evaluates again.",
                evaluation.metric, type(evaluation.metric).__name__,
            )  # fmt: skip
            return
        arrays = {_RESULTS: evaluation.image_results, _PREDICTIONS: evaluation.image_predictions}
        known = {part: values for part, values in arrays.items() if values is not None}
        self._keep(name, _EvaluationEntry(metric, evaluation.model), known)

    @property
    def calibration(self) -> CalibrationResult | None:
        """The calibration, if it is known."""
        return self._calibration

    def add_calibration(self, calibration: CalibrationResult) -> None:
        """Keeps the calibration, unless its batches hold strings, which npz files cannot."""
        self._calibration = calibration
        if any(values.dtype == object for batch in calibration.batches for values in batch.values()):
            return
        analyses = calibration.analyses
        arrays = {
            f"{part} {name}": values
            for name, correction in calibration.corrections.items()
            for part, values in correction.parts().items()
        }
        summaries = calibration.summaries
        arrays.update({f"counts {name}": one.counts for name, one in summaries.items()})
        for index, batch in enumerate(calibration.batches):
            arrays.update({f"batch {index} {tensor}": values for tensor, values in batch.items()})
        entry = _CalibrationEntry(
            record=dump_record(calibration.factors, calibration.balance, calibration.tables),
            layers={name: (repr(float(one.similarity)), one.multiply_accumulates) for name, one in analyses.items()},
            noise={name: (one.noise, one.uncorrected_noise) for name, one in analyses.items()},
            ranges={name: (float(one.lowest), float(one.highest)) for name, one in summaries.items()},
            shapes={name: astuple(one.shape) for name, one in summaries.items() if one.shape is not None},
            batches=len(calibration.batches),
            images=calibration.images,
            obstacles=dict(calibration.unquantizable),
        )
        self._keep(_CALIBRATION, entry, arrays)

    def _keep(self, name: str, entry: _EvaluationEntry | _CalibrationEntry, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes findings: arrays, then the document that names them. A full disk must not end a run of hours."""
        with self._lock:
            self._write(name, entry, arrays)

    def _write(self, name: str, entry: _EvaluationEntry | _CalibrationEntry, arrays: Mapping[str, np.ndarray]) -> None:
        try:
            if self._document is None:
                shutil.rmtree(self.folder, ignore_errors=True)  # the state of another run
                self._document = _Document(_VERSION, self.key, dict(self.choices))
            if arrays:
                data, file = dump_arrays(arrays), f"{name[:_FILE_NAME_LENGTH]}.npz"
                write_atomically(self.folder / file, data, announce=False)
                entry = msgspec.structs.replace(entry, arrays=_Arrays(file, digest(data)))
            if isinstance(entry, _EvaluationEntry):
                self._document.evaluations[name] = entry
            else:
                self._document.calibration[name] = entry
            text = json.dumps(msgspec.to_builtins(self._document), indent=1, allow_nan=False)
            write_atomically(self.folder / _FILE, text, announce=False)
        except OutputError as error:
            log_for("state").warning("%s The run goes on, but it could not be resumed from here.", error)

    @classmethod
    def _load(cls, folder: Path, key: RunKey, choices: Mapping[str, str]) -> "SearchState":
        """Reads a state.

        Raises:
            FileNotFoundError: there is none.
            StateError: it is damaged, or belongs to another run.
        """
        try:
            state, chosen = cls._read(folder, key, choices)
        except FileNotFoundError:
            raise
        except (OSError, ContentError, RecordError) as error:
            raise StateError(f"The state in {folder} is damaged ({str(error)[:200]}).") from error
        log_for("state").info(
            "Going on with an earlier run, of which %s known%s.",
            plural(len(state._evaluations), "evaluation", "is", "are"),
            " and the calibration" if state._calibration else "",
        )  # fmt: skip
        if changes := _changes(chosen, choices):
            log_for("state").info("Decisions are made anew, of what is known: %s.", changes)
        return state

    @classmethod
    def _read(cls, folder: Path, key: RunKey, choices: Mapping[str, str]) -> "tuple[SearchState, dict[str, str]]":
        """Returns a state, and what was chosen for the run that wrote it."""
        data = (folder / _FILE).read_bytes()
        if version_of(data) != _VERSION:
            raise StateError(f"The state in {folder} was written by another version.")
        document = decode(data, _Document)
        changed = key.changes(document.key)
        if changed:
            verb = "has" if len(changed) == 1 else "have"
            because = f" ({chosen})" if (chosen := _changes(document.choices, choices)) else ""
            raise StateError(f"The {', '.join(changed)} {verb} changed since the run in {folder} began{because}.")
        state = cls(folder, key, choices, _document=msgspec.structs.replace(document, choices=dict(choices)))
        for name, evaluation in document.evaluations.items():
            state._evaluations[name] = _read_evaluation(folder, evaluation)
        for calibration in document.calibration.values():
            state._calibration = _read_calibration(folder, calibration)
        return state, document.choices


def _changes(earlier: Mapping[str, str], choices: Mapping[str, str]) -> str:
    """Returns in words what was chosen otherwise in an earlier run; empty if nothing was."""
    changed = [name for name, chosen in choices.items() if earlier.get(name, chosen) != chosen]
    return ", ".join(f"{name} was {earlier[name]} and is {choices[name]} now" for name in changed)


def _name(quantized: Collection[str] | None) -> str:
    return _ORIGINAL if quantized is None else digest("\n".join(sorted(quantized)))


def _exactly(metric: Any) -> Any:
    """Returns a metric, if JSON keeps it exactly.

    Raises:
        ValueError: its value or its type would change.
    """
    try:
        again: Any = decode(json.dumps(metric, allow_nan=False).encode(), object)
    except (TypeError, RecursionError, ContentError) as error:
        raise ValueError(str(error)) from error
    if not _same(metric, again):
        raise ValueError("it is not the same")
    return again


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float):  # also those of NumPy, which are Python floats
        return isinstance(other, float) and one == other
    return type(one) is type(other) and bool(one == other)


def _read_evaluation(folder: Path, entry: _EvaluationEntry) -> Evaluation:
    arrays = _read_arrays(folder, entry.arrays)
    results, predictions = arrays.get(_RESULTS), arrays.get(_PREDICTIONS)
    if results is not None and not _is_list_of_numbers(results):
        raise ContentError("the results of an evaluation are no numbers")
    if predictions is not None and not is_list_of_predictions(predictions):
        raise ContentError("the predictions of an evaluation are neither integers nor text")
    if arrays.keys() - {_RESULTS, _PREDICTIONS} or (entry.arrays and not arrays):
        raise ContentError("the arrays of an evaluation are others than those that were written")
    return Evaluation(entry.metric, None, results, entry.model, predictions)


def _read_calibration(folder: Path, entry: _CalibrationEntry) -> CalibrationResult:
    arrays = _read_arrays(folder, entry.arrays)
    analyses = {
        name: LayerAnalysis(_read_similarity(name, text), count, *entry.noise.get(name, (None, None)))
        for name, (text, count) in entry.layers.items()
    }
    corrections = {name: _read_correction(name, arrays) for name in analyses}
    batches = tuple(_under(f"batch {index} ", arrays) for index in range(min(entry.batches, len(arrays))))
    if sum(map(len, batches)) != len(_under("batch ", arrays)):
        raise ContentError(f"there are values of other batches than {entry.batches}")
    source = str(folder / _FILE)
    shapes = {name: RangeShape(*parts) for name, parts in entry.shapes.items()}
    summaries = {
        name: replace(_read_summary(name, range_, arrays), shape=shapes.get(name))
        for name, range_ in entry.ranges.items()
    }
    # The run that is resumed has the same outputs, so that its layers have the same names.
    factors = {LayerName(key): each for key, each in parse_record(entry.record, source).items()}
    balance = {LayerName(key): each for key, each in parse_balance(entry.record, source).items()}
    tables = tuple(map(LayerName, parse_tables(entry.record, source)))
    return CalibrationResult(
        factors, corrections, analyses, batches, balance, summaries, entry.images, dict(entry.obstacles), tables
    )


def _read_correction(name: str, arrays: Mapping[str, np.ndarray]) -> LayerCorrection:
    found = {part: arrays.get(f"{part} {name}") for part in LayerCorrection.names()}
    for part, values in found.items():
        if values is None or (part == "weights" and values.dtype == np.int8) or _is_list_of_numbers(values):
            continue
        raise ContentError(f"the {part} of layer {name!r} is no array of numbers as a calibration finds it")
    return LayerCorrection(**found)


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _read_summary(name: str, limits: tuple[float, float], arrays: Mapping[str, np.ndarray]) -> ActivationSummary:
    lowest, highest = limits
    counts = arrays.get(f"counts {name}")
    if not lowest <= highest:
        raise ContentError(f"the range of {name!r} is none")
    if counts is None or not _is_list_of_numbers(counts) or not counts.size or (counts < 0).any():
        raise ContentError(f"the histogram of {name!r} is none")
    return ActivationSummary(lowest, highest, counts)


def _read_similarity(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ContentError(f"the similarity of layer {name!r} is {text[:20]!r}") from error


def _is_list_of_numbers(values: np.ndarray) -> bool:
    return values.ndim == 1 and values.dtype == np.float64 and bool(np.isfinite(values).all())


def _read_arrays(folder: Path, reference: _Arrays | msgspec.UnsetType) -> dict[str, np.ndarray]:
    """Reads the arrays of an entry by name; none if it has none."""
    if reference is msgspec.UNSET:
        return {}
    file = folder / Path(reference.file).name
    data = file.read_bytes() if file.is_file() else b""
    if digest(data) != reference.sha256:
        raise ContentError(f"{file} is not the file that was written")
    return parse_arrays(data, str(file))
