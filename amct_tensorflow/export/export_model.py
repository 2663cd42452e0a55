"""Exports a model: plans, converts, checks, and publishes the files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.export_report import dump_document, format_divergence, make_document
from amct_tensorflow.export.narrow_weights import with_narrow_weights
from amct_tensorflow.export.saturation import SEVEN_BITS
from amct_tensorflow.export.target import Saturating, Target
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.io.files import check_writable
from amct_tensorflow.io.publishing import exclusive, finish, publish
from amct_tensorflow.log import log_for
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

# A warning is due where an output has lost so many decibels: the noise is ten times as strong.
_MUCH = 10.0


def export_model(
    model: Path,
    outputs: Sequence[str],
    target: Target,
    evaluator: CheckedEvaluator,
    prefix: Path,
    limit: float,
    *,
    sums_in_int8: bool = False,
    weight_bits: int = 8,
    rises: bool = False,
) -> dict[str, Any]:
    """Exports a quantized model, and writes ``<prefix><suffix>`` and ``<prefix>_export_<format>.json`` together.

    A file that does not compute what the simulation does is called ``<prefix>_diverges<suffix>``, and its report
    likewise, so that nobody takes it for one that does; what an earlier export has left under the other names stays.

    Args:
        model: the quantized model.
        outputs: its outputs; none for those that it was made for.
        target: the format.
        evaluator: runs calibration data, and judges.
        prefix: folder and prefix of the files.
        limit: the divergence from the simulation that the exported model may have; beyond it a warning says so, and the
            files get the other names.
        sums_in_int8: whether sums between layers are to be computed in int8, too.
        weight_bits: 8, or 7 for weights in [-64, 63], whose products with bytes no processor saturates.
        rises: whether the limit is how far rounding moves the simulation itself from float, if that is more.

    Returns:
        The content of the JSON file.

    Raises:
        ModelError: the model cannot be read, or nothing in it is quantized.
        ExportError: it cannot be exported, a library is missing, or int8 between layers or weights in 7 bits would have
            no effect.
        OutputError: the files cannot be written, or another run writes there.
    """
    log = log_for("export")
    if sums_in_int8 and target.no_int8_sums:
        raise ExportError(
            f"--between int8 has no effect on {target.name}: {target.no_int8_sums}. Leave it out, or choose another "
            "format."
        )
    if weight_bits == 7 and target.never_saturates:
        raise ExportError(
            f"--weight_bits 7 gains nothing in {target.name}: {target.never_saturates}. Leave it out, or choose "
            "another format."
        )
    names, diverging = _Names.of(prefix, target), _Names.of(prefix.with_name(f"{prefix.name}_diverges"), target)
    check_writable(prefix.parent)
    with exclusive([prefix.parent]):
        finish(prefix.parent, [*names.all, *diverging.all])
        plan = plan_export(model, outputs, evaluator, sums_in_int8=sums_in_int8)
        if weight_bits == 7:
            plan = with_narrow_weights(plan, evaluator, SEVEN_BITS)
        log.info("%d quantized layers; converting to %s takes some seconds.", len(plan.layers), target.name)
        exported = target.export(plan, evaluator)
        check = check_export(plan, exported, evaluator)
        if rises and math.isfinite(check.rounding):
            limit = max(limit, check.rounding)
        document = make_document(plan, target, exported, check, names.model.name, limit, weight_bits)
        chosen, others = (names, diverging) if document["within_limit"] else (diverging, names)
        document["file"] = chosen.model.name
        _warn_of_divergence(chosen, others, document)
        if exported.saturating is not None and check.saturating is not None:
            _warn_of_saturation(chosen.model, exported.saturating, document)
        contents: dict[Path, str | bytes] = {chosen.files[suffix]: data for suffix, data in exported.files.items()}
        if existing := next((path for path in contents if path.exists()), None):
            log.warning("%s and what belongs to it already exist; they will be overwritten.", existing)
        publish(prefix.parent, {**contents, chosen.report: dump_document(document)})
        if document["within_limit"]:
            _remove(diverging)
    return document


@dataclass(frozen=True)
class _Names:
    """The files of an export.

    Attributes:
        files: per suffix, the file; the first is the one to open.
        report: the report of the export.
    """

    files: Mapping[str, Path]
    report: Path

    @classmethod
    def of(cls, prefix: Path, target: Target) -> "_Names":
        """Returns the files of a prefix."""
        files = {suffix: prefix.with_name(f"{prefix.name}{suffix}") for suffix in target.suffixes}
        return cls(files, prefix.with_name(f"{prefix.name}_export_{target.name}.json"))

    @property
    def model(self) -> Path:
        """The file to open."""
        return next(iter(self.files.values()))

    @property
    def all(self) -> list[Path]:
        """All of them."""
        return [*self.files.values(), self.report]


def _remove(names: _Names) -> None:
    """Removes the files of an earlier export that diverged, now that one does not."""
    if any(path.exists() for path in names.all):
        log_for("export").info("%s, of an earlier export that diverged, is removed.", names.model)
    for path in names.all:
        path.unlink(missing_ok=True)


def _warn_of_divergence(chosen: _Names, others: _Names, document: Mapping[str, Any]) -> None:
    """Warns of a file whose outputs differ from the simulation, on average or at one output."""
    log = log_for("export")
    if not document["within_limit"]:
        log.warning(
            "%s does not compute what the simulation does: its outputs diverge by %s, the limit is %g. So it is not "
            "called %s. Look at the layers in %s.",
            chosen.model, format_divergence(document["kl"]), document["kl_limit"], others.model.name, chosen.report,
        )  # fmt: skip
        if others.model.exists():
            log.warning("%s is that of an earlier export; it stays as it is.", others.model)
    for output in document["outputs"]:
        if output["lost_db"] >= _MUCH:
            log.warning(
                "Output %r of %s has %s dB of signal over noise where the simulation has %s: what lies between "
                "layers is rounded to 8 bits once more there. Look at the layers in %s, or choose another format.",
                output["name"], chosen.model, output["exported_db"], output["simulation_db"], chosen.report,
            )  # fmt: skip


def _warn_of_saturation(file: Path, saturating: Saturating, document: Mapping[str, Any]) -> None:
    """Warns of the error of this processor, if it saturates products of bytes."""
    log_for("export").warning(
        "On this processor, as on other x86 processors without VNNI, %s adds products of bytes in pairs of 16 bits, "
        "which saturate: as it computes %s here, the outputs diverge by %s; with exact kernels by %s. For such "
        "processors export with --weight_bits 7%s.",
        saturating.name, file, format_divergence(document["this_processor"]["kl"]), format_divergence(document["kl"]),
        f", or {saturating.remedy}" if saturating.remedy else "",
    )  # fmt: skip
