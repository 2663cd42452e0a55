"""Labels of logarithmic axes are those that Matplotlib would typeset, as plain text."""

import re

import pytest
from matplotlib.ticker import LogFormatterSciNotation

from amct_tensorflow.results.report import plots
from amct_tensorflow.results.report.plots import Bar, along_figure, plain_power

LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹·", "−0123456789" + chr(0xD7))  # noqa: RUF001 - as Matplotlib writes them


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (r"$\mathdefault{10^{-3}}$", "10⁻³"),
        (r"$\mathdefault{10^{0}}$", "10⁰"),
        (r"$\mathdefault{10^{12}}$", "10¹²"),
        (r"$\mathdefault{2\times10^{-5}}$", "2·10⁻⁵"),
        (r"$\mathdefault{2.5\times10^{-14}}$", "2.5·10⁻¹⁴"),
        (r"$\mathdefault{0}$", r"$\mathdefault{0}$"),
        ("", ""),
    ],
)
def test_a_power_of_ten_needs_no_typesetting(label, expected):
    assert plain_power(label) == expected


@pytest.mark.parametrize("damages", [(1e-7, 3.0), (0.0021, 0.0079), (1.0, 3e12), (0.0, 0.5)])
def test_figures_have_the_labels_that_matplotlib_would_typeset(damages, monkeypatch):
    bars = tuple(Bar(damages[number % 2], number < 3) for number in range(5))
    found = along_figure.__wrapped__(bars)
    monkeypatch.setattr(plots, "_plain_labels", LogFormatterSciNotation)
    typeset = along_figure.__wrapped__(bars)
    pieces = re.findall(r"<tspan[^>]*>([^<]*)</tspan>|(</text>)", typeset)
    expected = [each for each in "".join(text or "\n" for text, _ in pieces).split("\n") if each]
    labels = [each.translate(LOWERED) for each in re.findall(r">(?:[\d.]+·)?10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+<", found)]
    assert [each.strip("><") for each in labels] == expected and expected
    assert "tspan" not in found
