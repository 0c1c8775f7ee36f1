"""Parts of the book driven as a reader does: with the mouse, with the keyboard, in the dark, without JavaScript."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import HTML
from playwright.sync_api import expect

import dynnotes

pytestmark = pytest.mark.browser
KB = dynnotes.load()
MAP = "book/map.html"


@pytest.mark.parametrize("device", ["mouse", "keyboard"])
def test_bibtex_is_copied(watched, device):
    one = watched(permissions=["clipboard-read", "clipboard-write"])
    page = one.open("papers/veit2018convolutional.html")
    button = page.get_by_role("button", name="Copy BibTeX")
    if device == "mouse":
        button.click()
    else:
        button.focus()
        page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").strip() == KB["veit2018convolutional"].bibtex().strip()


def test_search_finds_a_papers_page(watched):
    page = watched().open("search.html?q=adaptive+inference+graphs")
    found = page.locator('#search-results a[href*="papers/veit2018convolutional.html"]')
    expect(found.first).to_be_visible(timeout=15000)


def test_theme_button_turns_the_lights_off(watched):
    page = watched(color_scheme="light").open(MAP)
    shade = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(shade)
    button = page.locator("button.theme-switch-button:visible").first
    for _ in range(3):
        button.click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(shade) != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark", "the choice is kept"


def having(*marks: str) -> list[str]:
    """Pages of the built book whose source holds one of these marks."""
    pages = [page for page in sorted(HTML.rglob("*.html")) if "_static" not in page.parts]
    found = [p for p in pages if any(mark in p.read_text(encoding="utf-8") for mark in marks)]
    return [p.relative_to(HTML).as_posix() for p in found]


@pytest.mark.parametrize("path", having('class="dyn-theatre"', '"model_module": "anywidget"'))
def test_theatre_is_played_with_keyboard_and_mouse(watched, path):
    page = watched().open(path)
    for one in page.locator(".dt").all():
        one.scroll_into_view_if_needed()
        sliders = one.locator('input[type="range"]:visible').all()
        play = one.get_by_role("button", name="Play")
        if not sliders:                                                        # a static network
            assert play.is_disabled()
            assert "Nothing to decide" in one.inner_text()
        for slider in sliders:
            before, text = slider.input_value(), one.inner_text()
            slider.focus()
            page.keyboard.press("ArrowLeft" if before != slider.get_attribute("min") else "ArrowRight")
            assert slider.input_value() != before
            assert one.inner_text() != text, "the slider changes nothing"
        if sliders:
            play.click()
            page.wait_for_timeout(300)
            assert one.get_by_role("button", name=re.compile("Pause|Play")).count()


@pytest.mark.parametrize("path", having('class="dyn-plotly"'))
def test_figures_answer_the_mouse(watched, path):
    """Somewhere on each figure the mouse gets a label, and the theme's switch reaches its letters."""
    page = watched(color_scheme="light").open(path)
    for one in page.locator(".dyn-plotly").all():
        one.scroll_into_view_if_needed()
        one.locator(".main-svg").first.wait_for()
        area = (one.locator(".nsewdrag").first if one.locator(".nsewdrag").count() else one).bounding_box()
        spots = [(i / 24, j / 16) for i in range(1, 24) for j in range(1, 16)]
        for x, y in spots:
            page.mouse.move(area["x"] + x * area["width"], area["y"] + y * area["height"])
            if one.locator(".hoverlayer .hovertext").count():
                break
        else:
            pytest.fail(f"no label anywhere on {one.get_attribute('aria-label')}")
        ink = "e => getComputedStyle(e.querySelector('.main-svg text:not(.bartext)')).fill"
        light = one.evaluate(ink)
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        page.wait_for_timeout(300)
        assert one.evaluate(ink) != light
        page.evaluate("document.documentElement.dataset.theme = 'light'")


SAMPLE = ["book/intro.html", "book/receipt.html", "book/bibliography.html"]
SAMPLE += ["papers/veit2018convolutional.html", "papers/graves2016adaptive.html", "papers/han2022dynamic.html"]
SAMPLE += sorted(p.relative_to(HTML).as_posix() for p in HTML.glob("notebooks/*.html"))


@pytest.mark.parametrize(("path", "scheme"), [(p, "light") for p in SAMPLE] + [(p, "dark") for p in SAMPLE])
def test_accessible(watched, path, scheme):
    """WCAG 2.1 A and AA by axe; in the dark only what the dark can change."""
    page = watched(color_scheme=scheme).open(path)
    page.wait_for_timeout(400)  # fonts and transitions of the theme settle
    which = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] if scheme == "light" else ["color-contrast"]
    options = {"runOnly": which, "preload": False}  # preload asks the server for style sheets at wrong addresses
    found = Axe().run(page, options=options).response["violations"]
    told = [f"{v['id']} ({v['impact']}): {n['html'][:160]} {n['failureSummary']}" for v in found for n in v["nodes"]]
    assert not told, "\n".join(told)
