"""Sections of pages in docs/ that a benchmark writes: what stands between two marks."""

from collections.abc import Sequence
from pathlib import Path

END = "<!-- end -->"


def begin_mark(program: str) -> str:
    """Returns the line after which a section begins that ``benchmarks/<program>`` writes; it ends before ``END``."""
    return f"<!-- written by benchmarks/{program}: begin -->"


def write_section(page: Path, program: str, lines: Sequence[str]) -> None:
    """Replaces what a program wrote into a page.

    Raises:
        ValueError: the page does not have the two marks.
    """
    begin = begin_mark(program)
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{page} does not have the lines {begin!r} and {END!r}. Put them where the table is to stand.")
    page.write_text("\n".join([before + begin, *lines, END + after]), encoding="utf-8")
