"""Tables of text, numbers of three digits, and output that nobody reads to its end."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.io.table import abbreviated, format_table, shortened


def test_a_table():
    assert format_table(("type", "size", "name"), [("conv", "7", "a/b"), ("b", "128", "c")], right=("size",)) == [
        "type  size  name",
        "conv     7  a/b",
        "b      128  c",
    ]


def test_names_are_shortened_to_the_width_but_enough_is_left():
    name = "model/" + "x" * 30 + "/" + "y" * 30
    rows = [("conv", name), ("conv", "model/short")]
    assert format_table(("type", "name"), rows)[1] == f"conv  {name}"
    wide = format_table(("type", "name"), rows, width=60)
    assert wide == ["type  name", f"conv  .../{'x' * 21}...{'y' * 26}", "conv  .../short"]
    assert len(wide[1]) == 60
    assert len(format_table(("type", "name"), rows, width=10)[1]) == len("conv  ") + 40


def test_scopes_that_all_names_share_go_first():
    names = ["network/block_1/conv/Conv2D", "network/block_10/conv/Conv2D", "network/block_1/conv_1/Conv2D"]
    assert shortened(names, 100) == names
    assert shortened(names, 26) == [".../block_1/conv/Conv2D", ".../block_10/conv/Conv2D", ".../block_1/conv_1/Conv2D"]
    assert shortened(["a/" + "b" * 20, "c"], 10) == ["a/b...bbbb", "c"]


@given(st.lists(st.text("ab/", max_size=30), max_size=5), st.integers(8, 40))
def test_no_name_is_longer_than_it_may_be(names, length):
    result = shortened(names, length)
    assert len(result) == len(names) and all(len(name) <= length for name in result)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00k"), (35842, "35.8k"), (999_499, "999k"), (999_500, "1.00M"),
     (3_857_973_248, "3.86G"), (10**18, "1.00E")],
)  # fmt: skip
def test_three_digits(number, text):
    assert abbreviated(number) == text


def test_whoever_reads_the_output_may_stop():
    code = "from amct_tensorflow.io.run_as_command import show\nshow('x' * 10**6)\nshow('more')"
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert process.communicate()[1] == b"" and process.returncode == 0


def test_what_the_terminal_does_not_know_is_escaped():
    code = "from amct_tensorflow.io.run_as_command import show\nshow('l\\u00e4nge')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment) == b"l\\xe4nge\n"
