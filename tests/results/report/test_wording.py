"""Numbers and sentences of a report."""

from dataclasses import replace

import pytest
from reports import make_report

from amct_tensorflow.results.report.document import Interval, Ranking
from amct_tensorflow.results.report.wording import bounds, breakable, damage_meaning, number, remarks, size, verdict

REPORT = make_report()
OUTCOME = REPORT.outcome


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Target met: lost 0.1 of at most 0.5"),
        ({"target_met": False, "loss": 0.75}, "Target missed: lost 0.75 of at most 0.5"),
        ({"loss": 0.0}, "Target met: nothing lost; at most 0.5 may be lost"),
        ({"loss": -0.25}, "Target met: gained 0.25; at most 0.5 may be lost"),
        ({"target": None}, "Target met: lost 0.1"),
        ({"loss": None, "target_met": False}, "Target missed: the loss is not finite; at most 0.5 may be lost"),
        ({"target": 0.4999998}, "Target met: lost 0.1 of at most 0.5"),
    ],
)
def test_verdict(changes, said):
    assert verdict(replace(OUTCOME, **changes)) == said


def test_bounds():
    assert bounds(OUTCOME.interval) == "95 % confidence: -0.35 to 0.55, from 2000 images"


def test_an_interval_beyond_the_target_is_said():
    (remark,) = remarks(REPORT)
    assert remark == "The confidence interval reaches beyond the target: on other images the loss may be larger."


def test_how_many_images_would_tell_is_said():
    """Half the width is 1.0, twice the target: four times the images."""
    wide = replace(REPORT, outcome=replace(OUTCOME, interval=Interval(-0.9, 1.1, 0.95, 500)))
    assert "About 2000 images would tell" in remarks(wide)[0]


def test_certainty_is_said():
    sure = replace(REPORT, outcome=replace(OUTCOME, interval=Interval(0.0, 0.2, 0.95, 500)))
    assert remarks(sure) == ["The whole confidence interval lies within the target."]


def test_what_is_not_known_is_said():
    unknown = replace(OUTCOME, target=None, interval=None, interrupted=True, target_met=False)
    said = " ".join(remarks(replace(REPORT, outcome=unknown)))
    for part in ("interrupted", "best one was saved", "not known as a number", "no confidence interval"):
        assert part in said


def test_damage_is_told_as_it_was_measured():
    assert "outputs of the model" in damage_meaning(Ranking("OutputDivergence", True))
    assert "layer's own output" in damage_meaning(Ranking("OutputDivergence", False))
    assert "layer's own output" in damage_meaning(Ranking("CosineSimilarity", False))
    assert "MySensitivity" in damage_meaning(Ranking("MySensitivity", False))


def test_numbers():
    assert [number(value) for value in (None, "text", 92.80000000001, 1234567, 1e-7)] == [
        "\N{EN DASH}", "text", "92.8", "1234567", "1e-07",
    ]  # fmt: skip
    assert (size(541_800), size(1_811_000)) == ("541.8 kB", "1.81 MB")


def test_names_break_behind_slashes_and_are_escaped():
    assert breakable("a/<b>") == "a/<wbr>&lt;b&gt;"
