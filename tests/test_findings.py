"""The programs that show what other tools do: each pins what it installs, and each that the pages name is there."""

import re

import pytest
from documents import PAGES, ROOT

FINDINGS = sorted((ROOT / "findings").glob("*.sh"))


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_a_program_runs_pinned_packages_in_a_folder_of_its_own(path):
    head, strict, code = path.read_text(encoding="utf-8").partition("\nset -euo pipefail\n")
    assert strict and re.search(r"\d+\.\d+\.\d+", head)
    assert "mktemp -d" in code and "amct" not in code
    assert re.search(r"[\w-]+==\d[\w.]+", code)
    assert path.stat().st_mode & 0o111


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_pages_name_is_there(page):
    named = re.findall(r"findings/(\w+\.sh)", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / "findings" / name).exists()] == []
