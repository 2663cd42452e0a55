"""One export: plan, convert, check, and put the files in place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.check import check_export
from amct_tensorflow.export.narrow_weights import with_narrow_weights
from amct_tensorflow.export.plan import plan_export
from amct_tensorflow.export.report import dump_document, format_divergence, make_document
from amct_tensorflow.export.saturation import SEVEN_BITS
from amct_tensorflow.export.target import Saturating, Target
from amct_tensorflow.log import log_for
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.storage.files import check_writable
from amct_tensorflow.storage.locks import exclusive
from amct_tensorflow.storage.publishing import finish, publish


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
) -> dict[str, Any]:
    """Exports a quantized model, and writes ``<prefix><suffix>`` and ``<prefix>_export_<format>.json`` together.

    Args:
        model: the quantized model.
        outputs: its outputs; none for all that nothing reads.
        target: the format.
        evaluator: runs calibration data, and judges.
        prefix: folder and prefix of the files.
        limit: the divergence from the simulation that the exported model may have; beyond it the files are written all
            the same, and a warning says so.
        sums_in_int8: whether sums between layers are to be computed in int8, too.
        weight_bits: 8, or 7 for weights in [-64, 63], whose products with bytes no processor saturates.

    Returns:
        What the JSON file holds.

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
    paths = {suffix: prefix.with_name(f"{prefix.name}{suffix}") for suffix in target.suffixes}
    report = prefix.with_name(f"{prefix.name}_export_{target.name}.json")
    check_writable(prefix.parent)
    with exclusive([prefix.parent]):
        finish(prefix.parent, [*paths.values(), report])
        plan = plan_export(model, outputs, evaluator, sums_in_int8=sums_in_int8)
        if weight_bits == 7:
            plan = with_narrow_weights(plan, evaluator, SEVEN_BITS)
        log.info("%d quantized layers; converting to %s takes some seconds.", len(plan.layers), target.name)
        exported = target.export(plan, evaluator)
        file = paths[target.suffixes[0]]
        check = check_export(plan, exported, evaluator)
        document = make_document(plan, target, exported, check, file.name, limit, weight_bits)
        if not document["within_limit"]:
            log.warning(
                "%s does not compute what the simulation does: its outputs diverge by %s, the limit is %g. Look at the "
                "layers in %s.",
                file, format_divergence(document["kl"]), limit, report,
            )  # fmt: skip
        if exported.saturating is not None:
            _warn_of_saturation(file, exported.saturating, document)
        contents: dict[Path, str | bytes] = {paths[suffix]: data for suffix, data in exported.files.items()}
        if existing := next((path for path in contents if path.exists()), None):
            log.warning("%s and what belongs to it already exist; they will be overwritten.", existing)
        publish(prefix.parent, {**contents, report: dump_document(document)})
    return document


def _warn_of_saturation(file: Path, saturating: Saturating, document: Mapping[str, Any]) -> None:
    """Tells what this processor makes of a file that is right where products of bytes do not saturate."""
    log_for("export").warning(
        "On this processor, as on other x86 processors without VNNI, %s adds products of bytes in pairs of 16 bits, "
        "which saturate: as it computes %s here, the outputs diverge by %s; with exact kernels by %s. For such "
        "processors export with --weight_bits 7%s.",
        saturating.name, file, format_divergence(document["this_processor"]["kl"]), format_divergence(document["kl"]),
        f", or {saturating.remedy}" if saturating.remedy else "",
    )  # fmt: skip
