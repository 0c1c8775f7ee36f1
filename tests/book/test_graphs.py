"""Lineage, timeline and map of gaps driven as a reader does: mouse, keyboard, address, dark, without JavaScript."""

import json
import re
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import PHONE
from playwright.sync_api import expect

import dynnotes
from dynnotes.knowledge.lineage import children, parents, tree

pytestmark = pytest.mark.browser
KB = dynnotes.load()
LINEAGE, TIMELINE, GAPS = "book/lineage.html", "book/timeline.html", "book/gaps.html"
SKIP = KB["SkipNet"]
AXES = ("unit", "decision", "training", "executes")


def ready(page, name):
    page.wait_for_selector(f"#dyn-{name}[data-ready]")
    return page


def family(key):
    """Keys of a paper, its ancestors and its descendants."""
    steps = (lambda k: parents(KB[k])), (lambda k: children(KB, k))
    return {key} | {p.key for step in steps for _, p, _ in tree(KB, key, step)}


def drawn(page, also=""):
    return {e.get_attribute("data-key") for e in page.locator(f".dyn-paper{also}").all()}


def focused(page, what="data-key"):
    return page.evaluate(f"document.activeElement.getAttribute('{what}')")


# ---------------------------------------------------------------- lineage


def test_lineage_shows_every_stated_descent(watched):
    page = ready(watched().open(LINEAGE), "lineage")
    related = {p.key for p in KB.entries if parents(p) or children(KB, p.key)}
    assert drawn(page) == related
    assert page.locator(".dyn-lines .dyn-edge").count() == sum(
        r.kind in ("extends", "improves") for p in KB.entries for r in p.relations
    )
    boxes = [e.bounding_box() for e in page.locator(".dyn-paper > rect:first-child").all()]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = (
                a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
                or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
            )  # fmt: skip
            assert apart, "two papers overlap"


def test_a_paper_is_chosen_by_name_and_its_lineage_stands_out(watched):
    page = ready(watched().open(LINEAGE), "lineage")
    search = page.get_by_label("Paper", exact=True)
    search.fill("skipnet")
    search.press("Enter")
    assert drawn(page, ".dyn-lit") == family(SKIP.key)
    assert f"paper={SKIP.key}" in page.url
    page.get_by_label("only its lineage").check()
    assert drawn(page) == family(SKIP.key)
    detail = page.locator(".dyn-detail")
    for key, where in parents(SKIP).items():
        assert f"{KB[key].method} ({KB[key].year}) {where}" in detail.inner_text()
    detail.get_by_role("link", name="Open its page").click()
    page.wait_for_url(f"**/papers/{SKIP.key}.html")


def test_lineage_goes_on_with_a_click_and_back_with_the_browser(watched):
    page = ready(watched().open(f"{LINEAGE}?paper={SKIP.key}"), "lineage")
    parent = next(iter(parents(SKIP)))
    page.locator(".dyn-detail").get_by_role("button", name=KB[parent].method).first.click()
    assert drawn(page, ".dyn-lit") == family(parent)
    child = KB[next(iter(children(KB, parent)))]
    page.locator(f'.dyn-paper[data-key="{child.key}"]').click()
    assert drawn(page, ".dyn-lit") == family(child.key)
    page.go_back()
    page.go_back()
    assert drawn(page, ".dyn-lit") == family(SKIP.key)
    page.reload()
    ready(page, "lineage")
    assert drawn(page, ".dyn-lit") == family(SKIP.key)


def test_lineage_by_keyboard(watched):
    page = ready(watched().open(f"{LINEAGE}?paper={SKIP.key}&only=1"), "lineage")
    assert page.locator('.dyn-paper[tabindex="0"]').count() == 1, "one tab stop"
    page.locator('.dyn-paper[tabindex="0"]').focus()
    assert focused(page) == SKIP.key
    page.keyboard.press("ArrowLeft")
    parent = focused(page)
    assert parent in parents(SKIP)
    assert parents(SKIP)[parent] in page.locator(".dyn-hint").inner_text()
    page.keyboard.press("ArrowRight")
    assert focused(page) in children(KB, parent)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert f"paper={parent}" in page.url
    assert focused(page) == parent, "the keyboard lost its place"
    assert drawn(page) == family(parent)
    page.keyboard.press("ArrowRight")
    child = focused(page)
    assert child in children(KB, parent)
    key = "ArrowDown"
    page.keyboard.press(key)
    if focused(page) == child:  # the lowest of its year
        key = "ArrowUp"
        page.keyboard.press(key)
    assert focused(page) != child
    assert KB[focused(page)].year == KB[child].year
    page.keyboard.press("Escape")
    assert "paper=" not in page.url


