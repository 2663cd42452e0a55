"""Says what a quantized file consists of, and what would make it smaller, where it is not as small as one expects."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.quantized.model_files import FileContent
from amct_tensorflow.results.report.document import Report
from amct_tensorflow.results.report.wording import content_sentence

if TYPE_CHECKING:  # a report is made again without TensorFlow
    from amct_tensorflow.model.tables import Table
    from amct_tensorflow.quantize.quantized.builder import QuantizedGraph

# Weights in int8 take a quarter of the float ones; a file with more than this share of the float one has much else.
EXPECTED_SHARE = 0.3


def log_file_size(
    original_bytes: int, quantized: "QuantizedGraph", tables: "Sequence[Table]", compressed: Collection[str]
) -> None:
    """Logs what a quantized file consists of if it is larger than one expects.

    Args:
        original_bytes: size of the original model.
        quantized: the quantized model.
        tables: the tables of the float model.
        compressed: names of those that are stored in int8.
    """
    saved = sum(table.gain for table in tables if table.fits and table.name not in compressed)
    told = file_sentences(len(quantized.model), original_bytes, quantized.content, saved)
    if told:
        log_for("size").info("%s", told)


def sentences_of(report: Report) -> str:
    """Returns what is said of the file of the model in a report; nothing of one that is small."""
    size = report.size
    if size.content is None:
        return ""
    saved = sum(each.float_bytes - each.int8_bytes for each in report.tables if not each.int8 and each.reason is None)
    return file_sentences(size.quantized_bytes, size.smallest_bytes, size.content, saved)


def file_sentences(quantized_bytes: int, original_bytes: int, content: FileContent, saved_by_tables: int) -> str:
    """Returns what a quantized file consists of, and what makes it smaller; nothing if it is as small as one expects.

    Args:
        quantized_bytes: its size.
        original_bytes: size of the original model.
        content: what it consists of.
        saved_by_tables: how many bytes its tables would take less in int8.
    """
    share = quantized_bytes / max(original_bytes, 1)
    if share <= EXPECTED_SHARE:
        return ""
    takes = f"The quantized file takes {quantized_bytes / 1e3:.1f} kB, {100 * share:.0f} % of the original."
    return f"{takes} {content_sentence(content)}{''.join(remedies(content, saved_by_tables))}"


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
