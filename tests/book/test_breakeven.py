"""The break-even explorer driven as a reader does: figures as fitted, controls, keyboard, address, dark, phone."""

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import PHONE

from dynnotes.show import breakeven

pytestmark = pytest.mark.browser
PAGE = "notebooks/09-from-macs-to-seconds.html"
BOX = ".dyn-breakeven"
MEASURED = breakeven.load()
PARTS = [part for part in breakeven.LAYERS if breakeven.rows_of(MEASURED, part)]
FITS = {part: breakeven.fit(breakeven.LAYERS[part], breakeven.rows_of(MEASURED, part)) for part in PARTS}
CONV = breakeven.rows_of(MEASURED, "conv")


def at(**wish):
    """The address of a choice."""
    return PAGE + "?" + "&".join(f"{name}={value}" for name, value in wish.items())


def ready(page):
    page.wait_for_selector(f'{BOX}[data-ready="yes"]')
    return page


def cell(page, method, what):
    return page.locator(f'{BOX} tr[data-method="{method}"] [data-what="{what}"]').inner_text()


def set_density(page, value):
    page.locator(f"{BOX} input[type=range]").evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)  # fmt: skip


def same(told, value):
    """A ratio as the page writes it; half a hundredth may round either way."""
    return float(told) == pytest.approx(value, abs=0.0051)


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("part", [part for part in PARTS if FITS[part]])
def test_the_predictions_of_the_page_are_those_of_the_fit(watched, part):
    rows, model = breakeven.rows_of(MEASURED, part), FITS[part]
    row = rows[-1]
    side, channels, batch, mask = (row[name] for name in ("side", "channels", "batch", "mask"))
    page = ready(watched().open(at(layer=part, map=row["shape"], batch=batch, mask=mask)))
    for density in (1, 30, 90):
        set_density(page, density)
        for method in model.masks[mask]:
            ratio = model.ratio(method, side, channels, batch, density / 100, mask)
            assert same(cell(page, method, "predicted"), ratio)
            even = model.break_even(method, side, channels, batch, mask)
            told = cell(page, method, "even")
            assert told == ("–" if even is None else told)
            assert even is None or float(told.rstrip(" %")) == pytest.approx(100 * even, abs=0.51)


