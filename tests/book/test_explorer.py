"""The explorer driven as a reader does: words, icicle, table and address, by mouse and keyboard, in two languages."""

import csv
import io
import json
import re
import shlex
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import PHONE
from playwright.sync_api import expect

import dynnotes
from dynnotes import cli
from dynnotes.show.tables import FACETS

pytestmark = pytest.mark.browser
KB = dynnotes.load()
MAP = "book/map.html"
CHINESE = re.compile(r"[\u3400-\u9fff]")
SHOWN = "[...document.querySelectorAll('.dyn-papers tr[data-key]')].filter(r => r.checkVisibility())"
COLUMNS = ["method", "title", "year", "venue", "unit", "decision", "training", "executes", "status"]


def rows(page) -> list[str]:
    """Keys of the papers in the table, from top to bottom."""
    page.wait_for_selector("#dyn-explorer[data-ready]")
    return page.evaluate(f"{SHOWN}.map(r => r.dataset.key)")


def column(page, name) -> list[str]:
    """What the shown rows hold in a column."""
    return page.evaluate(f"{SHOWN}.map(r => r.cells[{COLUMNS.index(name)}].textContent)")


def keys(**query) -> set[str]:
    return {paper.key for paper in KB.papers(**query)}


def chip(page, facet, word):
    """The chip of a word; behind "More filters" it is opened first."""
    found = page.locator(f'button[data-facet="{facet}"][data-word="{word}"]')
    if not found.is_visible():
        page.locator(".dyn-rest > summary").click()
    return found


def press(page, button, device):
    if device == "mouse":
        button.click()
    else:
        button.focus()
        page.keyboard.press("Enter")


def test_shows_the_whole_field(watched):
    page = watched().open(MAP)
    assert sorted(rows(page)) == sorted(paper.key for paper in KB)
    assert page.locator(".dyn-status").inner_text() == f"All {len(KB)} papers"
    assert len(column(page, "status")) == len(KB)
    assert column(page, "status") == [KB[key].standing for key in rows(page)]
    assert page.locator(".dyn-papers thead th").all_inner_texts() == [
        "Method", "Title", "Year", "Venue", "Unit", "Decision", "Training", "Executes", "Status"
    ]


@pytest.mark.parametrize("device", ["mouse", "keyboard"])
def test_a_word_is_only_then_not_then_off(watched, device):
    page = watched().open(MAP)
    gating, policy = chip(page, "decision", "gating"), chip(page, "decision", "policy")
    for wanted, said in [("gating", "gating"), ("-gating", "not gating")]:
        press(page, gating, device)
        assert set(rows(page)) == keys(decision=wanted)
        assert urlsplit(page.url).query == f"decision={wanted}"
        assert gating.get_attribute("aria-pressed") == "true"
        assert gating.inner_text().startswith(said)
    press(page, gating, device)
    assert len(rows(page)) == len(KB)
    assert gating.get_attribute("aria-pressed") == "false"
    if device == "keyboard":
        assert page.evaluate("document.activeElement.dataset.word") == "gating"
    for button in (gating, policy):
        press(page, button, device)
    assert set(rows(page)) == keys(decision=["gating", "policy"])
    press(page, policy, device)
    assert set(rows(page)) == keys(decision=["gating", "-policy"])
    assert urlsplit(page.url).query == "decision=gating,-policy"
    press(page, page.get_by_role("button", name="Remove filter Decision: not policy"), device)
    assert set(rows(page)) == keys(decision="gating")
    press(page, page.get_by_role("button", name="Clear all"), device)
    assert len(rows(page)) == len(KB)


def test_counts_say_what_choosing_a_word_would_give(watched):
    """Beside each word stands what the knowledge base answers, first without and then with other conditions."""
    page = watched().open(MAP)
    page.locator(".dyn-rest > summary").click()

    def counted():
        return dict(page.locator("button[data-facet]").evaluate_all(
            "all => all.map(b => [b.dataset.facet + '=' + b.dataset.word, Number(b.querySelector('b').textContent)])"
        ))

    vocabulary = {**{facet: KB.facets[facet] for facet in FACETS}, "lists": KB.lists}
    known = {f"{f}={w}": len(keys(**{f: w})) for f in vocabulary for w in vocabulary[f] if w != "background"}
    assert counted() == {name: n for name, n in known.items() if n}
    page.goto(page.url + "?taxon=sample/depth&unit=layer&decision=-policy")
    rows(page)
    found = counted()
    here = {"taxon": "sample/depth", "unit": "layer", "decision": "-policy"}
    for name, n in found.items():
        facet, word = name.split("=")
        asked = [word, "-policy"] if facet == "decision" and word != "policy" else word
        assert n == len(keys(**{**here, facet: asked})), name


