"""``amct_tensorflow report``: a report made again, two runs compared, event files."""

import json

import pytest
from reports import make_report

from amct_tensorflow.results.report.report_json import dump_report


@pytest.fixture
def runs(workdir):
    for name, layers in (("a", 4), ("b", 6)):
        (workdir / name).mkdir()
        report = make_report([f"layer/{place}" for place in range(layers)])
        (workdir / name / "report.json").write_text(dump_report(report))
    return workdir


def test_a_report_is_made_again(runs, main, capsys):
    assert main(["report", "a"]) == 0
    assert capsys.readouterr().out == "a/report.html\n"
    assert "Target met" in (runs / "a" / "report.html").read_text()


def test_events_are_written(runs, main):
    assert main(["report", "a", "--tensorboard", "events"]) == 0
    assert list((runs / "events").glob("events.out.tfevents.*"))


def test_two_runs_are_compared(runs, main, capsys):
    assert main(["report", "a", "b", "--output", "page/differences.html"]) == 0
    assert "layers differ" in capsys.readouterr().out
    assert "Two runs compared" in (runs / "page" / "differences.html").read_text()
    assert main(["report", "a", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    assert not (runs / "a" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--json"], "are for two runs"),
        (["a", "--output", "x.html"], "are for two runs"),
        (["a", "b", "--tensorboard", "events"], "is for one run"),
    ],
)
def test_options_that_do_not_fit(runs, main, capsys, arguments, said):
    with pytest.raises(SystemExit) as error:
        main(["report", *arguments])
    assert error.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["missing"], ["."], ["damaged"], ["a", "damaged"]])
def test_what_cannot_be_read_is_one_line(runs, main, messages, arguments):
    (runs / "damaged").mkdir()
    (runs / "damaged" / "report.json").write_text("{}")
    before = sorted(runs.rglob("*"))
    assert main(["report", *arguments]) == 1
    (line,) = (line for line in messages if line.startswith("ERROR"))
    assert "report" in line
    assert [path for path in sorted(runs.rglob("*")) if "amct_log" not in path.parts] == before
