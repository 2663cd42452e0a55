"""Numbers with their nouns."""

import os

import pytest
from conftest import load_script

from amct_tensorflow.io.table import plural


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ["layer"], "0 layers"),
        (1, ["layer"], "1 layer"),
        (2, ["layer", "stays", "stay"], "2 layers stay"),
        (1, ["layer", "stays", "stay"], "1 layer stays"),
    ],
)
def test_a_number_with_its_noun_and_verb(number, words, expected):
    assert plural(number, *words) == expected


@pytest.mark.parametrize(("cores", "expected"), [({0}, ", 1 core, "), ({0, 1}, ", 2 cores, ")])
def test_the_machine_of_a_benchmark(monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    monkeypatch.syspath_prepend(str(load_script("benchmarks/pages.py").__file__.rpartition("/")[0]))
    assert expected in load_script("benchmarks/measuring.py").environment()["machine"]


@pytest.mark.parametrize(("count", "expected"), [(1, ", 1 CPU, "), (8, ", 8 CPUs, ")])
def test_the_machine_of_a_run(monkeypatch, messages, count, expected):
    from amct_tensorflow.results.report.reproduction import log_environment  # noqa: PLC0415

    monkeypatch.setattr(os, "cpu_count", lambda: count)
    log_environment({}, {})
    assert any("Machine: " in line and expected in line for line in messages)