@pytest.mark.parametrize("device", ["mouse", "keyboard"])
def test_the_icicle_filters_and_zooms(watched, device):
    page = watched().open(MAP)

    def node(name):
        press(page, page.locator(f'[data-node="{name}"]'), device)

    node("sample/depth")
    assert set(rows(page)) == keys(taxon="sample/depth")
    assert "taxon=sample/depth" in page.url
    node("sample/depth/exits")
    assert set(rows(page)) == keys(taxon="sample/depth/exits")
    if device == "keyboard":
        here = "document.activeElement.dataset.node"
        assert page.evaluate(here) == "sample/depth/exits", "the keyboard lost its place"
        below = [node.id for node in KB.children("sample/depth/exits")]
        for key, there in [("ArrowRight", below[0]), ("ArrowDown", below[1]), ("ArrowLeft", "sample/depth/exits")]:
            page.keyboard.press(key)
            assert page.evaluate(here) == there
    node("sample/depth/exits")  # again: one step back
    assert set(rows(page)) == keys(taxon="sample/depth")
    press(page, page.get_by_role("button", name="All", exact=True), device)
    assert len(rows(page)) == len(KB)
    assert page.evaluate("document.activeElement.dataset.node"), "the focus is in the icicle, not lost"
    for shown in page.locator(".dyn-node").all():
        assert int(shown.locator("b").inner_text()) == len(keys(taxon=shown.get_attribute("data-node")))


