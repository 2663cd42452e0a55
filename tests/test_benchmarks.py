"""Benchmarks measure with the settings of a user's run."""

import ast
import sys

import pytest
from conftest import ROOT

PROGRAMS = [path for path in (ROOT / "benchmarks").glob("*.py") if "from measuring import" in path.read_text()]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_what_tensorflow_reads_is_set_before_it_is_imported(program):
    """It reads while it is imported whether to use oneDNN, and ``measuring`` says so as the sample does."""
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(program.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert next(name for name in imported if name.split(".")[0] not in sys.stdlib_module_names) == "measuring"


def test_there_are_programs():
    assert len(PROGRAMS) > 15
