"""The README is one page; both languages say the same."""

import re
import textwrap

from documents import ROOT, codes, commands

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_CN.md").read_text(encoding="utf-8")


def test_it_is_one_page():
    assert max(len(text.splitlines()) for text in (ENGLISH, CHINESE)) <= 150


def test_its_picture_is_small():
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", ENGLISH)
    assert (ROOT / picture).stat().st_size < 200_000 and f"]({picture})" in CHINESE


def test_both_languages_show_the_same_commands_and_code():
    assert commands(CHINESE) == commands(ENGLISH)
    english, chinese = (re.sub(r" *#.*", "", "".join(codes(text))) for text in (ENGLISH, CHINESE))
    assert english == chinese


def test_both_languages_have_the_same_tables():
    """As many tables, each with as many rows and columns, and the same figures in each row."""
    english, chinese = (
        [
            [(row.count("|"), figures(row)) for row in table.splitlines()[2:]]
            for table in re.findall(r"(?m)(?:^\|.*\n)+", text)
        ]
        for text in (ENGLISH, CHINESE)
    )
    assert english == chinese and len(english) == 3


def figures(text):
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def test_both_languages_give_the_same_figures_and_links():
    """Paragraph by paragraph would be too strict for a translation; section by section it is."""
    sections = [re.split(r"(?m)^#{2,3} .*$", text) for text in (ENGLISH, CHINESE)]
    assert len(sections[0]) == len(sections[1])
    for number, (english, chinese) in enumerate(zip(*sections, strict=True)):
        assert figures(english) == figures(chinese), textwrap.shorten(english, 80)
        if number:  # the first links to the other language
            assert re.findall(r"\]\(([^)]+)\)", english) == re.findall(r"\]\(([^)]+)\)", chinese)
