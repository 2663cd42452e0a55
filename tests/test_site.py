"""The site of `make docs` is built without a warning, and its links lead somewhere, also without a network."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from documents import PAGES, ROOT

import amct_tensorflow as amct

sphinx = pytest.importorskip("sphinx.cmd.build", reason="`make docs` installs what builds the site")
pytest.importorskip("myst_parser", reason="`make docs` installs what builds the site")
pytestmark = pytest.mark.campaign

# What a browser fetches by itself to show a page.
FETCHED = {("link", "href"), ("script", "src"), ("img", "src")}


class Page(HTMLParser):
    """What a page points to, and what in it can be pointed to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.fetched, self.anchors = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src"):
                (self.fetched if (tag, name) in FETCHED else self.links).append(value)
            elif name in ("id", "name"):
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    cache = tmp_path_factory.mktemp("doctrees")
    assert sphinx.main(["-q", "-W", "-c", str(ROOT / "docs"), "-d", str(cache), str(ROOT), str(folder)]) == 0
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def test_every_page_is_there(site):
    names = {"/".join(path.parts[-3:]) for path in site}
    for page in PAGES:
        assert any(name.endswith(str(page.relative_to(ROOT).with_suffix(".html"))) for name in names)


def test_links_lead_somewhere(site):
    broken = []
    for path, page in site.items():
        for link in (*page.links, *page.fetched):
            target = urlsplit(link)
            if target.scheme:
                continue
            file = path if not target.path else (path.parent / unquote(target.path)).resolve()
            there = file.is_file() and (file not in site or unquote(target.fragment) in site[file].anchors)
            if not there:
                broken.append((path.name, link))
    assert broken == [] and sum(len(page.links) for page in site.values()) > 500


def test_nothing_is_fetched_from_the_network(site):
    assert [link for page in site.values() for link in page.fetched if "//" in link] == []


def test_the_api_page_has_the_docstrings(site):
    (page,) = (path for path in site if path.name == "api.html")
    assert {"amct_tensorflow.quantize_model", "amct_tensorflow.classification.ClassifierEvaluator"} <= site[
        page
    ].anchors
    assert amct.quantize_model.__doc__.splitlines()[0] in page.read_text(encoding="utf-8")
