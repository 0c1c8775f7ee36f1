"""The field on one plot driven as a reader does: views, filters, keyboard, table, CSV, address, hostile names."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import HTML, PHONE

from dynnotes.learn import evidence

pytestmark = pytest.mark.browser
FIELD = "book/field.html"
RESULTS = Path(__file__).parents[2] / "results"
HELD = {p.name.removesuffix(".json"): evidence.load_result(p) for p in sorted(RESULTS.glob("*.json"))
        if not p.name.startswith("static-")}  # fmt: skip
TASK = max({r["task"] for r in HELD.values()}, key=lambda task: sum(r["task"] == task for r in HELD.values()))
ON_TASK = {name: r for name, r in HELD.items() if r["task"] == TASK}
NAME = "veit2018convolutional"
TIMES = {name: evidence.times(r, evidence.static_clock(r, RESULTS)) for name, r in HELD.items()}
KNOB, POINTS = HELD[NAME]["budget"]["name"], evidence.summary(HELD[NAME])


def ready(page):
    page.wait_for_selector("#dyn-field[data-ready]")
    return page


def data_of(page):
    return json.loads(page.locator('#dyn-field script[type="application/json"]').text_content())


def points(page, name=""):
    """{(result, point): (x, y)} of the points drawn, of one result or of all."""
    found = page.locator(f'.dyn-spot{f"[data-method={json.dumps(name)}]" if name else ""}').evaluate_all(
        "all => all.map(e => [e.dataset.method, e.dataset.point, e.dataset.at])")  # fmt: skip
    return {(m, int(i)): tuple(map(float, at.split(","))) for m, i, at in found}


def spot(page, name, i=0):
    return page.locator(f'.dyn-spot[data-method="{name}"][data-point="{i}"]')


def against(page, name):
    page.locator(".dyn-views span", has_text=re.compile(f"^{name}$")).click()


def word(page, facet, value):
    return page.locator(f'[data-word="{facet}:{value}"]')


def focused(page, what="data-method"):
    return page.evaluate(f"document.activeElement.getAttribute('{what}')")


# ---------------------------------------------------------------- the plot


def test_every_method_stands_at_each_of_its_budgets(watched):
    page = ready(watched().open(FIELD))
    assert page.get_by_label("Task", exact=True).input_value() == TASK
    assert set(points(page)) == {(name, i) for name, r in ON_TASK.items() for i in range(len(evidence.summary(r)))}
    assert page.locator("#dyn-field .dyn-sum").inner_text() == f"{len(ON_TASK)} methods on {TASK}"
    label = page.locator(".dyn-plot svg").get_attribute("aria-label")
    assert f"Accuracy against executed MACs on {TASK}: {len(ON_TASK)} methods" in label


def test_points_stand_in_the_order_of_their_figures(watched):
    page = ready(watched().open(FIELD))
    at = points(page)
    figures = {(name, i): p for name, r in ON_TASK.items() for i, p in enumerate(evidence.summary(r))}
    for a, (x, y) in at.items():
        for b, (x1, y1) in at.items():
            assert x <= x1 + 0.2 or figures[a].macs.mean > figures[b].macs.mean
            assert y <= y1 + 0.2 or figures[a].accuracy.mean < figures[b].accuracy.mean  # down the screen is less


def test_equal_factors_of_macs_are_equal_ways(watched):
    page = ready(watched().open(FIELD))
    ticks = {t: float(x) for t, x in page.locator(".dyn-axis[text-anchor=middle]").evaluate_all(
        "all => all.map(e => [e.textContent, e.getAttribute('x')])")}  # fmt: skip
    assert ticks["500 k"] - ticks["200 k"] == pytest.approx(ticks["5 M"] - ticks["2 M"], abs=0.3)


def test_pointing_at_a_point_tells_its_values(watched):
    page = ready(watched().open(FIELD))
    spot(page, NAME).dispatch_event("pointerenter")
    told = page.locator(".dyn-readout").inner_text()
    assert f"{KNOB} {POINTS[0].budget:g}: accuracy {100 * POINTS[0].accuracy.mean:.1f} %" in told
    spot(page, NAME).dispatch_event("pointerleave")
    assert not page.locator(".dyn-readout").is_visible()


def test_a_click_opens_the_point_and_leads_to_page_receipt_and_recording(watched):
    page = ready(watched().open(FIELD))
    spot(page, NAME, 1).click()
    detail, point = page.locator(".dyn-detail"), POINTS[1]
    assert f"{KNOB} {point.budget:g}" in detail.inner_text()
    assert f"{100 * point.accuracy.mean:.1f} % ({100 * point.accuracy.low:.1f} to" in detail.inner_text()
    assert f"{100 * point.macs.mean / HELD[NAME]['full']:.1f} %" in detail.inner_text()
    for receipt in HELD[NAME]["receipts"]:
        assert f"batch {receipt['batch']}" in detail.inner_text()
        assert f"{receipt['time_ratio']:.2f} (" in detail.inner_text()
    links = [a.get_attribute("href") for a in detail.locator("a").all()]
    assert len(links) == 3
    target = (HTML / "papers" / f"{NAME}.html").read_text(encoding="utf-8")
    for href in links:
        path, _, part = href.partition("#")
        assert path == f"../papers/{NAME}.html"
        assert not part or f'id="{part}"' in target, f"{href} leads nowhere"
    assert f"method={NAME}" in page.url
    assert f"budget={point.budget:g}" in page.url
    page.reload()
    assert spot(ready(page), NAME, 1).get_attribute("aria-pressed") == "true"
    page.go_back()
    ready(page)
    assert page.locator('.dyn-spot[aria-pressed="true"]').count() == 0
    assert page.locator(".dyn-detail").inner_text() == ""


def test_the_legend_chooses_a_method(watched):
    page = ready(watched().open(FIELD))
    page.locator(f'.dyn-plot-key[data-method="{NAME}"]').click()
    assert page.locator(f'.dyn-plot-key[data-method="{NAME}"]').get_attribute("aria-pressed") == "true"
    assert f"{len(POINTS)} settings" in page.locator(".dyn-detail").inner_text()
    assert page.locator(".dyn-curve.dyn-lit").get_attribute("data-method") == NAME


def test_against_parameters_every_budget_stands_at_one_place(watched):
    page = ready(watched().open(FIELD))
    against(page, "Parameters")
    at = points(page, NAME)
    assert len(at) == len(POINTS)
    assert len({x for x, _ in at.values()}) == 1
    assert "by=params" in page.url
    assert page.locator(".dyn-band").count() > 0


def test_milliseconds_are_drawn_at_every_budget_for_one_batch(watched):
    page = ready(watched().open(FIELD))
    against(page, "Time")
    for batch in (1, 32):
        against(page, f"batch {batch}")
        timed = {(name, p.budget): next(t for t in TIMES[name] if (t["budget"], t["batch"]) == (p.budget, batch))
                 for name, r in ON_TASK.items() if TIMES[name] for p in evidence.summary(r)}  # fmt: skip
        at = points(page)
        assert len(at) == len(timed)
        order = {name: [p.budget for p in evidence.summary(r)] for name, r in ON_TASK.items()}
        drawn = {(name, order[name][i]): x for (name, i), (x, _) in at.items()}
        for a, x in drawn.items():
            for b, x1 in drawn.items():
                assert x <= x1 + 0.2 or timed[a]["ms"] > timed[b]["ms"]
        void = {(name, b) for (name, b), t in timed.items() if t["void"]}
        hollow = page.locator(".dyn-spot.dyn-void").evaluate_all(
            "all => all.map(e => [e.dataset.method, e.dataset.point])")  # fmt: skip
        assert {(m, order[m][int(i)]) for m, i in hollow} == void
        assert f"milliseconds at batch {batch}" in page.locator(".dyn-plot svg").get_attribute("aria-label")
        assert page.locator(".dyn-plot").get_by_text(f"milliseconds per input, batch {batch}").count() == 1
    assert "by=ms" in page.url and "batch=32" in page.url
    assert page.locator(".dyn-plot .dyn-band").count() > 0
    nets = {run["net"] for run in evidence.load_static(ON_TASK[NAME], RESULTS)}
    assert page.locator(".dyn-net").count() == len(nets)
    assert "No claim is judged here" in page.locator(".dyn-plot-about").first.inner_text()
    page.reload()
    assert points(ready(page)) == at


def test_a_point_in_milliseconds_tells_ratio_noise_and_reference(watched):
    page = ready(watched().open(f"{FIELD}?by=ms"))
    time = next(t for t in TIMES[NAME] if (t["budget"], t["batch"]) == (POINTS[0].budget, 1))
    spot(page, NAME).dispatch_event("pointerenter")
    told = page.locator(".dyn-readout").inner_text()
    assert f"{KNOB} {POINTS[0].budget:g}, batch 1: accuracy {100 * POINTS[0].accuracy.mean:.1f} %" in told
    assert f"{time['ms']:.3g} ms (quartiles " in told
    assert f"dense {time['ms_dense']:.3g} ms" in told
    assert f"of the time of {HELD[NAME]['clock']['reference']['net']}, noise {time['noise']:.2f}" in told
    spot(page, NAME).click()
    detail = page.locator(".dyn-detail").inner_text()
    assert "ms, batch 1" in detail and "ms dense, batch 32" in detail
    label = page.locator(".dyn-net title").first.text_content()
    assert "ms (quartiles" in label and "noise" in label


def test_by_keyboard_through_milliseconds(watched):
    page = ready(watched().open(f"{FIELD}?by=ms&method={NAME}&budget={POINTS[0].budget:g}"))
    page.locator('.dyn-spot[tabindex="0"]').focus()
    page.keyboard.press("ArrowRight")
    assert (focused(page), focused(page, "data-point")) == (NAME, "1")
    assert "of the time of" in page.locator(".dyn-readout").inner_text()
    page.keyboard.press("Enter")
    assert f"budget={POINTS[1].budget:g}" in page.url


def test_a_void_point_is_hollow_and_says_so(watched):
    """The data of the page with one row made void before the script runs."""
    one = watched(accept_downloads=True)

    def spoil(route):
        def swap(match):
            data = json.loads(match[1])
            method = next(m for m in data["methods"] if m["id"] == NAME)
            method["points"][1]["times"][0].update(void=True, noise=1.4)
            data["tasks"][0]["static"][0]["nets"][0]["times"][0].update(void=True, noise=1.3)
            return f'<script type="application/json">{json.dumps(data).replace("<", chr(92) + "u003c")}</script>'

        body = route.fetch().text()
        body = re.sub(r'<script type="application/json">(\{"tasks".*?)</script>', swap, body, flags=re.S)
        route.fulfill(body=body, content_type="text/html; charset=utf-8")

    before = sum(t["void"] for name in ON_TASK for t in TIMES[name] if t["batch"] == 1)
    own = next(t for t in TIMES[NAME] if (t["budget"], t["batch"]) == (POINTS[1].budget, 1))
    one.context.route(re.compile(r"/book/field\.html"), spoil)
    page = ready(one.open(f"{FIELD}?by=ms&method={NAME}&budget={POINTS[1].budget:g}"))
    assert "dyn-void" in spot(page, NAME, 1).get_attribute("class")
    assert "void, the machine was not quiet" in spot(page, NAME, 1).get_attribute("aria-label")
    assert f"{before + (not own['void'])} void point" in page.locator("#dyn-field .dyn-sum").inner_text()
    assert "void, noise 1.40" in page.locator(".dyn-detail").inner_text()
    assert page.locator(".dyn-net[stroke-dasharray]").count() >= 1
    assert page.locator(f'tr:has([data-row="{NAME}:1"])').get_by_text("void (noise 1.40)").count() == 1
    _, rows = downloaded(page)
    row = next(r for r in rows if r["key"] == NAME and float(r["budget"]) == POINTS[1].budget)
    assert (row["ms_batch_1"], row["noise_batch_1"], row["void_batch_1"]) == ("", "1.4", "void")


def test_time_is_drawn_against_macs_for_one_batch_and_for_every_task(watched):
    page = ready(watched().open(FIELD))
    against(page, "Receipts")
    timed = {name for name, r in ON_TASK.items() if r["receipts"]}
    assert {name for name, _ in points(page)} == timed
    before = points(page, NAME)
    against(page, "batch 32")
    assert points(page, NAME) != before
    assert "by=time" in page.url and "batch=32" in page.url
    assert "It has no accuracy" in page.locator(".dyn-plot-about").first.inner_text()
    page.get_by_label("Task", exact=True).select_option(label="every task: receipts only")
    assert {name for name, _ in points(page)} == {name for name, r in HELD.items() if r["receipts"]}
    page.reload()
    assert len(points(ready(page))) == sum(bool(r["receipts"]) for r in HELD.values())
    against(page, "MACs")
    assert page.get_by_label("Task", exact=True).input_value() == TASK


def test_each_task_has_its_methods(watched):
    page = ready(watched().open(FIELD))
    for task in sorted({r["task"] for r in HELD.values()}):
        page.get_by_label("Task", exact=True).select_option(task)
        assert {name for name, _ in points(page)} == {name for name, r in HELD.items() if r["task"] == task}


def test_static_nets_go_and_come(watched):
    page = ready(watched().open(FIELD))
    nets = len({run["net"] for run in evidence.load_static(ON_TASK[NAME], RESULTS)})
    assert page.locator(".dyn-net").count() == nets
    assert page.locator(".dyn-plot-table tbody th", has_text="static: ").count() == nets
    page.get_by_role("checkbox", name="static nets").uncheck()
    assert page.locator(".dyn-net, .dyn-plot .dyn-band").count() == 0
    assert page.locator(".dyn-plot-table tbody th", has_text="static: ").count() == 0
    page.reload()
    assert ready(page).locator(".dyn-net").count() == 0


# ---------------------------------------------------------------- filters


def test_words_filter_and_count(watched):
    page = ready(watched().open(FIELD))
    own = [m for m in data_of(page)["methods"] if m["task"] == TASK]

    def having(**words):
        return {m["id"] for m in own if all(set(m["facets"][f]) & set(ws) for f, ws in words.items())}

    unit, other = list(dict.fromkeys(w for m in own for w in m["facets"]["unit"]))[:2]
    assert word(page, "unit", unit).inner_text().split() == [unit, str(len(having(unit=[unit])))]
    word(page, "unit", unit).click()
    assert {name for name, _ in points(page)} == having(unit=[unit])
    word(page, "unit", other).click()
    assert {name for name, _ in points(page)} == having(unit=[unit, other]), "words of one facet widen"
    for verdict in dict.fromkeys(m["verdict"] for m in own):
        both = having(unit=[unit, other], verdict=[verdict])
        assert word(page, "verdict", verdict).locator("b").inner_text() == str(len(both))
    assert f"of {len(own)} methods" in page.locator("#dyn-field .dyn-sum").inner_text()
    assert f"unit={unit},{other}" in page.url
    page.reload()
    assert {name for name, _ in points(ready(page))} == having(unit=[unit, other])
    page.get_by_role("button", name="Clear filters").click()
    assert {name for name, _ in points(page)} == {m["id"] for m in own}


def test_no_match_is_said(watched):
    page = ready(watched().open(f"{FIELD}?unit=step&task={TASK}&static=0"))
    assert "No method matches" in page.locator(".dyn-plot").inner_text()
    assert page.locator(".dyn-plot-table tbody tr").count() == 0


# ---------------------------------------------------------------- keyboard


def test_by_keyboard(watched):
    page = ready(watched().open(f"{FIELD}?method={NAME}&budget={POINTS[0].budget:g}"))
    assert page.locator('.dyn-spot[tabindex="0"]').count() == 1, "one tab stop"
    page.locator('.dyn-spot[tabindex="0"]').focus()
    assert (focused(page), focused(page, "data-point")) == (NAME, "0")
    assert f"{KNOB} {POINTS[0].budget:g}" in page.locator(".dyn-readout").inner_text()
    page.keyboard.press("ArrowRight")
    assert (focused(page), focused(page, "data-point")) == (NAME, "1")
    page.keyboard.press("Enter")
    assert f"{KNOB} {POINTS[1].budget:g}" in page.locator(".dyn-detail h3").first.inner_text()
    assert (focused(page), focused(page, "data-point")) == (NAME, "1"), "the keyboard lost its place"
    page.keyboard.press("ArrowLeft")
    assert focused(page, "data-point") == "0"
    page.keyboard.press("ArrowDown")
    other = focused(page)
    assert other != NAME
    page.keyboard.press(" ")
    assert f"method={other}" in page.url
    page.keyboard.press("Escape")
    assert "method=" not in page.url
    assert focused(page) == other


def test_every_point_of_the_time_can_be_reached_by_arrows(watched):
    page = ready(watched().open(f"{FIELD}?task=all"))
    order = sorted(points(page).items(), key=lambda item: item[1])
    spot(page, *order[0][0]).focus()
    seen = {focused(page)}
    for _ in order[1:]:
        page.keyboard.press("ArrowRight")
        seen.add(focused(page))
    assert seen == {name for (name, _), _ in order}


# ---------------------------------------------------------------- the table


def test_the_table_holds_what_the_plot_holds_and_sorts(watched):
    page = ready(watched().open(FIELD))
    rows = page.locator(".dyn-plot-table tbody tr")
    assert rows.count() == len(points(page)) + page.locator(".dyn-net").count()

    def column(i):
        return [cell.inner_text() for cell in page.locator(f".dyn-plot-table tbody tr > :nth-child({i})").all()]

    def accuracies():
        return [float(cell.split()[0]) for cell in column(3)]

    assert accuracies() == sorted(accuracies(), reverse=True)
    head = page.locator(".dyn-plot-table thead")
    head.get_by_role("button", name="Accuracy").click()
    assert accuracies() == sorted(accuracies())
    assert head.locator("[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert focused(page, "data-sort") == "accuracy"
    head.get_by_role("button", name="Above static").click()
    above = column(11)
    assert above[-1] == "–", "what has no value stands last"
    head.get_by_role("button", name="Above static").click()
    assert column(11)[-1] == "–"
    assert "sort=gain" in page.url
    page.reload()
    assert ready(page).locator("[aria-sort] button").get_attribute("data-sort") == "gain"


def test_a_row_chooses_its_point(watched):
    page = ready(watched().open(FIELD))
    button = page.locator(f'[data-row="{NAME}:2"]')
    button.focus()
    page.keyboard.press("Enter")
    assert spot(page, NAME, 2).get_attribute("aria-pressed") == "true"
    assert focused(page, "data-row") == f"{NAME}:2"
    assert f"{KNOB} {POINTS[2].budget:g}" in page.locator(".dyn-detail").inner_text()


def downloaded(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    return download.value.suggested_filename, list(csv.DictReader(io.StringIO(
        Path(download.value.path()).read_text(encoding="utf-8-sig"))))  # fmt: skip


def test_csv_holds_the_figures_unrounded(watched):
    page = ready(watched(accept_downloads=True).open(FIELD))
    name, rows = downloaded(page)
    assert name == f"dynnotes-{TASK}.csv"
    assert len(rows) == page.locator(".dyn-plot-table tbody tr").count()
    mine = {float(row["budget"]): row for row in rows if row["key"] == NAME}
    for point in POINTS:
        row = mine[point.budget]
        assert float(row["accuracy"]) == pytest.approx(point.accuracy.mean, rel=1e-12)
        assert float(row["accuracy_low"]) == pytest.approx(point.accuracy.low, rel=1e-12)
        assert float(row["executed_macs"]) == pytest.approx(point.macs.mean, rel=1e-12)
        assert float(row["share_of_full"]) == pytest.approx(point.macs.mean / HELD[NAME]["full"], rel=1e-12)
        assert float(row["parameters"]) == HELD[NAME]["params"]
        for time in (t for t in TIMES[NAME] if t["budget"] == point.budget and not t["void"]):
            batch = time["batch"]
            assert float(row[f"ms_batch_{batch}"]) == pytest.approx(time["ms"], rel=1e-12)
            assert float(row[f"ms_dense_batch_{batch}"]) == pytest.approx(time["ms_dense"], rel=1e-12)
            assert float(row[f"over_reference_batch_{batch}"]) == pytest.approx(time["sparse"][0], rel=1e-12)
            assert float(row[f"noise_batch_{batch}"]) == pytest.approx(time["noise"], rel=1e-12)
    assert all(row["verdict"] == "static" for row in rows if not row["key"])


# ---------------------------------------------------------------- address, plain form, phone, accessibility, bad input


@pytest.mark.parametrize("query", [
    "?task=x&by=toString&batch=x&sort=valueOf", "?method=nobody&budget=1", "?unit=constructor,%3Cscript%3E",
    f"?method={NAME}&budget=nonsense&task=parity",
])  # fmt: skip
def test_nonsense_in_the_address_is_ignored(watched, query):
    page = ready(watched().open(FIELD + query))
    assert page.locator(".dyn-spot").count() > 0
    assert page.locator('.dyn-spot[aria-pressed="true"]').count() == 0


def test_the_plain_tables_stand_without_javascript(watched):
    page = watched(java_script_enabled=False).open(FIELD)
    plain = page.locator("#dyn-field .dyn-plain")
    assert plain.is_visible()
    assert {a.get_attribute("href") for a in plain.locator("a").all()} == {
        f"../papers/{r['paper']}.html" for r in HELD.values()}  # fmt: skip
    assert plain.locator("table").count() == len({r["task"] for r in HELD.values()})
    settings = sum(len(evidence.summary(r)) for r in HELD.values())
    assert plain.locator("tbody th:has(a)").count() == settings


@pytest.mark.parametrize("query", [f"?method={NAME}&budget={POINTS[0].budget:g}", "?task=all", "?by=params", "?by=ms"])
def test_on_a_phone_nothing_is_wider_than_the_page(watched, query):
    page = watched().open(FIELD + query)
    page.set_viewport_size(PHONE)
    ready(page)
    page.wait_for_function("document.querySelector('.dyn-plot svg').getAttribute('width') < 391")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("query", ["", f"?method={NAME}&budget={POINTS[0].budget:g}&unit=layer", "?task=all", "?by=ms"])
def test_accessible(watched, query, scheme):
    page = ready(watched(color_scheme=scheme).open(FIELD + query))
    page.wait_for_timeout(400)  # fonts and transitions of the theme settle
    which = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] if scheme == "light" else ["color-contrast"]
    found = Axe().run(page, options={"runOnly": which, "preload": False}).response["violations"]
    told = [f"{v['id']} ({v['impact']}): {n['html'][:160]} {n['failureSummary']}" for v in found for n in v["nodes"]]
    assert not told, "\n".join(told[:20])


def test_hostile_names_are_only_text_and_no_formula(watched):
    """The data of the page replaced by an enemy's before the script runs."""
    evil, sheet = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>", "=HYPERLINK(1)"
    one = watched(accept_downloads=True)

    def poison(route):
        def swap(match):
            data = json.loads(match[1])
            for m in data["methods"]:
                m["title"] = m["net"] = m["knob"] = m["verdict"] = evil
                m["said"], m["method"] = [evil], sheet
            for net in data["tasks"][0]["static"][0]["nets"]:
                net["net"] = evil
            return f'<script type="application/json">{json.dumps(data).replace("<", chr(92) + "u003c")}</script>'

        body = route.fetch().text()
        body = re.sub(r'<script type="application/json">(\{"tasks".*?)</script>', swap, body, flags=re.S)
        route.fulfill(body=body, content_type="text/html; charset=utf-8")

    one.context.route(re.compile(r"/book/field\.html"), poison)
    page = ready(one.open(f"{FIELD}?method={NAME}&budget={POINTS[0].budget:g}"))
    spot(page, NAME, 1).dispatch_event("pointerenter")
    assert page.evaluate("window.owned") is None
    assert page.locator("#dyn-field img, #dyn-field script:not([type])").count() == 0
    assert evil in page.locator(".dyn-detail").inner_text()
    assert evil in page.locator(".dyn-readout").inner_text()
    _, rows = downloaded(page)
    assert {row["method"] for row in rows if row["key"]} == {f"'{sheet}"}