def test_kinds_of_lines_are_switched(watched):
    page = ready(watched().open(LINEAGE), "lineage")
    page.get_by_role("checkbox", name="compares with").check()
    page.get_by_role("checkbox", name="improves").uncheck()
    some = [(p.key, r.target) for p in KB.entries for r in p.relations if r.kind in ("extends", "compares")]
    assert page.locator(".dyn-lines .dyn-edge").count() == len(some)
    assert drawn(page) == {key for pair in some for key in pair}
    assert "kinds=extends,compares" in page.url
    page.reload()
    ready(page, "lineage")
    assert page.locator(".dyn-lines .dyn-edge").count() == len(some)
    for kind in ("extends", "compares with"):
        page.get_by_role("checkbox", name=kind).uncheck()
    assert "No line" in page.locator(".dyn-canvas").inner_text()


def test_a_line_says_where_it_is_stated(watched):
    page = ready(watched().open(f"{LINEAGE}?paper={SKIP.key}&only=1"), "lineage")
    target, where = next(iter(parents(SKIP).items()))
    item = page.locator(".dyn-detail li", has_text=KB[target].method).first
    item.get_by_role("button").focus()
    assert f"SkipNet extends {KB[target].method}: {where}" in page.locator(".dyn-hint").inner_text()
    assert page.locator(".dyn-edge.dyn-near").count() == 1
    page.locator(".dyn-reach").first.dispatch_event("pointerenter")
    assert re.search(r": .+", page.locator(".dyn-hint").inner_text())


@pytest.mark.parametrize("query", ["?paper=nobody&kinds=toString,x&only=1", "?paper=%3Cscript%3E", "?kinds="])
def test_lineage_ignores_nonsense_in_the_address(watched, query):
    page = ready(watched().open(LINEAGE + query), "lineage")
    assert len(drawn(page)) > 100
    search = page.get_by_label("Paper", exact=True)
    search.fill("no such paper at all")
    search.press("Enter")
    assert "no such paper" in page.locator("#dyn-lineage .dyn-sum").inner_text()


def test_a_papers_page_shows_its_lineage_and_leads_to_the_whole(watched):
    page = watched().open(f"papers/{SKIP.key}.html")
    svg = page.locator(".dyn-lineage-svg")
    assert svg.locator("g.paper").count() == len(family(SKIP.key))
    page.get_by_role("link", name="in the lineage of the whole field").click()
    ready(page, "lineage")
    assert drawn(page, ".dyn-lit") == family(SKIP.key)


# ---------------------------------------------------------------- timeline


def marks(page):
    return {e.get_attribute("data-key") for e in page.locator(".dyn-mark[data-key]").all()}


def test_timeline_shows_every_paper_and_filters_by_node(watched):
    page = ready(watched().open(TIMELINE), "timeline")
    assert marks(page) == {p.key for p in KB}
    counts = page.locator(".dyn-years-table thead b").all_inner_texts()
    shown = {year: len(some) for year, some in KB.timeline().items()}
    assert sum(int(n) for n in counts if n) == len(KB)
    assert str(max(shown.values())) in counts
    page.get_by_label("Show", exact=True).select_option("sample/depth")
    assert marks(page) == {p.key for p in KB.papers(taxon="sample/depth")}
    assert "taxon=sample/depth" in page.url
    page.reload()
    ready(page, "timeline")
    assert marks(page) == {p.key for p in KB.papers(taxon="sample/depth")}
    page.go_back()
    ready(page, "timeline")
    assert marks(page) == {p.key for p in KB}


def test_timeline_by_keyboard(watched):
    page = ready(watched().open(f"{TIMELINE}?taxon=sample"), "timeline")
    assert page.locator('.dyn-mark[tabindex="0"]').count() == 1
    page.locator('.dyn-mark[tabindex="0"]').focus()
    first = focused(page, "href")
    page.keyboard.press("ArrowRight")
    assert focused(page, "href") != first
    page.keyboard.press("ArrowLeft")
    assert focused(page, "href") == first
    page.keyboard.press("ArrowDown")
    below = focused(page, "data-key")
    assert focused(page, "href") != first
    assert KB[below].title in page.locator("#dyn-timeline .dyn-hint").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/papers/{below}.html")