def test_arrow_keys_lead_along_a_row_of_words_and_down_the_table(watched):
    page = watched().open(MAP)
    row = page.get_by_role("toolbar", name="Decision")
    assert row.locator('[tabindex="0"]').count() == 1
    row.locator('[tabindex="0"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert set(rows(page)) == keys(decision=list(KB.facets["decision"])[2])
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.word") == list(KB.facets["decision"])[-1]
    shown = rows(page)
    page.locator(f'tr[data-key="{shown[0]}"] a').focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').dataset.key") == shown[1]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the title opens
    assert KB[shown[1]].tldr in page.locator(".dyn-more").inner_text()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.locator(".dyn-more").count() == 2
    page.keyboard.press("Enter")
    assert page.locator(".dyn-more").count() == 1


@pytest.mark.parametrize("name", COLUMNS)
def test_sorts_both_ways(watched, name):
    page = watched().open(MAP + "?sort=title" if name != "title" else MAP)
    button = page.locator(f'button[data-sort="{name}"]')
    head = page.locator("th", has=button)
    ways = []
    for way, address in (("ascending", name), ("descending", f"-{name}")):
        button.focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == way
        assert parse_qs(urlsplit(page.url).query).get("sort", ["-year"]) == [address]
        ways.append(column(page, name))
        assert sorted(rows(page)) == sorted(paper.key for paper in KB)
    assert page.locator('th[aria-sort]:not([aria-sort="none"])').count() == 1
    up, down = ways
    if name == "year":
        assert up == sorted(up)
        assert down == up[::-1]
    elif name == "status":
        assert up == sorted(up, key=["implemented", "planned", "reference"].index)
    else:
        plain = [re.sub(r"[^a-z0-9]", "", text.lower()) for text in up]
        letters = [text[:1] for text in plain if text[:1].isalpha()]
        assert letters == sorted(letters)
    assert list(dict.fromkeys(down)) == list(dict.fromkeys(up))[::-1], "a second click reverses"


def test_a_search_of_words_folds_accents_and_keeps_the_caret(watched):
    page = watched().open(MAP)
    search = page.get_by_role("searchbox", name="Search", exact=True)
    search.fill("BELONGIÉ inference  graphs")
    assert rows(page) == ["veit2018convolutional"]
    search.fill("gate")
    search.press("Home")
    search.press("a")
    search.press("Delete")
    search.press("d")
    assert search.input_value() == "adate"
    assert search.evaluate("e => [document.activeElement === e, e.selectionStart]") == [True, 2]
    search.fill("no such word anywhere")
    assert rows(page) == []
    expect(page.get_by_text("No paper matches all of this")).to_be_visible()


def test_years_and_implemented(watched):
    page = watched().open(MAP)
    first = page.get_by_label("First year")
    first.fill("2020")
    first.press("Tab")
    assert set(rows(page)) == keys(since=2020)
    here = page.locator("button[data-here]")
    for wanted in (True, False, None):
        here.click()
        assert set(rows(page)) == keys(since=2020, implemented=wanted)
    page.get_by_label("Last year").fill("2019")
    page.get_by_label("Last year").press("Enter")
    assert set(rows(page)) == keys(since=2019, until=2019)


VIEW = "?q=network&taxon=sample&from=2015&decision=gating,-policy&implemented=0&sort=-method&view=matrix&lang=zh"


def test_the_address_holds_the_whole_view(watched):
    one = watched()
    page = one.open(MAP + VIEW)
    expected = keys(words="network", taxon="sample", since=2015, decision=["gating", "-policy"], implemented=False)
    assert set(rows(page)) == expected != set()
    assert page.locator(".dyn-matrix").is_visible()
    assert page.locator('th[aria-sort="descending"]').inner_text().strip().startswith("方法")
    page.locator("button[data-here]").click()
    page.locator("button[data-here]").click()
    page.locator("button[data-here]").click()
    assert urlsplit(page.url).query == VIEW[1:]
    page.reload()
    assert set(rows(page)) == expected


def test_back_and_forward(watched):
    page = watched().open(MAP)
    views = [rows(page)]
    chip(page, "unit", "layer").click()
    views.append(rows(page))
    page.get_by_role("searchbox", name="Search", exact=True).press_sequentially("skip")
    views.append(rows(page))
    page.locator('button[data-sort="method"]').click()
    views.append(rows(page))
    assert len({tuple(view) for view in views}) == 4
    for view in views[2::-1]:
        page.go_back()
        assert rows(page) == view, "one step back undoes one action; a word typed is one"
    for view in views[1:]:
        page.go_forward()
        assert rows(page) == view
    assert page.get_by_role("searchbox", name="Search", exact=True).input_value() == "skip"


def test_nonsense_in_the_address_is_ignored(watched):
    nonsense = "?taxon=no/such&decision=%3Cscript%3E,-&from=x&to=-5&unit=toString&sort=-toString&lang=xx"
    page = watched().open(MAP + nonsense)
    assert set(rows(page)) <= {paper.key for paper in KB}
    assert page.locator('[aria-sort="descending"]').inner_text().strip().startswith("Year")


def test_the_matrix_sets_both_facets(watched):
    page = watched().open(MAP)
    page.locator('[data-node="spatial"]').click()
    page.get_by_text("Unit × decision").click()
    cell = page.locator('button[data-cell="pixel:gating"]')
    cell.click()
    expected = keys(taxon="spatial", unit="pixel", decision="gating")
    assert set(rows(page)) == expected != set()
    assert int(cell.inner_text()) == len(expected)
    page.reload()
    assert set(rows(page)) == expected
    assert cell.get_attribute("aria-pressed") == "true"
    for button in page.locator(".dyn-matrix button:visible").all():
        unit, decision = button.get_attribute("data-cell").split(":")
        assert int(button.inner_text()) == len(keys(taxon="spatial", unit=unit, decision=decision))


LANGUAGES = """() => {
  const wrong = [], walk = document.createTreeWalker(document.querySelector('.dyn-app'), NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const zh = /[\\u3400-\\u9fff]/.test(node.data), en = !zh && /[A-Za-z]/.test(node.data);
    const lang = node.parentElement.closest('[lang]').lang;
    const term = /^(GPU|CPU|Gumbel-Softmax)(, (GPU|CPU|Gumbel-Softmax))*$/.test(node.data);  // the same in both
    if (zh && lang !== 'zh' || en && lang !== 'en' && !term) wrong.push([lang, node.data]);
  }
  return wrong;
}"""


def test_chinese_is_said_so_and_remembered(watched):
    one = watched()
    page = one.open(MAP + "?taxon=sample")
    page.locator(".dyn-rest > summary").click()
    before = rows(page)
    assert page.evaluate(LANGUAGES) == []
    assert not CHINESE.search(page.locator(".dyn-app").inner_text().replace("中文", ""))
    page.get_by_role("button", name="中文").click()
    assert "lang=zh" in page.url
    assert rows(page) == before
    assert page.evaluate(LANGUAGES) == []
    assert page.locator('[data-node="sample/depth"] .dyn-node-name').inner_text().startswith("动态深度")
    assert page.locator(".dyn-status").inner_text() == f"{len(before)} / {len(KB)} 篇论文"
    for facet in FACETS:
        for button in page.locator(f'button[data-facet="{facet}"]').all():
            shown, word = button.locator("span").last.inner_text(), button.get_attribute("data-word")
            known = CHINESE.search(shown) or shown in ("GPU", "CPU", "Gumbel-Softmax")
            assert known, f"{facet}: {word} has no Chinese; add it to CHINESE_WORDS in assets/js/explorer.js"
    named = page.locator("thead, .dyn-app summary, .dyn-facet strong, .dyn-facet small, .dyn-advice, legend")
    for name in named.all_inner_texts():
        assert CHINESE.search(name), f"'{name}' has no Chinese"
    again = one.open(MAP)  # another page of the same reader
    assert rows(again)
    assert again.get_by_role("button", name="English").is_visible()
    again.get_by_role("button", name="English").click()
    assert "lang" not in again.url
    assert again.locator('[data-node="sample/depth"] .dyn-node-name').inner_text().startswith("Dynamic depth")


@pytest.mark.parametrize("query", [
    "", "?decision=gating,-policy&unit=layer", "?taxon=sample/depth&from=2018&to=2020&implemented=1",
    "?lists=conditional-cv&kind=-survey&q=it%27s", "?q=skip+layer", "?q=d%C3%A9j%C3%A0&sort=title",
])
def test_the_command_and_the_call_find_the_same(watched, capsys, query):
    one = watched(permissions=["clipboard-read", "clipboard-write"])
    page = one.open(MAP + query)
    shown = set(rows(page))
    page.locator(".dyn-commands > summary").click()
    said = []
    for button in page.locator(".dyn-commands .dyn-copy").all():
        button.click()
        expect(button).to_have_text("Copied")
        said.append(page.evaluate("navigator.clipboard.readText()"))
    shell, call = said
    assert {paper.key for paper in eval(call, {"dynnotes": dynnotes})} == shown
    program, *arguments = shlex.split(shell)
    assert program == "dynnotes"
    assert cli.main([*arguments, "--json"] if "--" not in arguments else arguments) == (0 if shown else 1)
    found = capsys.readouterr().out
    assert set(re.findall(r'^  "key": "(.*?)"', found, re.M)) == shown


def test_the_csv_is_what_is_shown(watched):
    page = watched().open(MAP + "?decision=gating&sort=method")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    assert waiting.value.suggested_filename == "dynnotes.csv"
    text = waiting.value.path().read_bytes().decode("utf-8-sig")
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["key"] for row in table] == rows(page)
    assert list(table[0]) == (
        ["key", "method", "title", "authors", "year", "venue", "taxon"]
        + ["unit", "decision", "training", "executes", "status", "tldr"]
    )
    for row in table:
        paper = KB[row["key"]]
        assert row["title"] == re.sub(r"^\s*[=+@-]", r"'\g<0>", paper.title)
        assert row["unit"] == "; ".join(paper.unit)
        assert row["year"] == str(paper.year)
        assert row["authors"] == "; ".join(paper.authors)


