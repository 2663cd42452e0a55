"""report.json is what the page on reports describes, and nothing that anybody makes of it does more than be refused."""

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from reports import make_report

from amct_tensorflow.errors import ReportError, ReportNotFoundError
from amct_tensorflow.results.report import document
from amct_tensorflow.results.report.report_json import dump_report, read_report

DOCUMENT = json.loads(dump_report(make_report()))


def read(document):
    Path("report.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return read_report(Path("report.json"))


def test_what_is_written_is_read():
    report = make_report()
    assert read(dump_report(report)) == report


def test_names_that_are_hard_to_write_are_read_again():
    report = make_report(names=('"', "\\", "</script>", "\u2028", "ü"))
    assert read(dump_report(report)) == report


@pytest.mark.parametrize("given", [".", "report.json", "report.html", "net_quantized.pb"])
def test_the_folder_or_any_file_in_it_will_do(given):
    read(DOCUMENT)
    for name in ("report.html", "net_quantized.pb"):
        Path(name).touch()
    assert read_report(Path(given)) == make_report()


@pytest.mark.parametrize(("given", "said"), [(".", "no report.json"), ("missing", "does not exist")])
def test_what_is_not_there_is_said(given, said):
    with pytest.raises(ReportNotFoundError, match=said):
        read_report(Path(given))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("", "cannot be read"),
        ("[]", "Expected `object`"),
        ({**DOCUMENT, "version": 2}, "version 2"),
        ({**DOCUMENT, "layers": 3}, "layers"),
        ({key: value for key, value in DOCUMENT.items() if key != "size"}, "size"),
        (json.dumps({**DOCUMENT, "outcome": {**DOCUMENT["outcome"], "loss": float("nan")}}), "malformed"),
    ],
    ids=["empty", "list", "version", "kind", "missing", "nan"],
)
def test_what_is_damaged_is_refused(damage, said):
    with pytest.raises(ReportError, match=said):
        read(damage)


def places(value, path=()):
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@given(st.sampled_from(list(places(DOCUMENT))[1:]), ANYTHING)
def test_any_change_is_read_or_refused(tmp_path_factory, path, value):
    changed = json.loads(json.dumps(DOCUMENT))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file = tmp_path_factory.mktemp("report") / "report.json"
    file.write_text(json.dumps(changed), encoding="utf-8", errors="backslashreplace")
    try:
        report = read_report(file)
    except ReportError:
        return
    assert json.loads(dump_report(report)).keys() == DOCUMENT.keys()


def test_every_key_is_described():
    """Each class is a table of docs/report.md, each key of it a row, and no row is of anything else."""
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    for name, kind in vars(document).items():
        if dataclasses.is_dataclass(kind):
            table = page.split(f"\n### {name}\n")[1].split("\n#")[0]
            rows = [line.split("|")[1].strip(" `") for line in table.splitlines() if line.startswith("| `")]
            assert rows == [field.name for field in dataclasses.fields(kind)], name