# ---------------------------------------------------------------- gaps


def cell(page, **where):
    return page.locator(f'[data-cell="{",".join(f"{axis}:{word}" for axis, word in where.items())}"]')


def test_gaps_count_what_the_knowledge_base_counts(watched):
    page = ready(watched().open(GAPS), "gaps")
    cells = KB.gaps()
    labels = page.locator(".dyn-cell:not(.dyn-total)").evaluate_all(
        "cells => cells.map(c => [c.dataset.cell, c.getAttribute('aria-label')])"
    )
    shown = {id: int(n[1]) if (n := re.search(r": (\d+) paper", label)) else 0 for id, label in labels}
    assert shown == {",".join(f"{a}:{w}" for a, w in c.where.items()): len(c.papers) for c in cells}
    empty = sum(not c.papers for c in cells)
    assert f"{len(cells):,} combinations, {empty:,} empty" in page.locator("#dyn-gaps .dyn-sum").inner_text()
    pair = next(c for c in KB.gaps("unit", "decision") if c.papers)
    assert cell(page, **pair.where).inner_text() == str(len(pair.papers))


def test_a_crowded_cell_lists_its_papers_and_leads_to_the_explorer(watched):
    page = ready(watched().open(GAPS), "gaps")
    crowded = KB.gaps()[0]
    cell(page, **crowded.where).click()
    links = page.locator(".dyn-detail ul a")
    assert {a.get_attribute("href") for a in links.all()} == {f"../papers/{p.key}.html" for p in crowded.papers}
    address = unquote(page.url)
    page.reload()
    ready(page, "gaps")
    assert unquote(page.url) == address
    assert cell(page, **crowded.where).get_attribute("aria-pressed") == "true"
    page.get_by_role("link", name="These filters in the explorer").click()
    page.wait_for_url("**/map.html?*")
    assert all(f"{axis}={word}" in page.url for axis, word in crowded.where.items())


def test_an_empty_cell_names_its_nearest_neighbours(watched):
    cells = {tuple(c.where.values()): c for c in KB.gaps()}

    def neighbours(words):
        return {
            other: len(c.papers) for other, c in cells.items()
            if c.papers and sum(a != b for a, b in zip(words, other, strict=True)) == 1
        }  # fmt: skip

    empty = next(words for words, c in cells.items() if not c.papers and len(neighbours(words)) > 2)
    page = ready(watched().open(GAPS), "gaps")
    cell(page, **cells[empty].where).click()
    detail = page.locator(".dyn-detail")
    assert "no paper" in detail.locator("h2").inner_text()
    told = [row.inner_text() for row in detail.locator(".dyn-go").all()]
    assert set(told) == {" × ".join(words) for words in neighbours(empty)}
    detail.locator(".dyn-go").first.click()
    assert detail.locator("h2").inner_text().startswith(told[0])
    page.go_back()
    assert "no paper" in detail.locator("h2").inner_text()


def test_gaps_choose_two_axes(watched):
    page = ready(watched().open(GAPS), "gaps")
    page.get_by_label("inside each cell").uncheck()
    page.get_by_label("Columns", exact=True).select_option("training")
    pairs = {tuple(c.where.values()): len(c.papers) for c in KB.gaps("unit", "training")}
    for (unit, training), n in list(pairs.items())[:5] + list(pairs.items())[-5:]:
        assert cell(page, unit=unit, training=training).inner_text() == str(n)
    assert page.locator(".dyn-cell").count() == len(pairs)
    page.get_by_label("Rows", exact=True).select_option("training")  # the two change places
    assert page.get_by_label("Columns", exact=True).input_value() == "unit"
    page.reload()
    ready(page, "gaps")
    assert page.locator(".dyn-cell").count() == len(pairs)


def test_gaps_by_keyboard(watched):
    page = ready(watched().open(GAPS), "gaps")
    assert page.locator('.dyn-cell[tabindex="0"]').count() == 1
    unit, decision, training, executes = ([*dict.fromkeys(c.where[axis] for c in KB.gaps())] for axis in AXES)
    ordered = {axis: [w for w in KB.facets[axis] if w in words]
               for axis, words in zip(AXES, (unit, decision, training, executes), strict=True)}  # fmt: skip
    first = {axis: words[0] for axis, words in ordered.items()}
    cell(page, **first).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    now = first | {"training": ordered["training"][1], "executes": ordered["executes"][1]}
    assert focused(page, "data-cell") == ",".join(f"{axis}:{word}" for axis, word in now.items())
    page.keyboard.press("Enter")
    assert " × ".join(now.values()) in page.locator(".dyn-detail h2").inner_text()
    assert focused(page, "data-cell") == ",".join(f"{axis}:{word}" for axis, word in now.items())


