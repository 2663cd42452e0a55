"""Benchmarks write their tables into the pages in docs/, and nothing else."""

import re

import pytest
from conftest import ROOT, load_script

pages = load_script("benchmarks/pages.py")


def test_a_section_takes_the_place_of_the_one_before(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{pages.begin_mark('it.py')}\nold\n{pages.END}\n\nBetween.\n{pages.END}\nAfter.\n")
    pages.write_section(page, "it.py", ["new", "lines"])
    assert page.read_text() == (
        f"Before.\n\n{pages.begin_mark('it.py')}\nnew\nlines\n{pages.END}\n\nBetween.\n{pages.END}\nAfter.\n"
    )


@pytest.mark.parametrize("text", ["none\n", "<!-- written by benchmarks/it.py: begin -->\nopen\n"])
def test_a_page_without_marks_stays_as_it_is(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md does not have the lines"):
        pages.write_section(page, "it.py", ["new"])
    assert page.read_text() == text


def test_marks_stand_where_a_program_writes():
    """A program that is renamed would no longer find its section."""
    for page in (ROOT / "docs").glob("*.md"):
        for program in re.findall(r"written by benchmarks/(\w+\.py)", page.read_text(encoding="utf-8")):
            text = (ROOT / "benchmarks" / program).read_text(encoding="utf-8")
            assert f'ROOT / "docs" / "{page.name}"' in text
