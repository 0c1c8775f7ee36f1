"""Every page of the built book: nothing asked of the network, no error in the console, everything on it visible."""

import html.parser
import urllib.parse
from collections import defaultdict

import pytest
from browser import DESKTOP, HTML, PHONE

import dynnotes

PAGES = sorted(p.relative_to(HTML).as_posix() for p in HTML.rglob("*.html") if "_static" not in p.parts)
ALIVE = {  # what must come to life: (selector of the part, selector of what it draws inside)
    ".dyn-plotly": ".main-svg, canvas",
    ".dyn-theatre": ".dt",
    "#dyn-explorer": ".dyn-app",
    'script[type="application/vnd.jupyter.widget-view+json"] + div': "*",
}
pytestmark = pytest.mark.browser


def test_the_book_is_there(site):
    assert "book/intro.html" in PAGES
    assert "book/map.html" in PAGES
    assert "search.html" in PAGES


def test_every_paper_has_its_page(site):
    missing = [paper.key for paper in dynnotes.load() if f"papers/{paper.key}.html" not in PAGES]
    assert not missing


def test_no_page_of_a_paper_that_is_gone(site):
    keys = {f"papers/{paper.key}.html" for paper in dynnotes.load()}
    assert {page for page in PAGES if page.startswith("papers/")} == keys


@pytest.mark.parametrize("path", PAGES or ["(no book)"])
def test_page(path, shared):
    shared.faults.clear()
    page = shared.open(path)
    try:
        page.wait_for_load_state("load")
        if path == "index.html":  # a redirect to the front page
            page.wait_for_url("**/book/intro.html")
        assert page.title().strip()
        if path != "search.html":  # its title is the search field's
            assert page.locator("article.bd-article h1").count() == 1, "one title per page"
        for part, inside in ALIVE.items():
            for one in page.locator(part).all():
                one.scroll_into_view_if_needed()
                one.locator(inside).first.wait_for(state="visible", timeout=15000)
                size = one.bounding_box()
                assert size["width"] > 100 and size["height"] > 40, f"{part} has no size"
        for image in page.locator("article img").all():
            assert image.evaluate("i => i.complete && i.naturalWidth > 0"), image.get_attribute("src")
        assert page.locator('[role="alert"]').count() == 0
        assert page.locator("mjx-merror, .mjx-merror").count() == 0, "an equation does not compile"
        page.set_viewport_size(PHONE)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{wide} pixels too wide for a phone"
        page.set_viewport_size(DESKTOP)
    finally:
        page.close()
    assert not shared.faults, "\n".join(shared.faults)


class _Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links = set(), set()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links |= {given[name] for name in ("href", "src") if given.get(name)}


def test_links_inside_the_book_lead_somewhere(site):
    found = {}
    for path in PAGES:
        found[path] = _Links()
        found[path].feed((HTML / path).read_text(encoding="utf-8"))
    broken = defaultdict(set)
    for path, page in found.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("http", "https", "mailto", "data"):
                    broken[path].add(link)
                continue
            target = urllib.parse.unquote(parts.path)
            where = (HTML / path).parent / target if target else HTML / path
            name = where.resolve().relative_to(HTML.resolve()).as_posix() if target else path
            dead = not where.is_file() or (
                parts.fragment and name in found and urllib.parse.unquote(parts.fragment) not in found[name].ids
            )
            if (dead and parts.fragment not in ("", "top")) or not where.is_file():
                broken[path].add(link)
    assert not broken, dict(broken)


def test_front_page_shows_a_gate_within_the_first_screen(watched):
    page = watched().open("book/intro.html")
    assert page.locator(".dyn-theatre").count(), "assets/traces/veit2018convolutional.json is missing"
    page.locator(".dyn-theatre .dt").first.wait_for()
    box = page.locator(".dyn-theatre").first.bounding_box()
    assert box["y"] < 300
    assert box["y"] + min(box["height"], 400) <= DESKTOP["height"]