@pytest.mark.parametrize("query", ["?rows=x", "?cell=unit:no,decision:valueOf", "?rows=unit&columns=unit"])
def test_gaps_ignore_nonsense_in_the_address(watched, query):
    page = ready(watched().open(GAPS + query), "gaps")
    assert page.locator(".dyn-cell").count() > 100


# ---------------------------------------------------------------- all three


@pytest.mark.parametrize("path", [LINEAGE, TIMELINE, GAPS])
def test_the_plain_form_stands_without_javascript(watched, path):
    page = watched(java_script_enabled=False).open(path)
    plain = page.locator(".dyn-plain")
    assert plain.is_visible()
    links = {a.get_attribute("href") for a in plain.locator("a").all()}
    if path == TIMELINE:
        assert links == {f"../papers/{p.key}.html" for p in KB} | {h for h in links if h.startswith("http")}
    elif path == LINEAGE:
        related = (p for p in KB if parents(p) or children(KB, p.key))
        assert {f"../papers/{p.key}.html" for p in related} <= links
    else:
        pairs = [c for c in KB.gaps("unit", "decision") if c.papers]
        assert links == {"../book/map.html?unit={unit}&decision={decision}".format(**c.where) for c in pairs}


@pytest.mark.parametrize("path", [f"{LINEAGE}?paper={SKIP.key}", TIMELINE, GAPS + "?cell=unit:layer,decision:gating"])
def test_on_a_phone_nothing_is_wider_than_the_page(watched, path):
    page = watched().open(path)
    page.set_viewport_size(PHONE)
    ready(page, re.search(r"/(\w+)\.", path)[1])
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


SHOWN = [LINEAGE, f"{LINEAGE}?paper={SKIP.key}&kinds=extends,applies", TIMELINE, GAPS]
SHOWN += [GAPS + "?inside=0&cell=unit:layer,decision:gating", f"papers/{SKIP.key}.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", SHOWN)
def test_accessible(watched, path, scheme):
    page = watched(color_scheme=scheme).open(path)
    page.wait_for_timeout(400)  # fonts and transitions of the theme settle
    which = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] if scheme == "light" else ["color-contrast"]
    found = Axe().run(page, options={"runOnly": which, "preload": False}).response["violations"]
    told = [f"{v['id']} ({v['impact']}): {n['html'][:160]} {n['failureSummary']}" for v in found for n in v["nodes"]]
    assert not told, "\n".join(told[:20])


def test_hostile_text_is_only_text(watched):
    """The data of the page replaced by an enemy's before the scripts run."""
    evil = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>"
    one = watched()

    def poison(route):
        body = route.fetch().text()

        def swap(match):
            data = json.loads(match[1])
            for p in data["papers"]:
                p["method"] = p["title"] = evil
            return f'<script type="application/json">{json.dumps(data).replace("<", chr(92) + "u003c")}</script>'

        route.fulfill(body=re.sub(r'<script type="application/json">(\{"papers".*?)</script>', swap, body, flags=re.S),
                      content_type="text/html; charset=utf-8")  # fmt: skip

    one.context.route(re.compile(r"/book/(lineage|timeline|gaps)\.html"), poison)
    pair = KB.gaps("unit", "decision")[0].where
    crowded = f"{GAPS}?cell=unit:{pair['unit']},decision:{pair['decision']}"
    for path in (f"{LINEAGE}?paper={SKIP.key}", TIMELINE, crowded):
        page = ready(one.open(path), re.search(r"/(\w+)\.", path)[1])
        page.locator(".dyn-paper, .dyn-mark, .dyn-cell").first.focus()
        assert page.evaluate("window.owned") is None
        assert page.locator(".dyn-graph img, .dyn-graph script:not([type])").count() == 0
        assert path == TIMELINE or evil in page.locator(".dyn-detail").inner_text()
    expect(page.locator(".dyn-detail h2")).to_be_visible()
