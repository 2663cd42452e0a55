"""The page answers what a deployment engineer asks, needs nothing else, and takes no markup from names."""

import base64
import hashlib
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import make_report, with_names

from amct_tensorflow.quantize.quantized.model_files import FileContent
from amct_tensorflow.results.report import page as page_module
from amct_tensorflow.results.report.differences import find_differences
from amct_tensorflow.results.report.document import ChangedImages, DeviceFinding, DeviceVerdict
from amct_tensorflow.results.report.page import render, render_report
from amct_tensorflow.results.report.plots import draw, search_figure

VOID = {"meta", "link", "br", "img", "input", "wbr"}


class Page(HTMLParser):
    """What stands in a page: its elements in their order, their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.attributes.extend(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.attributes.extend(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.texts))


@pytest.fixture(scope="module")
def html(figures):
    with figures():
        return render_report(make_report())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_question_is_answered_in_its_order(page):
    answers = [
        "Target met: lost 0.1 of at most 0.5 (95 % confidence: -0.35 to 0.55, from 2000 images)",
        "What stayed in float, and why",
        "rolled back by the search in evaluation 3",
        "the configuration leaves it in float",
        "it cannot be quantized: its weights are no constant, but computed",
        "The search",
        "How sensitive each layer is",
        "Along the model",
        "By damage",
        "Layer by layer",
        "SQNR before",
        "clip from -0.4 to 1.194, 18.750 % beyond",
        "Images that changed their prediction",
        "3 of 2000 images (0.15 %) are taken for something else than by the original model. Right before: 1;",
        "Size and multiply-accumulates",
        "1.80 MB",
        "540.0 kB",
        "Where the time went",
        "8 s",
        "calibrating675.0 %9.5",
        "everything else225.0 %2.25",
        "How to reproduce",
        "python run.py --dataset data",
        "PredictiveSearch",
        "2.21.0",
        "ab" * 32,
    ]
    place = 0
    for answer in answers:
        place = page.text.find(answer, place)
        assert place >= 0, answer


def test_everything_is_closed_and_every_id_is_one(page):
    assert page.open == []
    ids = Counter(value for name, value in page.attributes if name == "id")
    assert [name for name, times in ids.items() if times > 1] == []
    references = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    references |= {value for name, value in page.attributes if name in ("for", "data-filters", "aria-labelledby")}
    assert references <= set(ids)


def test_nothing_is_loaded(html, page):
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert all(value.startswith(("#", "data:")) for value in links)
    assert not re.search(r"url\((?!#)|@import", html)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_policy_allows_the_script_and_no_other(html):
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in html
    assert html.count("<script") == 1


def test_figures_are_told_and_in_the_colours_of_the_page(html):
    figures = re.findall(r"<svg[^>]*>", html)
    assert all('role="img"' in each and 'aria-label="' in each for each in figures)
    assert not re.search(r"#0\d0\d0\d", html) and "var(--good)" in html


def test_equal_reports_give_equal_pages(html, figures):
    with figures():
        assert render_report(make_report()) == html


def test_what_is_missing_is_said():
    report = make_report()
    unknown = [replace(layer, activation=replace(layer.activation, observed=None, clipped=None))
               if layer.activation else layer for layer in report.layers]  # fmt: skip
    nothing = ChangedImages(0, 0, None, None, (), "The evaluator does not tell predictions (image_predictions).")
    outcome = replace(report.outcome, interval=None, target=None)
    sizes = replace(report.size, multiply_accumulates=None, int8_multiply_accumulates=None)
    text = Page(render_report(replace(
        report, layers=tuple(unknown), changed_images=nothing, outcome=outcome, size=sizes
    ))).text  # fmt: skip
    for said in ("No histogram: the calibration", "does not tell predictions", "no confidence interval",
                 "not known as a number", "do not tell the multiply-accumulates"):  # fmt: skip
        assert said in text


def test_what_a_page_needs_is_there_behind_the_block(monkeypatch):
    monkeypatch.setattr(page_module, "_environment", cache(page_module._environment.__wrapped__))
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(KeyError), page_module.prepared_meanwhile():
        raise KeyError("of the block")
    assert {"matplotlib.figure", "matplotlib.backends.backend_svg"} <= sys.modules.keys()
    assert len(page_module._environment().cache) == 1


def test_what_cannot_be_imported_is_told_where_the_page_is_made(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with page_module.prepared_meanwhile():
        pass
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ImportError):
        draw("name", "description", lambda axes: None)


def test_a_model_without_layers_and_a_search_without_numbers():
    report = make_report()
    lost = tuple(replace(each, loss=None, metric="[1, 2]") for each in report.evaluations)
    text = Page(render_report(replace(report, layers=(), inputs=(), evaluations=lost))).text
    assert "No layer was calibrated" in text


@pytest.mark.parametrize("layers", [54, pytest.param(400, marks=pytest.mark.campaign)])
def test_pages_of_large_models_are_small(layers, figures):
    names = [f"MobilenetV2/expanded_conv_{place}/depthwise_and_more/depthwise" for place in range(layers)]
    with figures():
        assert len(render_report(make_report(names, channels=960))) < {54: 1_000_000, 400: 3_000_000}[layers]


HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"' onmouseover=alert(1) x='",
    "</style></svg></title>]]>--><b>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "$\\frac{1}{2}$ & &lt;",
    "\udc80\x00\u202e\r\n",
]
NAMES = st.text(st.characters() | st.sampled_from("<>&\"'/{}%`=$"), min_size=1, max_size=40)


def test_the_figure_of_the_search_holds_no_names():
    report = make_report()
    assert search_figure(with_names(report, "<b>$x$")) == search_figure(with_names(report, "plain"))


def test_figures_drawn_in_several_threads_are_those_drawn_in_one():
    def lines(number, axes):
        axes.plot([0, number], [number, 1])

    def figures(name):
        return [draw(name, "lines", partial(lines, number)) for number in range(8)]

    names = ["one", "two", "three"]
    expected = [figures(name) for name in names]
    with ThreadPoolExecutor(len(names)) as threads:
        assert list(threads.map(figures, names)) == expected


def elements(page):
    """Returns the elements but the places where a name may break."""
    assert page.open == []
    return [each for each in page.elements if each[0] != "wbr"]


def report_of(name):
    return Page(render_report(with_names(make_report(), name)))


def comparison_of(name):
    differences = find_differences(with_names(make_report(), name), make_report(), (name, name))
    return Page(render("differences.html", differences=differences))


@pytest.mark.parametrize("make", [report_of, comparison_of])
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names(make, name):
    page = make(name)
    assert elements(page) == elements(make("plain"))
    if name.isprintable():
        assert name in page.text


CONTENT = FileContent(200_000, 260_000, 30_000, 10_000, 40_000)


@pytest.mark.parametrize(
    ("original", "given", "told"),
    [
        (1_800_000, None, ""),  # 540 kB are 30 %, as much as one expects
        (1_700_000, None, "The quantized file takes 540.0 kB, 32 % of the original. It consists of 48 % weights in "
         "float, 37 % weights in int8"),
        (1_800_000, 900_000, "The quantized file takes 540.0 kB, 60 % of the original."),
        (1_700_000, 2_000_000, "The quantized file takes 540.0 kB, 32 % of the original."),
    ],
)  # fmt: skip
def test_what_the_file_consists_of_is_said_where_it_is_not_small(original, given, told):
    report = make_report()
    size = replace(report.size, original_bytes=original, content=CONTENT, given_bytes=given)
    text = " ".join(Page(render_report(replace(report, size=size))).texts)
    assert told in text and ("It consists of" in text) == bool(told)
    assert ("Size of the files that were given" in text) == (given is not None)
    assert f"from {min(original, given or original) / 1e6:.2f} MB" in text.replace("900.0 kB", "0.90 MB")


def test_a_table_that_int8_would_make_smaller_is_named_beside_the_size():
    report = make_report()
    tables = (replace(report.tables[0], int8=False), *report.tables[1:])
    size = replace(report.size, original_bytes=900_000, content=CONTENT)
    text = " ".join(Page(render_report(replace(report, size=size, tables=tables))).texts)
    saved = sum(each.float_bytes - each.int8_bytes for each in tables if not each.int8 and each.reason is None)
    assert saved >= 256_000 - 68_000 and f"tables take {saved / 1e3:.1f} kB less" in text


@settings(max_examples=40, deadline=None)
@given(NAMES)
def test_no_name_becomes_markup(name):
    assert elements(report_of(name)) == elements(report_of("plain"))


def test_it_says_what_ran_in_integers():
    report = make_report()
    first, last = report.evaluations
    page = render_report(replace(report, evaluations=(replace(first, in_integers=True), last)))
    assert "yields the same in less time" in page and page.count(", in integers") == 1
    assert "in integers" not in render_report(report)


def test_what_a_device_makes_of_it_has_a_section(html):
    assert 'id="device"' not in html
    finding = DeviceFinding(
        "error", "behind-layer", "a<b/c", "The rule.", "The detail.", "The remedy.", "old, 2022", 0.25
    )
    verdict = DeviceVerdict("ascend", "1 error; 0 of 1 chains matched", (finding,), 1, 0, 0.75, ("a",), "atc --model=m")
    page = Page(render_report(replace(make_report(), device=verdict)))
    for words in ("1 error; 0 of 1 chains matched", "The detail. The rule.", "The remedy.", "old, 2022", "25.0 %",
                  "a<b/c", "atc --model=m"):  # fmt: skip
        assert words in page.text, words
    assert ("id", "device") in page.attributes and ("href", "#device") in page.attributes
