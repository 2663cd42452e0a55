"""Says what a quantized file consists of, and what would make it smaller, where it is not as small as one expects."""

from collections.abc import Collection, Sequence

from amct_tensorflow.log import log_for
from amct_tensorflow.model.tables import Table
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph
from amct_tensorflow.quantize.quantized.model_files import FileContent
from amct_tensorflow.results.report.wording import content_sentence

# Weights in int8 take a quarter of the float ones; a file with more than this share of the float one has much else.
EXPECTED_SHARE = 0.3


def log_file_size(
    original_bytes: int, quantized: QuantizedGraph, tables: Sequence[Table], compressed: Collection[str]
) -> None:
    """Logs what a quantized file consists of if it is larger than one expects.

    Args:
        original_bytes: size of the original model.
        quantized: the quantized model.
        tables: the tables of the float model.
        compressed: names of those that are stored in int8.
    """
    share = len(quantized.model) / max(original_bytes, 1)
    if share <= EXPECTED_SHARE:
        return
    content = quantized.content
    saved = sum(table.gain for table in tables if table.fits and table.name not in compressed)
    log_for("size").info(
        "The quantized file takes %.1f kB, %.0f %% of the original. %s%s",
        len(quantized.model) / 1e3, 100 * share, content_sentence(content), "".join(remedies(content, saved)),
    )  # fmt: skip


def remedies(content: FileContent, saved_by_tables: int) -> list[str]:
    """Returns what would make a file smaller, each as a sentence behind a space.

    Args:
        content: what it consists of.
        saved_by_tables: how many bytes its tables would take less in int8.
    """
    found = []
    if saved_by_tables > 0:
        found.append(f" With weight_compress_only, tables take {saved_by_tables / 1e3:.1f} kB less.")
    if content.names > content.int8_weights + content.float_weights:
        found.append(" Names are the model's own; exported with shorter scopes, it takes less.")
    return found
