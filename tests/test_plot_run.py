"""The picture of a run, from the files that a run leaves."""

import json
from pathlib import Path

import pytest
from conftest import load_script

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
plot = load_script("src/plot_run.py")

LAYERS = {"scope/first": 0.5, "$odd_name": 0.9, "last": 1.0}


@pytest.fixture
def run(workdir):
    """The files of a run that rolled back one layer of three, at its second attempt."""
    configurations = [set(), {"scope/first", "$odd_name"}, {"scope/first"}]
    judged = [[False, 1.5], [True, 0.1], [True, 0.25]]
    history = [
        {"roll_back_config": {layer: layer not in in_float for layer in LAYERS}, "metric_eval": evaluation}
        for in_float, evaluation in zip(configurations, judged, strict=True)
    ]
    final = {"version": 1} | {layer: {"quant_enable": layer != "scope/first"} for layer in LAYERS}
    write(plot.LOGS / "accuracy_based_auto_calibration_record.json", history)
    write(plot.RESULTS / "accuracy_based_auto_calibration_ranking_information.json", list(LAYERS.items()))
    write(plot.RESULTS / "accuracy_based_auto_calibration_final_config.json", final)


def write(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def test_a_run_is_read(run):
    found = plot.read_run(plot.RESULTS, plot.LOGS)
    assert [(len(one.in_float), one.satisfied, one.loss) for one in found.evaluations] == [
        (0, False, 1.5), (2, True, 0.1), (1, True, 0.25),
    ]  # fmt: skip
    assert found.saved == {"scope/first"}
    assert found.sensitivities == {
        "scope/first": 0.5, "$odd_name": pytest.approx(0.1), "last": plot.LEAST_SENSITIVITY,
    }  # fmt: skip


def test_the_picture_shows_points_and_layers(run):
    left, right = plot.draw(plot.read_run(plot.RESULTS, plot.LOGS)).axes
    assert [tuple(points.get_offsets()[0]) for points in left.collections] == [(0, 1.5), (2, 0.1), (1, 0.25)]
    assert [text.get_text() for text in left.texts] == ["1", "2", "3"]
    assert [bar.get_height() for bar in right.patches] == pytest.approx([0.5, 0.1, plot.LEAST_SENSITIVITY])
    assert [text.get_text() for text in right.texts] == ["scope/first"]


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_the_same_run_gives_the_same_picture(run, suffix, capsys):
    pictures = []
    for name in ("one", "two"):
        assert plot.main(["--output", f"{name}{suffix}"]) == 0
        pictures.append(Path(f"{name}{suffix}").read_bytes())
    assert pictures[0] == pictures[1] and len(pictures[0]) > 5000
    assert sorted(path.suffix for path in Path().iterdir() if path.is_file()) == [suffix] * 2


def test_what_cannot_be_drawn_is_named(run, capsys):
    assert plot.main(["--output", "nowhere/run.svg"]) == 1
    assert "nowhere" in capsys.readouterr().err
    write(plot.RESULTS / "accuracy_based_auto_calibration_ranking_information.json", [["other", 1.0]])
    assert plot.main(["--output", "run.svg"]) == 1
    assert "'other'" in capsys.readouterr().err
    (plot.LOGS / "accuracy_based_auto_calibration_record.json").write_text("[")
    assert plot.main(["--output", "run.svg"]) == 1
    assert "accuracy_based_auto_calibration_record.json" in capsys.readouterr().err
    assert not Path("run.svg").exists()
    with pytest.raises(SystemExit) as error:
        plot.main(["--output", "run.doc"])
    assert error.value.code == 2


@pytest.mark.parametrize("value", ["9" * 400, "1e308", "-1e308", "1e400", "NaN"])
def test_numbers_beyond_all_bounds(run, value, capsys):
    """They are drawn, or refused in one line."""
    entry = {"roll_back_config": {"last": True}, "metric_eval": [True, json.loads(value)]}
    write(plot.LOGS / "accuracy_based_auto_calibration_record.json", [entry])
    assert plot.main(["--output", "run.svg"]) in (0, 1)
    write(plot.LOGS / "accuracy_based_auto_calibration_record.json", [])
    write(plot.RESULTS / "accuracy_based_auto_calibration_ranking_information.json", [["last", json.loads(value)]])
    assert plot.main(["--output", "run.svg"]) in (0, 1)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) <= 2 and all(line.startswith("error: ") for line in errors)
