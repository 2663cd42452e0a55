"""docs/architecture.md is true: of every file, and of which room may import which."""

import ast
import re

import pytest
from conftest import ROOT

from amct_tensorflow import __version__

PACKAGE = ROOT / "amct_tensorflow"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def folders(heading):
    """Returns the folders that the table under a heading names, in its order."""
    table = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| (`\w+`(?:, `\w+`)?) \|", table)))


ROOMS = folders("The rooms")


def is_empty(file):
    """Tells whether there is nothing in a file but what it is for."""
    return len(ast.parse((PACKAGE / file).read_text()).body) == 1


def test_every_file_has_its_line_and_every_line_its_file():
    named = re.findall(r"(?m)^\| `([\w/]+\.py)` \|", PAGE)
    assert sorted(named) == sorted(str(path) for path in FILES if not is_empty(path))


def test_every_room_has_its_line():
    assert sorted(ROOMS) == sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


def test_tests_stand_in_the_folder_of_a_room():
    found = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert found and found <= set(ROOMS)


def test_folders_beside_the_package_exist():
    named = folders("Beside the package")
    assert "src" in named and all((ROOT / name).is_dir() for name in named)


def imports(source):
    """Returns what a text imports of the package, by the name right below it."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            modules.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in (f"{module}." for module in modules) if name.startswith("amct_tensorflow.")}


def test_every_way_to_import_is_seen():
    lines = [
        "import amct_tensorflow.search.state",
        "from amct_tensorflow import results",
        "from amct_tensorflow.graph.view import x",
    ]
    assert imports("\n".join(lines)) == {"search", "results", "graph"}
    assert imports("import amct_tensorflow as amct, os") == {""}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_run_one_way(file):
    """A room imports only rooms above it; the files at the top import any, but only commands import these doors."""
    room = file.parts[0]
    if len(file.parts) == 1:
        return
    doors = {path.stem for path in FILES if len(path.parts) == 1} if room == "commands" else set()
    allowed = doors | {"errors", "log", "version", *ROOMS[: ROOMS.index(room) + 1]}
    assert imports((PACKAGE / file).read_text()) <= allowed


def test_the_changelog_begins_with_the_version():
    assert re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text())[0] == __version__


def test_files_that_contributors_are_sent_to_exist():
    paths = re.findall(r"`((?:amct_tensorflow|tests|docs)/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
