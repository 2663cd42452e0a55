"""docs/architecture.md is true: of every file, and of which room may import which."""

import ast
import re

import pytest
from conftest import ROOT

from amct_tensorflow.version import VERSION

PACKAGE = ROOT / "amct_tensorflow"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
ROOMS = re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| (`\w+`(?:, `\w+`)?) \|", PAGE.split("## The rooms")[1])))


def test_every_file_has_its_line_and_every_line_its_file():
    named = re.findall(r"(?m)^\| `([\w/]+\.py)` \|", PAGE)
    assert sorted(named) == sorted(str(path) for path in FILES if path.name != "__init__.py")


def test_every_room_has_its_line():
    assert sorted(ROOMS) == sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_run_one_way(file):
    """A room imports only rooms above it; the files at the top import any, but no room imports the doors."""
    room = file.parts[0]
    if len(file.parts) == 1:
        return
    tree = ast.parse((PACKAGE / file).read_text())
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    imported = {module.split(".")[1] for module in modules if module.startswith("amct_tensorflow.")}
    allowed = {"errors", "log", "version", *ROOMS[: ROOMS.index(room) + 1]}
    assert imported <= allowed


def test_the_changelog_begins_with_the_version():
    assert re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text())[0] == VERSION


def test_files_that_contributors_are_sent_to_exist():
    paths = re.findall(r"`((?:amct_tensorflow|tests|docs)/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