def test_measured_ratios_are_those_of_the_file(watched):
    for part in PARTS:
        rows = [r for r in breakeven.rows_of(MEASURED, part) if not r["void"]]
        row = rows[len(rows) // 2]
        shape = row["shape"].replace(" ", "%20")
        page = ready(watched().open(at(layer=part, map=shape, batch=row["batch"], mask=row["mask"])))
        points = page.locator(f'{BOX} [data-method="ours"] .be-point title').all_text_contents()
        own = [r for r in breakeven.rows_of(MEASURED, part)
               if all(r[name] == row[name] for name in ("shape", "batch", "mask"))]  # fmt: skip
        drawn = [r for r in own if r["ratios"]["ours"][0] <= 2.5]  # the scale ends there at the latest
        assert len([p for p in points if "A/A" in p]) == len(drawn)
        page.locator(f"{BOX} summary").last.click()
        table = page.locator(f"{BOX} .be-table").last.inner_text()
        for r in own:
            told = f"{r['ratios']['ours'][0]:.3g}"
            assert f"{float(told):g} (" in table
        page.close()


def test_a_break_even_stands_on_the_line_of_dense(watched):
    page = ready(watched().open(at(layer="conv", map="56x64", mask="random", batch=1)))
    even = FITS["conv"].break_even("torch", 56, 64, 1, "random")
    marks = page.locator(f'{BOX} [data-method="torch"] .be-even')
    assert marks.count() == (even is not None)
    if even is not None:
        assert float(marks.get_attribute("data-even")) == pytest.approx(even, abs=1e-4)


def test_the_strips_name_the_fastest(watched):
    page = ready(watched().open(at(layer="conv", map="56x64", mask="random", batch=1)))
    label = page.locator(f"{BOX} svg[role=img]").get_attribute("aria-label")
    model = FITS["conv"]
    ratios = {"masked, compiled": model.ratio("ours", 56, 64, 1, 0.1, "random"), "dense": 1.0,
              "masked, torch operators": model.ratio("torch", 56, 64, 1, 0.1, "random")}  # fmt: skip
    fastest = min(ratios, key=ratios.get)
    assert re.search(rf"Fastest, predicted: {fastest} 1 % to ", label)
    assert "Fastest, predicted, no compiler: " in label
    assert "Fastest, measured: " in label
    assert page.locator(f"{BOX} .be-won").count() >= 3


def test_circumstances_are_said(watched):
    page = ready(watched().open(at(layer="conv", map="28x128", mask="blob", batch=8, density=25)))
    told = page.locator(f"{BOX} .be-facts").inner_text()
    row = next(r for r in CONV if (r["shape"], r["mask"], r["batch"], r["density"]) == ("28x128", "blob", 8, 0.25))
    for value in (MEASURED["machine"], MEASURED["date"], row["base"], row["operator"], f"{row['noise']:.2f}"):
        assert value in told
    worth = page.locator(f"{BOX} .be-small").last.inner_text()
    assert f"over {breakeven.errors(breakeven.LAYERS['conv'], CONV)['ours']['rows']} rows" in worth
    assert "that the fit has not seen" in worth


def test_a_map_that_was_not_measured_is_predicted_only(watched):
    page = ready(watched().open(PAGE))
    page.get_by_label("map", exact=True).select_option("")
    page.get_by_label("side", exact=True).fill("40")
    page.get_by_label("side", exact=True).press("Enter")
    page.get_by_label("channels", exact=True).fill("96")
    page.get_by_label("channels", exact=True).press("Tab")
    says = page.locator(f"{BOX} .be-says")
    assert "Predicted only: this map was not measured." in says.inner_text()
    assert cell(page, "ours", "measured") == "–"
    assert same(cell(page, "ours", "predicted"), FITS["conv"].ratio("ours", 40, 96, 1, 0.25, CONV[0]["mask"]))
    assert page.locator(f'{BOX} [data-method="ours"] .be-point title').count() == 0
    assert "map=40x96" in page.url
    page.get_by_label("side", exact=True).fill("100000")
    page.get_by_label("side", exact=True).press("Enter")
    most = max(r["side"] for r in CONV)
    assert page.get_by_label("side", exact=True).input_value() == str(most), "within what was measured"


def test_whole_blocks_are_shown_as_measured(watched):
    page = ready(watched().open(at(layer="blocks")))
    assert cell(page, "ours", "predicted") == "–"
    assert page.get_by_label("map", exact=True).locator("option", has_text="another").count() == 0
    assert "Nothing is predicted" in page.locator(BOX).inner_text()


# ---------------------------------------------------------------- controls


def test_mouse(watched):
    page = ready(watched().open(PAGE))
    before = page.locator(f"{BOX} .be-says").inner_text()
    page.get_by_label("layer", exact=True).select_option("pointwise")
    assert page.locator(f"{BOX} .be-says").inner_text() != before
    page.locator(f"{BOX} .be-radios span", has_text="8").click()
    page.locator(f"{BOX} .be-radios span", has_text="blobs").click()
    assert re.search(r"layer=pointwise&map=\w+&mask=blob&batch=8&density=25", page.url)
    page.locator(f"{BOX} svg[role=img]").scroll_into_view_if_needed()
    box = page.locator(f"{BOX} svg[role=img]").bounding_box()
    page.mouse.click(box["x"] + 40 + 0.6 * (box["width"] - 52), box["y"] + 100)
    assert "density=60" in page.url
    assert page.locator(f"{BOX} output").inner_text() == "60 %"


def test_keyboard(watched):
    page = ready(watched().open(PAGE))
    page.get_by_label("layer", exact=True).focus()
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "range":
            break
    page.keyboard.press("ArrowRight")
    assert "density=26" in page.url
    assert page.evaluate("document.activeElement.type") == "range", "the keyboard lost its place"
    page.keyboard.press("Home")
    assert page.locator(f"{BOX} output").inner_text() == "1 %"
    page.locator(f"{BOX} .be-radios input:checked").first.focus()
    page.keyboard.press("ArrowRight")
    assert "mask=random" not in page.url
    assert page.evaluate("document.activeElement.checked"), "the keyboard lost its place"
    page.keyboard.press("ArrowLeft")
    assert "mask=random" in page.url


def test_the_address_keeps_the_choice(watched):
    page = ready(watched().open(at(layer="conv", map="14x256", mask="blob", batch=8, density=40)))
    text = page.locator(BOX).inner_text()
    assert page.locator(f"{BOX} output").inner_text() == "40 %"
    page.reload()
    assert ready(page).locator(BOX).inner_text() == text


@pytest.mark.parametrize("query", [
    "?layer=constructor&map=__proto__&mask=x&batch=-3&density=1e99", "?map=0x0&density=-5", "?layer=blocks&map=40x96",
    "?map=99999x99999&batch=4", "?density=%3Cscript%3E",
])  # fmt: skip
def test_nonsense_in_the_address_is_ignored(watched, query):
    page = ready(watched().open(PAGE + query))
    assert page.locator(f"{BOX} .be-point").count() > 0 or "Predicted only" in page.locator(BOX).inner_text()
    assert "NaN" not in page.locator(BOX).inner_text()


# ---------------------------------------------------------------- plain form, phone, accessibility, bad input


def test_the_tables_stand_without_javascript(watched):
    page = watched(java_script_enabled=False).open(PAGE)
    plain = page.locator(f"{BOX} .be-plain")
    assert plain.is_visible()
    assert plain.locator("table").count() == len(PARTS)
    lines = {(r["part"], r["shape"], r["batch"], r["mask"], m) for part in PARTS
             for r in breakeven.rows_of(MEASURED, part) for m in r["ratios"] if m in breakeven.METHODS}  # fmt: skip
    assert plain.locator("tbody tr").count() == len(lines)


def test_void_rows_are_hollow(watched):
    """The data of the page with a row made void before the script runs."""
    one = watched()

    def spoil(data):
        for row in data["layers"][0]["rows"]:
            if (row["shape"], row["batch"], row["mask"], row["density"]) == ("56x64", 1, "random", 0.25):
                row.update(void=True, noise=1.4)

    changed(one, spoil)
    page = ready(one.open(at(layer="conv", map="56x64", mask="random", batch=1, density=25)))
    hollow = page.locator(f'{BOX} [data-method="ours"] .be-void title').all_text_contents()
    assert any("25 %" in title and "1.40, void" in title for title in hollow)
    assert "void: the machine was not quiet" in page.locator(f"{BOX} .be-legend").inner_text()
    assert "(" not in cell(page, "ours", "measured"), "a void ratio counts for nothing"
    assert "1.40, void" in page.locator(f"{BOX} .be-facts").inner_text()


def test_hostile_text_is_only_text(watched):
    evil = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>"
    one = watched()

    def poison(data):
        data["machine"] = dict.fromkeys(data["machine"], evil)
        data["methods"] = dict.fromkeys(data["methods"], evil)
        for layer in data["layers"]:
            layer["label"] = evil
            for row in layer["rows"]:
                row.update(base=evil, operator=evil, shape=row["shape"] + evil)

    changed(one, poison)
    page = ready(one.open(PAGE))
    assert page.evaluate("window.owned") is None
    assert page.locator(f"{BOX} img").count() == 0
    assert evil in page.locator(f"{BOX} .be-facts").inner_text()


def changed(one, change):
    def route(route):
        def swap(match):
            data = json.loads(match[2])
            change(data)
            return match[1] + json.dumps(data).replace("<", "\\u003c") + "</script>"

        pattern = r'(<script type="application/json">)(\{"machine".*?)</script>'
        body = re.sub(pattern, swap, route.fetch().text(), flags=re.S)
        route.fulfill(body=body, content_type="text/html; charset=utf-8")

    one.context.route(re.compile(re.escape(PAGE)), route)


@pytest.mark.parametrize("query", ["", "?layer=conv&map=40x96&mask=block&batch=4", "?layer=blocks&density=50"])
def test_on_a_phone_nothing_is_wider_than_the_page(watched, query):
    page = watched().open(PAGE + query)
    page.set_viewport_size(PHONE)
    ready(page)
    page.wait_for_function(f"document.querySelector('{BOX} svg[role=img]').getAttribute('width') < 391")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("query", ["", "?layer=conv&map=40x96&mask=block&batch=4", "?layer=blocks&density=50"])
def test_accessible(watched, query, scheme):
    page = ready(watched(color_scheme=scheme).open(PAGE + query))
    if page.locator(f"{BOX} summary").last.is_visible():  # a map that was not measured has no rows
        page.locator(f"{BOX} summary").last.click()
    page.wait_for_timeout(400)  # fonts and transitions of the theme settle
    which = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] if scheme == "light" else ["color-contrast"]
    found = Axe().run(page, context=BOX, options={"runOnly": which, "preload": False}).response["violations"]
    told = [f"{v['id']} ({v['impact']}): {n['html'][:160]} {n['failureSummary']}" for v in found for n in v["nodes"]]
    assert not told, "\n".join(told[:20])


def test_dark_follows_the_page(watched):
    ink = {}
    for scheme in ("light", "dark"):
        page = ready(watched(color_scheme=scheme).open(PAGE))
        line = page.locator(f'{BOX} [data-method="ours"] .be-line').first
        ink[scheme] = line.evaluate("e => getComputedStyle(e).stroke")
        page.close()
    assert ink["light"] != ink["dark"]
