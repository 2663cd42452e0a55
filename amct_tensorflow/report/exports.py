"""What exports say of themselves, in files beside the quantized model that they were made of."""

from pathlib import Path

import msgspec

from amct_tensorflow.errors import ContentError
from amct_tensorflow.log import log_for
from amct_tensorflow.quantized.model_files import prefix_of
from amct_tensorflow.report.document import Export
from amct_tensorflow.report.report_json import check_finite
from amct_tensorflow.storage.json_text import expect, parse_json


def read_exports(folder: Path, model: str) -> tuple[Export, ...]:
    """Reads the files ``PREFIX_export_FORMAT.json``, of the prefix that a model has; warns of those that say nothing.

    Exports that diverged are among them: of these, ``PREFIX`` ends in ``_diverges``.

    Args:
        folder: where they are.
        model: name of the quantized model's file.
    """
    prefix = prefix_of(Path(model)).name
    starts = (f"{prefix}_export_", f"{prefix}_diverges_export_")
    files = sorted(path for path in folder.glob("*_export_*.json") if path.name.startswith(starts))
    found = []
    for file in files:
        try:
            document = expect(dict, parse_json(file.read_bytes()), "the export")
            check_finite(document)
            found.append(msgspec.convert(document, Export))
        except (OSError, ContentError, msgspec.ValidationError) as error:
            log_for("report").warning(
                "%s is left out of the report, as it cannot be read (%s). Export again.", file, str(error)[:200]
            )
    return tuple(found)
