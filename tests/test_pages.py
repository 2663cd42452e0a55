"""Benchmarks write their tables into pages, and nothing else there; each finds its place."""

import re

import pytest
from conftest import ROOT, load_script
from documents import PAGES

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


# What each program that writes calls the page it writes into.
WRITERS = {
    path.name: re.findall(r'"(\w+\.md)"', text) or ["README.md"]
    for path in (ROOT / "benchmarks").glob("*.py")
    if re.search(r"\b(write_section|publish)\(", text := path.read_text(encoding="utf-8"))
    and path.name not in ("pages.py", "measuring.py")
}
SECTIONS = {
    (program, page)
    for page in PAGES
    for program in re.findall(r"<!-- written by benchmarks/(\w+\.py): begin -->", page.read_text(encoding="utf-8"))
}


def test_every_section_has_a_program_that_writes_it():
    """A program that is renamed would no longer find its section."""
    assert {(program, page.name) for program, page in SECTIONS} == {
        (program, page) for program, names in WRITERS.items() for page in names
    }
    assert len(SECTIONS) > 10


@pytest.mark.parametrize(("program", "page"), sorted(SECTIONS))
def test_every_section_says_when_it_was_measured_and_has_a_table(program, page):
    section = page.read_text(encoding="utf-8").split(pages.begin_mark(program))[1].split(pages.END)[0]
    assert re.search(r"20\d\d-\d\d-\d\d, x86_64.*, \d+ cores?, Linux, Python .*, TensorFlow ", section)
    assert re.search(r"(?m)^\| -+ \|", section)


def test_both_readmes_get_the_table_of_other_tools(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    peers = load_script("benchmarks/peers.py")
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    ours = {"tool": "this tool", "top-1": 88.1666, "KL": 0.00621, "float_layers": 0, "layers": 54, "evaluations": 2}
    row = {**ours, "tool": "another", "version": "1.2", "KL": 0.1, "evaluations": 0, "seconds": 160.7}
    before = {name: (ROOT / name).read_text(encoding="utf-8") for name in peers.PAGES}
    for name, text in before.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    peers.write_pages([{**ours, "seconds": 7.66}, row], 87.8333)
    for name, text in before.items():
        after = (tmp_path / name).read_text(encoding="utf-8")
        assert re.search(r"\| this tool +\| 88\.17 \| 0\.0062 +\| 0 / 54 +\| 2 +\| 7\.7 +\|", after)
        assert re.search(r"\| another \(1\.2\) \| 88\.17 \| 0\.10 +\| 0 / 54 +\| +\| 161 +\|", after)
        assert "87.83" in after.split(pages.begin_mark("peers.py"))[1].split(pages.END)[0]
        heads = [re.search(r"(?m)^\|.*\| *KL.*$", page)[0].split("|") for page in (text, after)]
        assert [cell.strip() for cell in heads[0]] == [cell.strip() for cell in heads[1]]
