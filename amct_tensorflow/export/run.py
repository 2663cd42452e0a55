"""One export: plan, convert, check, and put the files in place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.check import check_export
from amct_tensorflow.export.plan import plan_export
from amct_tensorflow.export.report import dump_document, make_document
from amct_tensorflow.export.target import Target
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

    Returns:
        What the JSON file holds.

    Raises:
        ModelError: the model cannot be read, or nothing in it is quantized.
        ExportError: it cannot be exported, a library is missing, or int8 between layers would have no effect.
        OutputError: the files cannot be written, or another run writes there.
    """
    log = log_for("export")
    if sums_in_int8 and target.no_int8_sums:
        raise ExportError(
            f"--between int8 has no effect on {target.name}: {target.no_int8_sums}. Leave it out, or choose another "
            "format."
        )
    paths = {suffix: prefix.with_name(f"{prefix.name}{suffix}") for suffix in target.suffixes}
    report = prefix.with_name(f"{prefix.name}_export_{target.name}.json")
    check_writable(prefix.parent)
    with exclusive([prefix.parent]):
        finish(prefix.parent, [*paths.values(), report])
        plan = plan_export(model, outputs, evaluator, sums_in_int8=sums_in_int8)
        log.info("%d quantized layers; converting to %s takes some seconds.", len(plan.layers), target.name)
        exported = target.export(plan, evaluator)
        file = paths[target.suffixes[0]]
        document = make_document(plan, target, exported, check_export(plan, exported, evaluator), file.name, limit)
        if not document["within_limit"]:
            log.warning(
                "%s does not compute what the simulation does: its outputs diverge by %s, the limit is %g. Look at the "
                "layers in %s.",
                file, document["kl"], limit, report,
            )  # fmt: skip
        contents: dict[Path, str | bytes] = {paths[suffix]: data for suffix, data in exported.files.items()}
        if existing := next((path for path in contents if path.exists()), None):
            log.warning("%s and what belongs to it already exist; they will be overwritten.", existing)
        publish(prefix.parent, {**contents, report: dump_document(document)})
    return document
