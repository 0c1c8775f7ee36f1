"""The page of the tasks as a reader sees it: a card for each, pictures, a film, dark, on a phone, without scripts."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import HTML, PHONE
from playwright.sync_api import expect

from dynnotes import data

pytestmark = pytest.mark.browser
PAGE = "book/tasks.html"


def test_every_task_has_its_section_and_its_place_in_the_contents(watched):
    page = watched().open(PAGE)
    assert [card.get_attribute("data-task") for card in page.locator(".dyn-card").all()] == list(data.tasks())
    for task in data.tasks():
        expect(page.locator(f"section#task-{task} > h2")).to_contain_text(task)
        assert page.locator(f'.bd-sidebar-secondary a[href="#task-{task}"]').count() == 1
        assert page.locator(f"section#task-{task} .dyn-shot").count() == 18


def test_the_page_is_small(site):
    assert (HTML / PAGE).stat().st_size < 1_500_000


def test_everything_drawn_has_a_size_and_pictures_are_there(watched):
    page = watched(java_script_enabled=False).open(PAGE)
    for shot in page.locator(".dyn-card .dyn-shot, .dyn-histogram svg").all():
        box = shot.bounding_box()
        assert box["width"] > 60 and box["height"] > 20
    broken = page.locator(".dyn-shot image").evaluate_all(
        "images => Promise.all(images.map(i => { const p = new Image(); p.src = i.getAttribute('href');"
        "return p.decode().then(() => 0, () => 1); })).then(found => found.reduce((a, b) => a + b, 0))"
    )
    assert broken == 0


def test_a_film_plays_while_it_is_looked_at(watched):
    page = watched().open(PAGE)
    video = page.locator("svg[id^=film_]").first
    film = video.locator("g[visibility]")
    seen = "e => getComputedStyle(e).visibility"
    frames = "e => e.transform.animVal.numberOfItems && e.transform.animVal.getItem(0).matrix.e"
    assert film.evaluate(seen) == "hidden"
    video.scroll_into_view_if_needed()
    video.hover()
    page.wait_for_function("e => getComputedStyle(e).visibility === 'visible'", arg=film.element_handle())
    moved = film.locator("g[clip-path] > g").element_handle()
    page.wait_for_function(f"e => ({frames})(e) < 0", arg=moved)
    page.mouse.move(0, 0)
    page.wait_for_function("e => getComputedStyle(e).visibility === 'hidden'", arg=film.element_handle())
    video.focus()
    page.wait_for_function("e => getComputedStyle(e).visibility === 'visible'", arg=film.element_handle())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["desktop", "phone"])
def test_cards_can_be_read_by_everybody(watched, scheme, size):
    page = watched(color_scheme=scheme).open(PAGE)
    if size:
        page.set_viewport_size(size)
        page.reload()  # the theme lets what scrolls have the focus, by the width at the start
    page.evaluate(f"document.documentElement.dataset.theme = '{scheme}'")
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "preload": False}
    found = Axe().run(page, options=options).response["violations"]
    assert not found, "\n".join(f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"])
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    assert all(shot.get_attribute("aria-label") for shot in page.locator("svg.dyn-shot").all())


def test_links_to_papers_lead_to_their_pages(watched):
    page = watched().open(PAGE)
    for link in page.locator(".dyn-card-sizes a").all():
        assert re.fullmatch(r"\.\./papers/[a-z0-9]+\.html", link.get_attribute("href"))
    assert page.locator(".dyn-card-sizes a").count() > 10
