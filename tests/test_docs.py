"""The examples in docs/ are accepted by the readers of those formats; tables of every page are whole."""

import importlib
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import amct_tensorflow as amct
from amct_tensorflow.model.model_file import load_graph
from amct_tensorflow.quantize.record.factors import LayerFactors
from amct_tensorflow.quantize.record.record_file import parse_record

MODEL = ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb"
FOLDERS = ["docs", "benchmarks", "data", "model", "src", "tests", "amct_tensorflow"]
FORMATS = (ROOT / "docs" / "file_formats.md").read_text()


def example(heading):
    """Returns the indented text of a section."""
    section = FORMATS.split(f"## {heading}\n")[1].split("\n## ")[0]
    return textwrap.dedent("".join(re.findall(r"(?m)^(?: {4}.*)\n", section)))


def test_simplified_configuration(workdir):
    Path("my.cfg").write_text(example("Simplified configuration (.cfg)"))
    graph = load_graph(MODEL)
    amct.create_quant_config("config.json", graph, config_defination="my.cfg")
    text = Path("config.json").read_text()
    assert text.count('"num_of_bins":4096') == 17
    assert '"batch_num":2' in text
    enabled = re.findall(r'"(\S+)":{\n        "quant_enable":true', text)
    assert len(enabled) == 52 and "MobilenetV2/Conv/Conv2D" not in enabled
    last = text.split('"MobilenetV2/Conv_1/Conv2D":')[1]
    assert last.index('"channel_wise":false') < last.index("quant_enable", last.index("weight_quant_params"))


def test_record():
    factors = parse_record(example("record.txt"), "docs/file_formats.md")
    scale_d, scale_w = float(np.float32(0.00784313772)), float(np.float32(0.00834775344))
    assert factors == {"MobilenetV2/Conv/Conv2D": LayerFactors(scale_d, -1, (scale_w,))}


def test_defaults_of_the_configuration(workdir):
    """The table of global keys is the file that create_quant_config writes."""
    amct.create_quant_config("config.json", load_graph(MODEL))
    written = Path("config.json").read_text()
    table = dict(re.findall(r"(?m)^\| `(\w+)` \| (\S+) \|", FORMATS.split("## config.json")[1].split("Per layer")[0]))
    assert table.pop("fakequant_precision_mode") == "absent" and "fakequant_precision_mode" not in written
    assert len(table) == 11
    for key, value in table.items():
        assert f'    "{key}":{value},\n' in written


def test_files_named_by_the_algorithms_exist():
    text = (ROOT / "docs" / "algorithms.md").read_text()
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(files) > 10
    assert [file for file in sorted(files) if not (ROOT / "amct_tensorflow" / file).is_file()] == []


def test_every_public_module_is_on_the_page_of_the_api():
    """Those that the guide names, and where the original's names are."""
    shown = re.findall(r"(?m)^\.\. automodule:: (\S+)$", (ROOT / "docs" / "api.md").read_text())
    guide = (ROOT / "docs" / "guide" / "python.md").read_text().split("## Public modules")[1]
    assert set(re.findall(r"(?m)^\| `(\S+)`", guide)) == set(shown)
    for name in shown:
        assert importlib.import_module(name).__doc__


def tables(text):
    """Returns the tables of a page, each as its rows: lines that stand together and begin with a bar."""
    return [block.splitlines() for block in re.findall(r"(?m)(?:^ {0,3}\|.*\n?)+", re.sub(r"(?s)```.*?```", "", text))]


def test_a_row_apart_from_its_table_is_noticed():
    assert [
        len(rows) for rows in tables("| a |\n| - |\n| 1 |\n\n| 2 |\n\n```\n| no table |\n```\n    | nor this |\n")
    ] == [3, 1]


PAGES = sorted({*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_rows_stand_under_the_head_of_their_table(page):
    for head, *rows in tables(page.read_text()):
        assert rows and re.fullmatch(r"\|( *:?-+:? *\|)+", rows[0].strip()), f"{head} begins no table"
        columns = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in (head, *rows)}
        assert len(columns) == 1, f"rows below {head} have more or fewer cells"