def test_no_cell_of_the_csv_is_a_formula_or_breaks_its_row(watched):
    page = watched().context.new_page()
    bad = ["=1+1", "+1", "-1", "@x", " =1", "\t1", 'a "b", c', "a\r\nb", "; a"]
    titles = dict(zip([paper.key for paper in KB], bad, strict=False))

    def change(route):
        body = route.fetch().text()
        start = body.index('json">') + 6
        data, end = json.JSONDecoder().raw_decode(body, start)
        for paper in data["papers"]:
            paper["title"] = titles.get(paper["key"], paper["title"])
        data = json.dumps(data).replace("<", "\\u003c")
        route.fulfill(body=body[:start] + data + body[end:], content_type="text/html")

    page.route("**/map.html", change)
    page.goto(watched().address + MAP)
    rows(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    text = waiting.value.path().read_bytes().decode("utf-8-sig")
    table = {row["key"]: row["title"] for row in csv.DictReader(io.StringIO(text, newline=""))}
    assert len(table) == len(KB)
    for i, (key, title) in enumerate(titles.items()):
        assert table[key] == ("'" + title if i < 6 else title)


def test_what_an_action_touches(watched):
    """Rows are made once: a filter hides them, a sort moves them, and what stays the same is not written again."""
    page = watched().open(MAP)
    rows(page)
    page.evaluate("""() => {
      document.querySelectorAll('.dyn-papers tr').forEach((row, i) => { row.first = i; });
      window.seen = [];
      new MutationObserver((all) => window.seen.push(...all)).observe(document.querySelector('.dyn-app'),
        { subtree: true, childList: true, attributes: true, characterData: true });
    }""")

    def touched():
        return page.evaluate("""() => {
          const made = window.seen.flatMap((m) => [...m.addedNodes]).filter((n) => n.nodeName === 'TR');
          const hidden = window.seen.filter((m) => m.attributeName === 'hidden' && m.target.nodeName === 'TR').length;
          const all = window.seen.length;
          window.seen = [];
          return { moved: made.length, foreign: made.filter((row) => row.first === undefined).length, hidden, all };
        }""")

    chip(page, "decision", "gating").click()
    found = touched()
    gone = len(KB) - len(keys(decision="gating"))
    assert found["moved"] == 0
    assert found["hidden"] == gone
    assert found["all"] < gone + 800
    page.locator('button[data-sort="title"]').click()
    found = touched()
    assert found["moved"] == len(KB)
    assert found["foreign"] == 0
    assert found["hidden"] == 0
    page.locator('button[data-sort="title"]').click()
    touched()
    page.locator('button[data-sort="year"]').click()
    page.locator('button[data-sort="year"]').click()
    touched()
    page.get_by_role("searchbox", name="Search", exact=True).fill("zzzz")
    touched()
    page.get_by_role("searchbox", name="Search", exact=True).fill("zzzzz")  # nothing changes but the words themselves
    assert touched()["all"] < 20


def test_on_a_phone_the_table_scrolls_inside_the_page(watched):
    page = watched().open(MAP)
    page.set_viewport_size(PHONE)
    page.reload()
    shown = rows(page)
    assert len(shown) == len(KB)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    box = page.locator(".dyn-table-box")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    page.locator(f'tr[data-key="{shown[0]}"] .dyn-open').click()
    assert page.locator(".dyn-more div").bounding_box()["width"] <= PHONE["width"]
    box.evaluate("e => { e.scrollLeft = 400; }")
    link = page.locator(f'tr[data-key="{shown[0]}"] a').bounding_box()
    assert 0 <= link["x"] < 60, "the method stays in sight"
    page.locator(".dyn-filters > summary").click()
    page.locator(".dyn-taxonomy > summary").click()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_without_javascript_every_paper_is_listed(watched):
    page = watched(java_script_enabled=False).open(MAP)
    links = {a.get_attribute("href") for a in page.locator(".dyn-explorer-plain a").all()}
    assert links == {f"../papers/{paper.key}.html" for paper in KB}
    assert page.locator('.dyn-explorer-plain [lang="zh"]').first.inner_text() == KB.node("sample").zh


def test_a_papers_page_leads_to_the_filtered_explorer_and_back(watched):
    page = watched().open("papers/veit2018convolutional.html")
    page.locator(".dyn-facets").get_by_role("link", name="gumbel-softmax").click()
    page.wait_for_url("**/map.html?training=gumbel-softmax")
    assert set(rows(page)) == keys(training="gumbel-softmax")
    page.locator('.dyn-papers a[href$="veit2018convolutional.html"]').click()
    page.wait_for_url("**/veit2018convolutional.html")
    page.locator(".dyn-crumbs").get_by_role("link", name=KB.node("sample/depth").label).click()
    page.wait_for_url("**/map.html?taxon=sample/depth")
    assert set(rows(page)) == keys(taxon="sample/depth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("query", ["", "?taxon=spatial&decision=gating,-policy", "?view=matrix&lang=zh", "?q=zzzz"])
def test_accessible(watched, query, scheme):
    """WCAG 2.1 A and AA by axe, with everything opened that opens."""
    page = watched(color_scheme=scheme).open(MAP + query)
    rows(page)
    for summary in ("rest", "commands"):
        page.locator(f".dyn-{summary} > summary").click()
    if page.locator(".dyn-open:visible").count():
        page.locator(".dyn-open:visible").first.click()
    page.wait_for_timeout(400)  # fonts and transitions of the theme settle
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "preload": False}
    found = Axe().run(page, options=options).response["violations"]
    told = [f"{v['id']} ({v['impact']}): {n['html'][:160]} {n['failureSummary']}" for v in found for n in v["nodes"]]
    assert not told, "\n".join(told[:8])
