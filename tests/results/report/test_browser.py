"""The page in a real browser: it sorts, filters, changes its theme, fits a phone, and says nothing on the console."""

import itertools
from dataclasses import replace

import pytest
from reports import CHROMIUM, make_report, with_names

from amct_tensorflow.results.report.differences import find_differences
from amct_tensorflow.results.report.page import render, render_report
from amct_tensorflow.results.report.wording import UNKNOWN

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

if CHROMIUM is None:
    pytest.skip("there is no Chromium (make browser installs it; CHROMIUM says where it is)", allow_module_level=True)

OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE, DESK = {"width": 375, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, figures):
    """The files of the pages that are looked at, by name."""
    report, folder = make_report(), tmp_path_factory.mktemp("pages")
    hostile = with_names(report, "</script></title><img src=x onerror=alert(1)><script>alert(2)</script>\"'`")
    many = make_report([f"MobilenetV2/expanded_conv_{place}/depthwise/depthwise" for place in range(400)], 64)
    fewer = replace(report, layers=report.layers[1:])
    with figures():
        texts = {name: render_report(each) for name, each in (("report", report), ("hostile", hostile), ("many", many))}
    texts["differences"] = render("differences.html", differences=find_differences(report, fewer, ("a", "b")))
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


@pytest.fixture
def visit(browser, pages):
    """Opens a page; in the end, nothing may have been said on the console, asked of a network, or gone wrong."""
    contexts, said = [], []

    def open_page(name, viewport=DESK, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: said.append(request.url) if request.url not in pages.values() and not
                request.url.startswith("data:") else None)  # fmt: skip
        page.goto(pages[name])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def column(page, place, table="#layer-table"):
    return page.locator(f"{table} tbody tr:visible").evaluate_all(
        "(rows, place) => rows.map(row => row.cells[place].textContent)", place
    )


NUMBER, NAME, DAMAGE = 0, 1, 4


@pytest.mark.campaign
def test_columns_are_sorted(visit):
    page = visit("report")
    head = page.locator("#layer-table thead th", has_text="Damage")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    # Of the layers that were not calibrated nothing is known; they come last.
    assert column(page, DAMAGE) == ["0.1", "0.01", "0.001", UNKNOWN, UNKNOWN]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, DAMAGE) == ["0.001", "0.01", "0.1", UNKNOWN, UNKNOWN]
    page.locator("#layer-table thead th", has_text="Layer").get_by_role("button").click()
    assert column(page, NAME) == sorted(column(page, NAME))
    assert page.locator("#layer-table [aria-sort]").count() == 1


@pytest.mark.campaign
def test_rows_are_filtered(visit):
    page = visit("report")
    search = page.get_by_role("searchbox", name="Filter layers", exact=True)
    search.fill("BLOCK int8")
    assert column(page, NAME) == ["block/conv"]
    assert page.locator("output[for=filter-layer-table]").inner_text() == "1 of 5 shown"
    search.fill("")
    assert len(column(page, NAME)) == 5
    page.get_by_role("searchbox", name="Filter pictures").fill("head")
    assert page.locator("#layer-details > details:visible").count() == 1


@pytest.mark.campaign
def test_the_theme_is_that_of_the_system_until_it_is_changed(visit):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 27)"
    page = visit("report", color_scheme="dark")
    assert background(page) == dark
    page.get_by_role("button", name="Light theme").click()
    assert background(page) == light
    page.reload()  # it is remembered
    assert background(page) == light
    page.get_by_role("button", name="Dark theme").click()
    assert background(page) == dark
    assert background(visit("report", color_scheme="light")) == light


@pytest.mark.campaign
def test_a_name_leads_to_its_pictures(visit):
    page = visit("report")
    assert not page.locator("#layer-2 .sketches").is_visible()
    page.locator("#layer-table").get_by_role("link", name="block/dw").click()
    assert page.locator("#layer-2 .sketches svg").count() == 2
    assert page.locator("#layer-2 .sketches").is_visible()


@pytest.mark.campaign
def test_everything_works_from_the_keyboard(visit):
    page = visit("report")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(each => `${each.tagName} ${each.textContent.trim()}`)(document.activeElement)"))
    assert {"BUTTON Dark theme", "BUTTON Damage", "INPUT ", "A Search", "A block/conv"} <= reached
    head = page.locator("#layer-table thead th", has_text="Scale")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    page.locator("#layer-1 summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#layer-1 .sketches").is_visible()


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["report", "hostile", "differences", "many"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_is_no_wider_than_the_screen(visit, name, viewport):
    page = visit(name, viewport)
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]


@pytest.mark.campaign
def test_all_is_readable_without_javascript(visit):
    page = visit("report", java_script_enabled=False)
    assert page.locator("h1").inner_text().startswith("Target met: lost 0.1 of at most 0.5")
    assert page.locator("#layer-table tbody tr").count() == 5
    assert page.get_by_role("button").count() == 0 and page.get_by_role("searchbox").count() == 0
    page.locator("#layer-1 summary").click()
    assert page.locator("#layer-1 .sketches").is_visible()


def test_hostile_names_run_nothing(visit):
    page = visit("hostile")
    assert page.locator("#layer-table tbody tr").count() == 5
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["report", "differences"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(visit, name, scheme):
    """Landmarks, names, contrast and order, as axe checks them; details are open."""
    page = visit(name, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(each => Number(each.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.locator("table:not(:has(caption))").count() == 0


@pytest.mark.campaign
def test_four_hundred_layers_are_usable(visit):
    page = visit("many")
    milliseconds = page.evaluate(
        "() => { const start = performance.now(); const input = document.getElementById('filter-layer-table');"
        "input.value = 'conv_399'; input.dispatchEvent(new Event('input')); return performance.now() - start; }"
    )
    assert column(page, NUMBER) == ["400"] and milliseconds < 1000
    assert page.locator("details[open]").count() == 0


@pytest.mark.campaign
def test_the_printed_page_has_no_controls_and_is_light(visit):
    page = visit("report", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("button.theme").is_visible() and not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")
