"""Links of the pages lead somewhere; each page can be reached from the README."""

import pytest
from documents import PAGES, ROOT, anchors, broken, links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_what_leads_nowhere_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    text = (
        "# A title: of two\n\n[a](#a-title-of-two) [b](#other) [c](nothing.md) `[d](e.md)` ![p](p.png) <https://a.b>\n"
    )
    page.write_text(text)
    assert anchors(text) == ["a-title-of-two"]
    assert broken(page, text) == ["#other", "nothing.md", "p.png"]


@pytest.mark.parametrize("start", ["README.md", "README_CN.md"])
def test_every_page_can_be_reached(start):
    reached, waiting = set(), [ROOT / start]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = (link.partition("#")[0] for link in links(page.read_text(encoding="utf-8")) if "://" not in link)
        waiting.extend((page.parent / target).resolve() for target in targets if target)
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached] == []
