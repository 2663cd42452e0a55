"""docs/architecture.md is true of the rooms, and the rooms keep what it promises."""

import ast
import graphlib
import re
from collections import Counter

import pytest
from conftest import ROOT

PACKAGE = ROOT / "amct_tensorflow"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
# What a file of any room may import beside the rooms: these know nothing of the rest.
EVERYWHERE = {"", "errors", "log"}
# The import paths of the original name what they stand for, whatever room that lies in.
ORIGINAL = "original"


def folders(heading):
    """Returns the folders that the table under a heading names, in its order."""
    table = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"(?m)^\| `([\w/]+)` \|", table)


ROOMS = folders("The rooms")


def module(file):
    """Returns the name that a file is imported by, without that of the package."""
    return ".".join(file.with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imports(source):
    """Returns the modules of the package that a text imports, or the names in them, without that of the package."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            modules.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.partition(".")[2] for name in modules if name.partition(".")[0] == "amct_tensorflow"}


def test_every_way_to_import_is_seen():
    lines = [
        "import amct_tensorflow.search.state",
        "from amct_tensorflow import results",
        "from amct_tensorflow.graph.view import x",
    ]
    assert imports("\n".join(lines)) == {"search.state", "results", "graph.view.x"}
    assert imports("import amct_tensorflow as amct, os") == {""}


def test_every_room_has_its_line():
    assert sorted(ROOMS) == sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


def test_the_top_level_is_small():
    assert len([file for file in FILES if len(file.parts) == 1]) <= 8


def test_tests_stand_in_the_folder_of_a_room():
    tests = ROOT / "tests"
    found = {path.parent.relative_to(tests) for path in tests.glob("*/**/test_*.py")}
    assert found and [folder for folder in found if not (PACKAGE / folder / "__init__.py").is_file()] == []


def test_folders_beside_the_package_exist():
    named = folders("Beside the package")
    assert "src" in named and all((ROOT / name).is_dir() for name in named)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_run_one_way(file):
    """A room imports only rooms above it; the files at the top import any, but only the command line imports these."""
    room = file.parts[0]
    if len(file.parts) == 1 or room == ORIGINAL:
        return
    doors = {path.stem for path in FILES if len(path.parts) == 1} if room == "cli" else set()
    allowed = EVERYWHERE | doors | set(ROOMS[: ROOMS.index(room) + 1])
    found = imports((PACKAGE / file).read_text())
    assert {name.split(".")[0] for name in found} - {"__version__"} <= allowed


def test_no_module_imports_itself_through_others():
    known = {module(file): file for file in FILES if module(file)}
    graph = {}
    for name, file in known.items():
        found = imports((PACKAGE / file).read_text())
        graph[name] = {each if each in known else each.rpartition(".")[0] for each in found} & set(known)
    list(graphlib.TopologicalSorter(graph).static_order())


def test_a_name_stands_for_one_file():
    """But for files that play the same role in different rooms: the subcommands are called as what they run."""
    names = Counter(file.stem for file in FILES if file.stem != "__init__" and file.parts[0] not in ("cli", ORIGINAL))
    assert [name for name, times in names.items() if times > 1] == []


def test_no_file_is_too_small_to_be_one():
    """A file that is imported by one other is a part of it, unless it is one of a kind, as a command is."""
    kinds = ("cli", ORIGINAL)
    small = [file for file in FILES if file.stem not in ("__init__", "console") and file.parts[0] not in kinds]
    assert [str(file) for file in small if len((PACKAGE / file).read_text().splitlines()) < 40] == []


def test_the_changelog_begins_with_the_version():
    version = re.findall(r'(?m)^__version__ = "(.*)"$', (PACKAGE / "__init__.py").read_text())
    assert re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text())[:1] == version


def test_files_that_contributors_are_sent_to_exist():
    paths = re.findall(r"`((?:amct_tensorflow|tests|docs)/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
