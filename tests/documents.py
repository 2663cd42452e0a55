"""The pages of the project: their commands, their code, and where their links lead."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
PAGES = sorted({*ROOT.glob("*.md"), *(page for name in ("docs", "benchmarks", "data", "model")
                                      for page in (ROOT / name).rglob("*.md"))})  # fmt: skip

COMMAND = re.compile(r"(?m)^    ((?:make|pip|python|cp|atc|eval|\.venv/bin/python)\b.*)$")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
_FENCED = re.compile(r"(?ms)^```.*?^```|^    .*?$|`[^`\n]+`")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?\s*\)")
_HEADING = re.compile(r"(?m)^#{1,6} (.*)$")


def commands(text):
    """Returns what a page tells to type."""
    return COMMAND.findall(text)


def codes(text):
    """Returns the blocks of Python of a page."""
    return PYTHON.findall(text)


def links(text):
    """Returns the targets of the links and pictures of a page."""
    return _LINK.findall(_FENCED.sub("", text))


def anchors(text):
    """Returns the anchors of the headings of a page, as GitHub makes them."""
    headings = _HEADING.findall(re.sub(r"(?ms)^```.*?^```", "", text))
    found = []
    for heading in headings:
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return found


def broken(page, text):
    """Returns the links of a page that lead nowhere within the project; those to the web are not followed."""
    wrong = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    return wrong
