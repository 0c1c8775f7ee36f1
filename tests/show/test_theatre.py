"""Trace files, and the gate theatre driven in a real Chromium with the network closed."""

from __future__ import annotations

import base64
import copy
import functools
import http.server
import importlib.util
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dynnotes.show import traces

HERE = Path(__file__).parent


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


synthetic = _module(HERE / "fixtures" / "synthetic.py")
KINDS = (*synthetic.MAIN, *synthetic.PAPERS, *synthetic.OTHER)


@functools.cache
def _made(kind):
    made = synthetic.MAIN | synthetic.PAPERS
    return made[kind]() if kind in made else synthetic.other(kind)


def trace_of(kind):
    return copy.deepcopy(_made(kind))


def smallest(**changes):
    """A trace of 2 budgets, 2 inputs and a layer, with top-level fields replaced."""
    return {
        "format": "dynnotes.trace/1",
        "paper": "key2000word",
        "method": "Method",
        "task": "task",
        "budget": {"name": "threshold", "cheaper": "lower"},
        "budgets": [{"value": v, "spent": [10, 10 + 5 * v], "correct": [1, v], "predicted": [0, 1]} for v in (0, 1)],
        "full": 15,
        "inputs": [traces.image(np.eye(3) * h, label=1, hard=h) for h in (0.0, 1.0)],
        "decisions": [{"name": "block", "kind": "layer", "macs": 5, "gate": traces.record_gates([[0, 0], [0, 1]])}],
    } | changes


# ------------------------------------------------------------------------------------------------ the file


def test_schema_is_a_schema():
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(json.loads(traces.SCHEMA.read_text()))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 3, 5), (2, 1, 1, 7, 7), (1, 4, 3, 8)])
def test_hard_gates_round_trip_in_bits(shape):
    gate = np.random.default_rng(0).random(shape) > 0.5
    packed = traces.record_gates(gate)
    assert packed["dtype"] == "bit"
    assert len(base64.b64decode(packed["data"])) == -(-gate.size // 8)
    assert (traces.read_gates(packed) == gate).all()


def test_bits_are_most_significant_first():
    assert base64.b64decode(traces.record_gates([1, 0, 0, 0, 0, 0, 0, 1, 1])["data"]) == b"\x81\x80"


def test_soft_gates_round_trip_to_half_a_step():
    gate = np.random.default_rng(0).random((2, 3, 5))
    packed = traces.record_gates(gate)
    assert packed["dtype"] == "uint8"
    assert np.abs(traces.read_gates(packed) - gate).max() <= 0.5 / 255


@pytest.mark.parametrize(
    ("gate", "said"), [([0.5, np.nan], "not finite"), ([0, 2], r"\[0, 1\]"), ([-0.1, 1], r"\[0, 1\]")]
)
def test_gates_outside_their_range_are_refused(gate, said):
    with pytest.raises(traces.TraceFileError, match=said):
        traces.record_gates(gate)


@pytest.mark.parametrize("kind", synthetic.MAIN)
def test_the_bill_is_the_decisions_plus_a_constant(kind):
    """Encoded gates times prices, from the file alone, leave the same stem and head for every input and budget."""
    trace = trace_of(kind)
    rest = np.array([b["spent"] for b in trace["budgets"]])
    for d in trace["decisions"]:
        gate = traces.read_gates(d["gate"]).astype(float)
        rest = rest - (gate * np.broadcast_to(d["macs"], gate.shape)).reshape(*rest.shape, -1).sum(2)
    assert rest.std() < 1e-6
    assert rest.mean() > 0


def test_exits_become_one_decision_each_with_the_price_of_leaving():
    ran = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    left = np.eye(3)
    for gate in (ran, left):  # a model may say what ran or where it left; both mean the same
        d = synthetic.decision("exit", "exit", gate, (10, 20, 30))
        run = SimpleNamespace(spent=np.array([15, 35, 65]), full=np.full(3, 65.0), decisions=(d,))
        made = traces.build(
            "k",
            "m",
            "t",
            {"name": "entropy", "cheaper": "higher"},
            [(0.5, run, [0, 1, 2], [1, 1, 1])],
            [traces.tokens(["a"])] * 3,
            run.full,
        )
        assert [x["name"] for x in made["decisions"]] == ["exit 1", "exit 2", "exit 3"]
        assert [x["macs"] for x in made["decisions"]] == [10, 30, 60]
        assert [traces.read_gates(x["gate"]).tolist() for x in made["decisions"]] == [
            [row] for row in left.astype(int).tolist()
        ]


def test_separate_exits_join_and_keep_their_place():
    decisions = (
        synthetic.decision("early", "exit", [1, 0], 10),
        synthetic.decision("block", "layer", [0, 1], 5),
        synthetic.decision("last", "exit", [0, 1], 20),
    )
    run = SimpleNamespace(spent=np.array([10, 35]), full=np.array([35, 35]), decisions=decisions)
    made = traces.build(
        "k",
        "m",
        "t",
        {"name": "entropy", "cheaper": "higher"},
        [(1, run, [0, 1], [1, 0])],
        [traces.tokens(["a"])] * 2,
        35,
    )
    assert [(d["name"], d["macs"]) for d in made["decisions"]] == [("early", 10), ("block", 5), ("last", 30)]


def test_a_real_model_becomes_a_trace_file():
    import torch

    from dynnotes.execute.verbs import run_if, run_while

    class Stage(torch.nn.Linear):
        def forward(self, h):
            return super().forward(h), super().forward(h).tanh()

    torch.manual_seed(0)
    x = torch.randn(4, 6)
    body, stages = torch.nn.Linear(6, 6), [Stage(6, 6) for _ in range(3)]
    runs = []
    for value in (0.0, 1.0):
        y, first = run_if((x[:, 0] > value).double(), body, x, name="block", sparse=False)
        _, rest = run_while(stages, lambda i, a, v=value: a[:, 0] > v / 2, y, sparse=False)
        both = first + rest
        runs.append((value, both, torch.zeros(4, dtype=torch.long), torch.ones(4)))
    made = traces.build(
        "k",
        "m",
        "t",
        SimpleNamespace(name="threshold", cheaper="lower"),
        runs,
        [traces.image(torch.rand(1, 4, 4), label=torch.tensor(1))] * 4,
        both.full,
        labels=["a", "b"],
    )
    assert [d["kind"] for d in made["decisions"]] == ["layer", "exit", "exit", "exit"]
    spent = sum(traces.read_gates(d["gate"]) * d["macs"] for d in made["decisions"])
    np.testing.assert_allclose(spent, [b["spent"] for b in made["budgets"]])


def test_build_names_decisions_that_differ_between_budgets():
    runs = [
        (
            v,
            SimpleNamespace(spent=[1.0], full=[1.0], decisions=(synthetic.decision(f"d{v}", "layer", [1], 1),)),
            [0],
            [1],
        )
        for v in (1, 2)
    ]
    with pytest.raises(traces.TraceFileError, match=r"decisions: at budget 2 they are d2 \(layer\), at the first d1"):
        traces.build("k", "m", "t", {"name": "b", "cheaper": "lower"}, runs, [traces.tokens(["a"])], 1.0)


def test_build_refuses_inputs_of_different_full_price():
    run = SimpleNamespace(spent=[1.0, 2.0], full=[1.0, 2.0], decisions=())
    with pytest.raises(traces.TraceFileError, match="full: differs"):
        traces.build(
            "k",
            "m",
            "t",
            {"name": "b", "cheaper": "lower"},
            [(1, run, [0, 0], [1, 1])],
            [traces.tokens(["a"])] * 2,
            run.full,
        )


def _changed(path, value):
    def change(trace):
        *way, last = path
        at = trace
        for key in way:
            at = at[key]
        if value is KeyError:
            del at[last]
        else:
            at[last] = value

    return change


# What is wrong, and the field that Python and the viewer both have to name.
BROKEN = {
    "another format": (_changed(["format"], "dynnotes.results/1"), "format"),
    "a later major version": (_changed(["format"], "dynnotes.trace/2"), "format"),
    "no budgets": (_changed(["budgets"], KeyError), "budgets"),
    "empty budgets": (_changed(["budgets"], []), "budgets"),
    "empty inputs": (_changed(["inputs"], []), "inputs"),
    "no decisions field": (_changed(["decisions"], KeyError), "decisions"),
    "a word for a price": (_changed(["full"], "much"), "full"),
    "full of nothing": (_changed(["full"], 0), "full"),
    "spent too short": (_changed(["budgets", 0, "spent"], [1]), "budgets[0].spent"),
    "spent less than nothing": (_changed(["budgets", 1, "spent", 0], -3), "budgets[1].spent[0]"),
    "no predictions": (_changed(["budgets", 0, "predicted"], KeyError), "predicted"),
    "a knob that saves sideways": (_changed(["budget", "cheaper"], "sideways"), "budget.cheaper"),
    "a short gate": (_changed(["decisions", 0, "gate", "data"], ""), "decisions[0].gate.data"),
    "a gate that is not base64": (_changed(["decisions", 0, "gate", "data"], "?"), "decisions[0].gate.data"),
    "a gate of other budgets": (_changed(["decisions", 0, "gate", "shape"], [3, 2]), "decisions[0].gate.shape"),
    "an unknown dtype": (_changed(["decisions", 0, "gate", "dtype"], "float"), "decisions[0].gate.dtype"),
    "prices of other units": (_changed(["decisions", 0, "macs"], [1, 2, 3]), "decisions[0].macs"),
    "a name that is a number": (_changed(["decisions", 0, "name"], 3), "decisions[0].name"),
    "a picture of other size": (_changed(["inputs", 0, "shape"], [1, 9, 9]), "inputs[0].data"),
    "a picture of two channels": (_changed(["inputs", 0, "shape"], [2, 3, 3]), "inputs[0].shape"),
    "a box outside": (_changed(["inputs", 1, "box"], [0, 0, 1, 7]), "inputs[1].box"),
    "a mark for each of other frames": (_changed(["inputs", 0, "informative"], [1, 0, 1]), "inputs[0].informative"),
    "a value of no budget": (_changed(["budget"], None), "budgets"),
    "a hardness above 1": (_changed(["inputs", 1, "hard"], 3), "inputs[1].hard"),
}


@pytest.mark.parametrize("plain", [False, True], ids=["jsonschema", "without jsonschema"])
@pytest.mark.parametrize("wrong", BROKEN)
def test_a_broken_trace_is_refused_by_field(wrong, plain, monkeypatch):
    if plain:
        monkeypatch.setitem(sys.modules, "jsonschema", None)
    trace = smallest()
    traces.check(trace)
    change, field = BROKEN[wrong]
    change(trace)
    with pytest.raises(traces.TraceFileError) as caught:
        traces.check(trace)
    assert field in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_by_field(value):
    trace = smallest()
    trace["budgets"][1]["spent"][0] = value
    with pytest.raises(traces.TraceFileError, match=r"budgets\[1\]\.spent\[0\]: should be a finite number"):
        traces.check(trace)


def test_a_sample_leaves_exactly_once():
    exits = [{"name": n, "kind": "exit", "macs": 5, "gate": traces.record_gates([[0, 1], [1, 1]])} for n in "ab"]
    with pytest.raises(traces.TraceFileError, match="input 0 leaves at 0 exits at budget 0, should leave at one"):
        traces.check(smallest(decisions=exits))


def test_saved_and_loaded(tmp_path):
    path = traces.save(trace_of("expert"), tmp_path / "new" / "t.json")
    assert traces.load(path) == trace_of("expert")
    assert [p.name for p in path.parent.iterdir()] == ["t.json"]


def test_a_bad_trace_leaves_the_saved_one_alone(tmp_path):
    path = traces.save(smallest(), tmp_path / "t.json")
    with pytest.raises(traces.TraceFileError):
        traces.save(smallest(full="much"), path)
    assert traces.load(path) == smallest()


@pytest.mark.parametrize(("body", "said"), [("{", "is not JSON"), ("[]", "should be an object"), ("{}", "format")])
def test_a_bad_file_is_named(tmp_path, body, said):
    path = tmp_path / "bad.json"
    path.write_text(body)
    with pytest.raises(traces.TraceFileError, match=rf"bad\.json: .*{said}"):
        traces.load(path)
    with pytest.raises(traces.TraceFileError, match=r"gone\.json: cannot be read"):
        traces.load(tmp_path / "gone.json")


def test_writing_traces_needs_neither_torch_nor_anywidget():
    code = "import sys, dynnotes.show.traces; print({'torch', 'anywidget', 'jsonschema'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.stdout.strip() == "set()", done.stderr


# ------------------------------------------------------------------------------------------------ the widget


def test_widget_checks_what_it_is_given(tmp_path):
    from dynnotes.show.widgets.theatre import Theatre

    widget = Theatre(traces.save(smallest(), tmp_path / "t.json"), budget=1)
    assert (widget.trace, widget.budget, widget.step) == (smallest(), 1, -1)
    with pytest.raises(ValueError, match="budget: should lie in 0 to 1, is 2"):
        widget.budget = 2
    with pytest.raises(ValueError, match=r"step: should lie in 0 to 1"):
        widget.step = 2
    with pytest.raises(ValueError, match="full"):
        Theatre(smallest(full="much"))


HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"


def hostile():
    trace = smallest(method=HOSTILE, task=HOSTILE, paper=HOSTILE, labels=[HOSTILE, HOSTILE])
    trace["budget"]["name"] = HOSTILE
    trace["budgets"][0]["value"] = HOSTILE
    trace["budgets"][1]["predicted"] = [HOSTILE, 1]
    trace["decisions"][0] |= {"name": HOSTILE, "kind": HOSTILE}
    trace["inputs"] = [
        {"kind": "tokens", "data": [HOSTILE], "label": HOSTILE, "difficulty": {HOSTILE: 1}},
        {"kind": HOSTILE, "data": HOSTILE},
    ]
    return trace


def test_static_html_holds_no_markup_from_the_trace():
    from dynnotes.show.widgets.theatre import static_html

    made = static_html(hostile())
    assert re.findall(r"<(\w+)", made) == ["div", "script", "p"]
    assert json.loads(re.search(r'<script type="application/json">(.*?)</script>', made).group(1)) == hostile()


# ------------------------------------------------------------------------------------------------ in a browser

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Theatre</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>body {{ margin: 0; color-scheme: light dark; background: light-dark(#fff, #0d1015) }}
h1 {{ color: light-dark(#111, #eee) }}</style></head>
<body><main><h1>Theatre</h1>{body}</main><script src="host.js"></script></body></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder served on this machine; `site.page(name, *html)` writes a page and returns its address."""
    from dynnotes.show.widgets import theatre

    folder = tmp_path_factory.mktemp("site")
    theatre.write_assets(folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"

    def page(name, *html):
        (folder / f"{name}.html").write_text(PAGE.format(body="".join(html)), "utf-8")
        return f"{url}{name}.html"

    yield SimpleNamespace(url=url, page=page, folder=folder, show=theatre.static_html)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    browser = _module(HERE.parent / "book" / "browser.py")
    path = browser.find()
    if path is None:
        pytest.fail(browser.REMEDY)
    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(chromium, site):
    """visit(address, **context) -> page; afterwards: nothing was asked of the network and the console is clean."""
    contexts, outside, errors = [], [], []

    def go(address, **options):
        context = chromium.new_context(**({"viewport": {"width": 920, "height": 640}} | options))
        contexts.append(context)

        def gate(route):
            if route.request.url.startswith((site.url, "file:", "blob:", "data:")):
                route.continue_()
            else:
                outside.append(route.request.url)
                route.abort()

        context.route("**/*", gate)
        page = context.new_page()
        page.set_default_timeout(15000)
        page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("requestfailed", lambda r: errors.append(f"failed: {r.url}"))
        page.goto(address)
        page.wait_for_selector(".dt")
        return page

    yield go
    for context in contexts:
        context.close()
    assert outside == []
    assert errors == []


def axe(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found]


def ask(page, trace, body):
    """Evaluate `body` with the module as T and the trace read as `show`."""
    start = "const T = await import('./theatre.js'); const show = T.read(t);"
    return page.evaluate(f"async t => {{ {start} {body} }}", trace)


def shown(page):
    """What the two sides say: cost, share of full, sentence."""
    return [
        [side.locator(f".dt-{part}").inner_text() for part in ("spent", "share", "summary")]
        for side in page.locator(".dt-side").all()
    ]


def painted(page):
    """Everything drawn from gates: cells, blocks, doors, veil over the picture."""
    return page.evaluate("""[...document.querySelectorAll('.dt-item, .dt-grid path, .dt-veil, .dt-place')]
        .map(n => n.getAttribute('d') || n.getAttribute('class') + (n.getAttribute('x') || ''))""")


def depth_of(page):
    """The slider of depth, or of time where all that is decided comes one after another."""
    return page.get_by_label(re.compile("^(Depth|Time)"))


in_browser = pytest.mark.browser


@in_browser
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_driven(kind, site, visit):
    trace = trace_of(kind)
    page = visit(site.page(kind, site.show(trace)))
    box = page.locator(".dt").bounding_box()
    assert box["width"] <= 900
    assert box["height"] <= 575
    sides = [0, len(trace["inputs"]) - 1]  # the least and the most hard
    last = len(trace["budgets"]) - 1

    looks = []
    budget = page.get_by_label(re.compile("^Budget"))
    assert budget.is_visible() == (trace["budget"] is not None)
    if trace["budget"]:
        budget.focus()
    for v, one in enumerate(trace["budgets"]):  # the slider, by keyboard
        page.keyboard.press("Home" if v == 0 else "ArrowRight")
        assert page.locator(".dt").get_attribute("data-budget") == str(v)
        mean = sum(one["spent"]) / len(one["spent"])
        spent = [one["spent"][b] for b in sides]
        words = ask(page, trace, f"return [{mean}, ...{json.dumps(spent)}].map(T.macs)")
        assert words[0] in page.locator(".dt-stats").inner_text()
        assert [row[0] for row in shown(page)] == [f"{w} MACs" for w in words[1:]]
        assert all(f"{w} MACs" in row[2] for w, row in zip(words[1:], shown(page), strict=True))
        right = int(100 * sum(one["correct"]) / len(one["correct"]) + 0.5)
        assert f"{right}%" in page.locator(".dt-stats").inner_text()
        looks.append(painted(page))
    assert last == 0 or looks[0] != looks[-1]  # another budget, other gates

    if trace["budget"]:
        track = budget.bounding_box()  # and by mouse
        page.mouse.click(track["x"] + 2, track["y"] + track["height"] / 2)
        assert page.locator(".dt").get_attribute("data-budget") == "0"
        assert painted(page) == looks[0]
    if not trace["decisions"]:
        return

    depth_of(page).focus()  # before any decision: stem and head
    page.keyboard.press("Home")
    fixed = ask(page, trace, f"return {json.dumps(sides)}.map(b => T.macs(show.bill(0, b).upto[0]))")
    assert [row[0] for row in shown(page)] == [f"{w} MACs" for w in fixed]
    before = painted(page)

    page.get_by_role("button", name="Play").click()
    page.wait_for_selector(f'.dt[data-step="{traces.beats(trace)}"]')
    page.wait_for_function("document.querySelector('.dt-play').textContent.includes('Play')")
    words = ask(page, trace, f"return {json.dumps([trace['budgets'][0]['spent'][b] for b in sides])}.map(T.macs)")
    assert [row[0] for row in shown(page)] == [f"{w} MACs" for w in words]
    assert painted(page) != before


@in_browser
def test_the_viewer_reads_the_same_gates_and_bills_as_python(site, visit):
    page = visit(site.page("sums", site.show(smallest())))
    for kind in KINDS:
        trace = trace_of(kind)
        rest = np.array([b["spent"] for b in trace["budgets"]])
        found = ask(
            page,
            trace,
            """const all = (f) => show.budgets.map((_, v) => show.inputs.map((_, b) => f(v, b)));
            return { bills: all(show.bill), gates: show.decisions.map(d =>
                all((v, b) => Array.from({ length: d.n }, (_, i) => d.value(v, b, i)))) }""",
        )
        for d, seen in zip(trace["decisions"], found["gates"], strict=True):
            gate = traces.read_gates(d["gate"]).astype(float)
            np.testing.assert_allclose(np.reshape(seen, gate.shape), gate)
            gate = np.ones_like(gate) if d["kind"] == "weights" else gate  # mixing skips nothing
            rest = rest - (gate * np.broadcast_to(d["macs"], gate.shape)).reshape(*rest.shape, -1).sum(2)
        for v, b in np.ndindex(rest.shape):
            bill, spent = found["bills"][v][b], trace["budgets"][v]["spent"][b]
            assert not bill["scaled"]
            assert bill["fixed"] == pytest.approx(rest[v, b])
            assert bill["fixed"] + sum(bill["costs"]) == pytest.approx(spent)
            assert bill["upto"][-1] == spent
            assert bill["upto"] == sorted(bill["upto"])
            assert len(bill["upto"]) == 1 + traces.beats(trace)


@in_browser
def test_prices_that_exceed_the_bill_are_scaled_to_it_and_said(site, visit):
    trace = smallest()
    trace["decisions"][0]["macs"] = 40  # input 1 ran it, yet spent only 15
    page = visit(site.page("scaled", site.show(trace)))
    assert shown(page)[1][0] == "15 MACs"
    assert "prices interact: scaled to the bill" in page.locator(".dt-legend").nth(1).inner_text()
    assert "prices interact" not in page.locator(".dt-legend").nth(0).inner_text()


@in_browser
def test_words_for_numbers(site, visit):
    page = visit(site.page("numbers", site.show(smallest())))
    said = ask(page, smallest(), "return [0, 999, 1000, 1234, 99960, 999999, 1234567, 2.5e9, 3e12].map(T.macs)")
    assert said == ["0", "999", "1.00 k", "1.23 k", "100 k", "1.00 M", "1.23 M", "2.50 G", "3.00 T"]


@in_browser
def test_an_exit_is_a_door_and_what_follows_is_ghosted(site, visit):
    page = visit(site.page("exit", site.show(trace_of("exit"))))
    easy = page.locator(".dt-side").first
    states = [re.search(r"dt-is-(\w+)", li.get_attribute("class")).group(1) for li in easy.locator(".dt-item").all()]
    assert states == ["left", "ghost", "ghost", "ghost"]
    assert re.fullmatch(r"Left at exit 1 of 4 after 470 k MACs, 23% of full\.", shown(page)[0][2])
    assert [p.inner_text() for p in page.locator(".dt-side").nth(1).locator(".dt-price").all()] == [
        "310 k",
        "403 k",
        "524 k",
        "681 k",
    ]  # each stage's own price, though the file has the price of leaving
    assert easy.locator(".dt-arrow").first.is_visible()
    assert not easy.locator(".dt-arrow").nth(1).is_visible()
    page.get_by_label("Depth").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")  # easy is done, hard still computes
    assert easy.locator(".dt-judged").inner_text() == "✓ correct"
    assert page.locator(".dt-judged").nth(1).inner_text() == "computing"


@in_browser
def test_the_mask_lies_over_the_picture_and_follows_the_pointer(site, visit):
    page = visit(site.page("pixel", site.show(trace_of("pixel"))))
    hard = page.locator(".dt-side").nth(1)
    veil = hard.locator(".dt-veil")
    last = veil.get_attribute("d")
    assert hard.locator(".dt-mask-name").inner_text() == "mask of conv 5"
    hard.locator(".dt-unit").first.hover()
    assert hard.locator(".dt-mask-name").inner_text() == "mask of conv 1"
    assert veil.get_attribute("d") != last
    page.mouse.move(1, 1)
    assert veil.get_attribute("d") == last
    gate = traces.read_gates(trace_of("pixel")["decisions"][4]["gate"])[2, -1, 0]
    assert last.count("M") == (gate == 0).sum()  # one veiled cell per pixel left out
    assert hard.locator(".dt-box").first.is_visible()
    page.get_by_label("show where the information is").uncheck()
    assert not hard.locator(".dt-box").first.is_visible()


@in_browser
def test_dropped_words_fade(site, visit):
    trace = trace_of("token")
    page = visit(site.page("token", site.show(trace)))
    gone = [w.inner_text() for w in page.locator(".dt-side").first.locator(".dt-gone").all()]
    v = len(trace["budgets"]) // 2
    kept = np.min([traces.read_gates(d["gate"])[v, 0] for d in trace["decisions"]], axis=0)
    assert gone == [w for w, k in zip(trace["inputs"][0]["data"], kept, strict=False) if not k]
    assert gone
    lengths = {len(x["data"]) for x in trace["inputs"]}
    for side in page.locator(".dt-side").all():  # no more than it has words
        labels = [unit.get_attribute("aria-label") for unit in side.locator(".dt-unit").all()]
        words = side.locator(".dt-token").count()
        assert words in lengths
        assert labels and all(f" of {words} token" in label for label in labels), labels


@in_browser
def test_glimpses_are_numbered_in_order_and_joined(site, visit):
    trace = trace_of("places")
    page = visit(site.page("places", site.show(trace)))
    side = page.locator(".dt-side").first
    page.get_by_label(re.compile("^Budget")).fill("3")
    at = traces.read_gates(trace["decisions"][0]["at"])[3, 0]  # [6, 4]
    height, width = trace["inputs"][0]["shape"][1:]
    for beat in (2, 6):
        depth_of(page).fill(str(beat))
        assert [t.text_content() for t in side.locator(".dt-order-text").all()] == list("123456"[:beat])
        boxes = [[float(r.get_attribute(k)) for k in ("x", "y", "width", "height")]
                 for r in side.locator(".dt-place").all()]
        wanted = [[x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height] for x0, y0, x1, y1 in at[:beat]]
        np.testing.assert_allclose(boxes, wanted, atol=1e-6)
        way = [tuple(map(float, p.split(","))) for p in side.locator(".dt-way").last.get_attribute("points").split()]
        middle = [((x0 + x1) * width / 2, (y0 + y1) * height / 2) for x0, y0, x1, y1 in at[:beat]]
        np.testing.assert_allclose(way, middle, atol=0.01)
        assert side.locator(".dt-mask-name").inner_text() == f"glimpses: {beat} of 6"
    assert "glimpses: 6 of 6" in side.locator(".dt-scene").get_attribute("aria-label")
    assert "6 of 6 glimpses: centre, " in side.locator(".dt-unit").get_attribute("aria-label")


@in_browser
def test_patches_fade_layer_by_layer_and_the_class_token_stands_apart(site, visit):
    trace = trace_of("patches")
    page = visit(site.page("patches", site.show(trace)))
    side = page.locator(".dt-side").first
    v = len(trace["budgets"]) // 2
    gates = [traces.read_gates(d["gate"])[v, 0] for d in trace["decisions"]]
    for layer in (2, 6):
        depth_of(page).fill(str(layer))
        now = gates[layer - 1][1:]
        paths = {re.search(r"dt-veil-(\d)", p.get_attribute("class")).group(1): p.get_attribute("d").count("M")
                 for p in side.locator(".dt-veil").all()}
        gone = np.sum([1 - g[1:] for g in gates[:layer]], axis=0)[now == 0] / 6
        strengths = np.maximum(1, np.floor(4 * gone + 0.5)).astype(int)
        assert paths == {str(s): int((strengths == s).sum()) for s in set(strengths)}
        assert side.locator(".dt-mask-name").inner_text() == f"block {layer}: {now.sum()} of 64, class token on"
    assert len(paths) > 1
    unit = side.locator(".dt-unit").nth(1)
    grid = unit.locator(".dt-grid").bounding_box()
    page.mouse.move(grid["x"] + 1, grid["y"] + 1)
    assert "class token: kept" in page.locator(".dt-tip").inner_text()
    page.mouse.move(grid["x"] + grid["width"] - 1, grid["y"] + grid["height"] - 1)
    assert "patch 64: dropped" in page.locator(".dt-tip").inner_text()


@in_browser
def test_frames_show_which_were_looked_at_and_in_what_order(site, visit):
    trace = trace_of("film")
    page = visit(site.page("film", site.show(trace)))
    hard = page.locator(".dt-side").nth(1)
    order = (4, 0, 9, 2, 7, 5, 1, 8, 3, 6)
    looked = int(traces.read_gates(trace["decisions"][0]["gate"])[1, -1].sum())
    for beat in (1, 3, 10):
        depth_of(page).fill(str(beat))
        wanted = {frame: str(k + 1) for k, frame in enumerate(order[: min(beat, looked)])}
        assert [f.inner_text() for f in hard.locator(".dt-frame-order").all()] == [wanted.get(t, "") for t in range(10)]
        assert hard.locator(".dt-seen").count() == len(wanted)
    dim = hard.locator(".dt-frame-cell:not(.dt-seen) canvas").first.evaluate("n => getComputedStyle(n).opacity")
    assert float(dim) < 0.5
    assert "in this order: 5, 1, 10, 3" in hard.locator(".dt-unit").get_attribute("aria-label")
    assert page.locator(".dt-side").first.locator(".dt-judged").inner_text() in ("✓ correct", "✗ wrong")
    depth_of(page).fill("2")  # the easy one stopped after its first frame, the hard one goes on
    assert [s.locator(".dt-verdict").get_attribute("class").endswith("dt-open") for s in page.locator(".dt-side").all()
            ] == [False, True]


@in_browser
def test_words_are_read_skipped_or_still_to_come(site, visit):
    trace = trace_of("steps")
    page = visit(site.page("steps", site.show(trace)))
    side = page.locator(".dt-side").first
    gate = traces.read_gates(trace["decisions"][0]["gate"])[1, 0]
    said = trace["inputs"][0]["data"]
    depth_of(page).fill("30")
    for mark, there in (("read", gate[:30] == 1), ("passed", gate[:30] == 0)):
        assert [w.inner_text() for w in side.locator(f".dt-{mark}").all()] == [said[i] for i in np.flatnonzero(there)]
    assert side.locator(".dt-later").count() == 34
    assert side.locator(".dt-reading").inner_text() == said[29]
    assert side.locator(".dt-mask-name").inner_text().startswith(f"read {gate[:30].sum()} of 30 words: {said[0]}")
    depth_of(page).fill("64")
    assert side.locator(".dt-later").count() == side.locator(".dt-reading").count() == 0
    informs = [w.evaluate("n => getComputedStyle(n, '::after').opacity") for w in side.locator(".dt-token").all()]
    assert [float(x) for x in informs] == trace["inputs"][0]["informative"]
    page.get_by_label("show where the information is").uncheck()
    assert side.locator(".dt-token").nth(int(np.argmax(trace["inputs"][0]["informative"]))).evaluate(
        "n => getComputedStyle(n, '::after').display") == "none"


@in_browser
def test_a_long_text_scrolls_by_keyboard_and_follows_the_play(site, visit):
    page = visit(site.page("long", site.show(synthetic.steps(words=160))))
    assert axe(page) == []
    words = page.get_by_role("group", name="Words of input 1")
    depth_of(page).fill("1")
    words.focus()
    page.keyboard.press("End")
    page.wait_for_function("(n => n.scrollTop > 20 && n.scrollTop + n.clientHeight >= n.scrollHeight - 1)"
                           "(document.activeElement)")
    depth_of(page).fill("2")
    inside = """n => { const a = n.getBoundingClientRect(), b = n.querySelector('.dt-reading').getBoundingClientRect();
        return b.top >= a.top && b.bottom <= a.bottom; }"""
    for beat in (2, 90, 159):
        depth_of(page).fill(str(beat))
        page.wait_for_function(f"({inside})(document.querySelector('.dt-words'))")


@in_browser
def test_pondering_stands_under_the_words(site, visit):
    trace = trace_of("ponder")
    page = visit(site.page("ponder", site.show(trace)), reduced_motion="reduce")
    side = page.locator(".dt-side").nth(1)
    count = traces.read_gates(trace["decisions"][0]["gate"])[1, -1].sum(1)  # [40]
    heights = [b.evaluate("n => parseFloat(n.style.height)") for b in side.locator(".dt-ponder").all()]
    assert heights == [10 * c for c in count]
    assert f"{trace['inputs'][-1]['data'][count.argmax()]}" in side.locator(".dt-mask-name").inner_text()
    assert side.locator(".dt-judged").inner_text().startswith("48% correct")  # an answer in parts
    assert page.locator(".dt-side").first.locator(".dt-judged").inner_text() == "✓ correct"


@in_browser
def test_mixed_weights_are_bars_and_there_is_no_budget_to_turn(site, visit):
    trace = trace_of("mixture")
    page = visit(site.page("mixture", site.show(trace)))
    assert not page.get_by_label(re.compile("^Budget")).is_visible()
    assert page.locator(".dt-curve").count() == 0
    weight = traces.read_gates(trace["decisions"][0]["gate"])[0, 0]
    unit = page.locator(".dt-side").first.locator(".dt-unit").first
    tops = re.findall(r"V([\d.]+)h-0.8z", unit.locator(".dt-level-4").get_attribute("d"))
    np.testing.assert_allclose(1 - np.array(tops, float), weight, atol=1e-3)
    said = ", ".join(f"{w:.2f}" for w in weight)
    assert f"mixes 4 sets of weights: {said}; most of number {weight.argmax() + 1}" in unit.get_attribute("aria-label")
    assert shown(page)[0][2].startswith("Mixed 24 sets of weights")


@in_browser
def test_the_chosen_input_is_in_view_in_its_strip(site, visit):
    trace = trace_of("steps")
    page = visit(site.page("strip", site.show(trace)), viewport={"width": 390, "height": 844})
    inside = """s => { const a = s.getBoundingClientRect(), b = s.querySelector(':checked').parentNode
        .getBoundingClientRect(); return b.left >= a.left - 1 && b.right <= a.right + 1; }"""
    strips = page.locator(".dt-strip").all()
    assert all(strip.evaluate(inside) for strip in strips)
    page.locator("input[type=radio]").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert strips[0].evaluate(inside)


@in_browser
def test_pointer_and_focus_tell_name_price_and_state(site, visit):
    page = visit(site.page("expert", site.show(trace_of("expert"))))
    unit, tip = page.locator(".dt-side").nth(1).locator(".dt-unit").nth(1), page.locator(".dt-tip")
    assert not tip.is_visible()
    unit.locator(".dt-grid").hover()
    assert re.search(
        r"Harder input, experts 2: 4 of 8 experts per token, busiest is expert \d; 1\.32 M of 2\.64 M MACs",
        page.get_by_role("status").inner_text(),
    )
    assert re.search(r"token \d+ “\w+”, expert \d: (on|off)", tip.inner_text())
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.mouse.move(1, 1)
    page.locator(".dt-unit").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("experts 2: ")
    assert "Easier input, experts 2" in page.get_by_role("status").inner_text()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")  # a unit also is a place to scrub to
    assert page.locator(".dt").get_attribute("data-step") == "1"


@in_browser
def test_tab_visits_every_control_in_reading_order(site, visit):
    page = visit(site.page("layer", site.show(trace_of("layer"))))
    seen = []
    for _ in range(9):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("""(() => { const a = document.activeElement;
            return a.className || a.type + (a.name ? ' ' + a.name.split('-')[1] : ''); })()""")
        )
    assert seen == [
        "dt-button dt-play",
        "dt-button",
        "dt-range",
        "dt-range",
        "radio left",
        "dt-unit",
        "radio right",
        "dt-unit",
        "checkbox",
    ]


@in_browser
def test_choosing_another_input_by_keyboard_and_resetting(site, visit):
    page = visit(site.page("layer", site.show(trace_of("layer"))))
    before = shown(page)
    page.locator("input[type=radio]").first.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_label("Depth").focus()
    page.keyboard.press("Home")
    assert page.locator("input[type=radio]:checked").first.get_attribute("value") == "1"
    assert shown(page) != before
    page.get_by_role("button", name="Reset").click()
    assert shown(page) == before
    page.locator(".dt-side").first.locator(".dt-thumb").last.click()  # the same input on both sides
    assert [t.inner_text() for t in page.locator(".dt-side-title").all()] == ["Left input", "Right input"]
    assert shown(page)[0] == shown(page)[1]


@in_browser
def test_play_can_be_paused(site, visit):
    page = visit(site.page("layers", site.show(synthetic.layer(blocks=24))))
    page.locator(".dt-play").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("Number(document.querySelector('.dt').dataset.step) >= 3")
    page.keyboard.press("Enter")
    paused = page.locator(".dt").get_attribute("data-step")
    page.wait_for_timeout(900)  # more than one step of playing
    assert page.locator(".dt").get_attribute("data-step") == paused
    assert int(paused) < 24
    assert page.locator(".dt-play").inner_text() == "▶ Play"


@in_browser
def test_two_theatres_are_independent(site, visit):
    page = visit(site.page("two", site.show(trace_of("layer")), site.show(trace_of("layer"))))
    page.wait_for_function("document.querySelectorAll('.dt').length === 2")
    one, two = page.locator(".dt").all()
    before = two.inner_text()
    one.get_by_label(re.compile("^Budget")).fill("0")
    one.locator("input[type=radio]").nth(3).check(force=True)
    one.get_by_label("Depth").fill("2")
    assert one.get_attribute("data-budget") == "0"
    assert two.inner_text() == before
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(n => n.id)")
    assert len(set(ids)) == len(ids) > 0


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", [*synthetic.MAIN, *synthetic.PAPERS])
def test_axe_finds_nothing(kind, scheme, site, visit):
    page = visit(site.page(kind, site.show(trace_of(kind))), color_scheme=scheme, reduced_motion="reduce")
    assert axe(page) == []
    if not trace_of(kind)["decisions"]:
        return
    depth_of(page).fill("1")  # with parts not yet played
    page.locator(".dt-unit").first.focus()
    assert axe(page) == []


@in_browser
@pytest.mark.parametrize(("scheme", "theme"), [("light", "dark"), ("dark", "light")])
def test_the_theme_of_the_page_wins_over_the_system(scheme, theme, site, visit):
    page = visit(site.page("theme", site.show(smallest())), color_scheme=scheme)
    paper = "getComputedStyle(document.querySelector('.dt')).backgroundColor"
    system = page.evaluate(paper)
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    assert page.evaluate(paper) != system
    page.evaluate(f"document.documentElement.dataset.theme = '{scheme}'")
    assert page.evaluate(paper) == system


@in_browser
@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_does_not_scroll_sideways(kind, site, visit):
    page = visit(site.page(kind, site.show(trace_of(kind))), viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for part in (".dt-side", ".dt-play", ".dt-range:visible", ".dt-bar"):
        for found in page.locator(part).all():
            box = found.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390


@in_browser
def test_reduced_motion_is_respected(site, visit):
    page = visit(site.page("still", site.show(trace_of("layer"))), reduced_motion="reduce")
    moving = """[...document.querySelectorAll('.dt *')]
        .filter(n => getComputedStyle(n).transitionDuration !== '0s').length"""
    assert page.evaluate(moving) == 0
    page = visit(site.page("still", site.show(trace_of("layer"))), reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


@in_browser
def test_a_hostile_trace_is_only_text(site, visit):
    page = visit(site.page("hostile", site.show(hostile())))
    assert page.evaluate("window.broken") is None
    assert page.locator(".dt-title").inner_text() == HOSTILE
    assert page.locator(".dt img, .dt script").count() == 0
    page.get_by_label(re.compile("^Budget")).fill("0")
    page.locator(".dt-unit").first.hover()
    assert HOSTILE in page.locator(".dt-tip").inner_text()
    assert page.evaluate("window.broken") is None


@in_browser
def test_a_broken_trace_is_refused_by_field_in_the_viewer(site, visit):
    page = visit(site.page("fine", site.show(smallest())))
    for change, field in BROKEN.values():
        trace = smallest()
        change(trace)
        said = page.evaluate(
            """async t => { const T = await import('./theatre.js');
            const el = document.createElement('div');
            document.querySelector('main').append(el); const { error } = T.mount(el, t);
            return [el.querySelector('[role=alert]').innerText, error.field]; }""",
            trace,
        )
        assert field in said[0]
        assert said[0].startswith("This trace cannot be played.")
    for odd in (None, 3, "x", []):
        assert "trace: should be an object" in page.evaluate(
            """async t => { const T = await import('./theatre.js');
            const el = document.createElement('div'); T.mount(el, t); return el.textContent; }""",
            odd,
        )
    said = page.evaluate(
        """async t => { const T = await import('./theatre.js');
        const el = document.createElement('div');
        t.budgets[0].spent[1] = NaN; T.mount(el, t); return el.textContent; }""",
        smallest(),
    )
    assert "budgets[0].spent[1]: should be a finite number, is NaN" in said


@in_browser
def test_a_later_version_is_named(site, visit):
    page = visit(
        site.page(
            "later",
            '<div class="dyn-theatre"><script type="application/json">{"format": "dynnotes.trace/2"}</script></div>',
            site.show(smallest()),
        )
    )
    assert "this file is dynnotes.trace/2, this viewer reads dynnotes.trace/1" in page.get_by_role("alert").inner_text()
    page.wait_for_selector(".dt-title")  # the next theatre plays on
    assert axe(page) == []


EDGES = {
    "no decisions": lambda: smallest(decisions=[]),
    "one budget": lambda: smallest(
        budgets=smallest()["budgets"][:1],
        decisions=[{"name": "block", "kind": "layer", "macs": 5, "gate": traces.record_gates([[0, 0]])}],
    ),
    "one input": lambda: smallest(
        inputs=smallest()["inputs"][:1],
        decisions=[],
        budgets=[{"value": v, "spent": [v], "correct": [1], "predicted": ["yes"]} for v in (1, 2)],
    ),
    "200 decisions": lambda: synthetic.layer(blocks=200),
    "a minor version": lambda: smallest(format="dynnotes.trace/1.7"),
    "a soft layer": lambda: smallest(
        decisions=[{"name": "block", "kind": "layer", "macs": 5, "gate": traces.record_gates([[0.2, 0.9], [0.4, 1]])}]
    ),
    "many units": lambda: smallest(
        decisions=[
            {"name": "wide", "kind": "channel", "macs": 0.01, "gate": traces.record_gates(np.ones((2, 2, 2048)))}
        ]
    ),
    "an RGB picture": lambda: smallest(
        inputs=[traces.image(np.random.default_rng(0).random((3, 4, 6))) for _ in range(2)]
    ),
    "no words": lambda: smallest(inputs=[traces.tokens([]), traces.tokens(["a"])]),
}


@in_browser
@pytest.mark.parametrize("edge", EDGES)
def test_edges_are_drawn_and_played(edge, site, visit):
    trace = EDGES[edge]()
    page = visit(site.page("edge", site.show(traces.check(trace))))
    box = page.locator(".dt").bounding_box()
    assert box["height"] <= 560
    assert axe(page) == []
    last = len(trace["budgets"]) - 1
    page.get_by_label(re.compile("^Budget")).evaluate(
        f"n => {{ n.value = {last}; n.dispatchEvent(new Event('input')); }}"
    )  # disabled where there is only one
    spent = [trace["budgets"][-1]["spent"][b] for b in (0, len(trace["inputs"]) - 1)]
    words = ask(page, trace, f"return {json.dumps(spent)}.map(T.macs)")
    assert [row[0] for row in shown(page)] == [f"{w} MACs" for w in words]
    if trace["decisions"]:
        page.get_by_label("Depth").fill("0")
        page.get_by_role("button", name="Play").click()
        page.wait_for_selector(f'.dt[data-step="{len(trace["decisions"])}"]')
    else:
        assert "runs the whole network" in page.locator(".dt-empty").first.inner_text()
        assert page.get_by_role("button", name="Play").is_disabled()


@in_browser
def test_the_widget_of_a_live_notebook_listens_and_speaks(site, visit):
    page = visit(site.page("live", site.show(smallest())))
    said = page.evaluate(
        """async trace => {
        const { default: widget } = await import('./theatre.js');
        const state = { trace, budget: -1, step: -1, left: -1, right: -1 }, heard = {}, saved = [];
        const model = { get: k => state[k], set: (k, v) => { state[k] = v; }, on: (e, f) => { heard[e] = f; },
            off: e => { delete heard[e]; }, save_changes: () => saved.push({ ...state, trace: 0 }) };
        const el = document.createElement('div');
        document.querySelector('main').replaceChildren(el);
        const leave = widget.render({ model, el });
        const out = [saved.at(-1)];
        const budget = el.querySelectorAll('input[type=range]')[1];
        budget.value = 0; budget.dispatchEvent(new Event('input'));
        out.push(saved.at(-1).budget);                                      // the reader turned it
        state.budget = 1; heard['change:budget']();
        out.push(el.querySelector('.dt').dataset.budget);                   // the notebook turned it
        state.trace = { ...trace, method: 'Another' }; heard['change:trace']();
        out.push(el.querySelector('.dt-title').textContent);
        leave();
        out.push(el.children.length, Object.keys(heard).length);
        return out; }""",
        smallest(),
    )
    assert said == [{"trace": 0, "budget": 1, "step": 1, "left": 0, "right": 1}, 0, "1", "Another", 0, 0]


@in_browser
def test_the_host_plays_what_a_notebook_left_on_the_page(site, visit):
    """Widget state as myst-nb embeds it: one model with two views, a widget that fails, one of another library."""
    from dynnotes.show.widgets.theatre import Theatre

    widget = Theatre(trace_of("exit"))
    kept = {k: v for k, v in widget.get_state().items() if isinstance(v, (str, int, dict, list))}
    broken = "export default { render() { throw new Error('no') } }"
    states = {
        "a": {"model_module": "anywidget", "state": kept},
        "bad": {"model_module": "anywidget", "state": {"_esm": broken}},
        "else": {"model_module": "@jupyter-widgets/controls", "state": {}},
    }
    assert "_esm" in kept
    assert "_css" in kept
    embedded = json.dumps({"version_major": 2, "version_minor": 0, "state": states}).replace("<", "\\u003c")
    views = "".join(
        f'<script type="application/vnd.jupyter.widget-view+json">{json.dumps({"model_id": m})}</script>'
        for m in ("bad", "a", "a", "else")
    )
    kept_on = f'<script type="application/vnd.jupyter.widget-state+json">{embedded}</script>'
    quiet = "<script>console.error = () => {}</script>"  # the broken one also reports there
    page = visit(site.page("notebook", quiet, kept_on, views))
    page.wait_for_function("document.querySelectorAll('.dt').length === 2")
    assert "could not start: no" in page.get_by_role("alert").inner_text()
    one, two = page.locator(".dt").all()
    one.get_by_label(re.compile("^Budget")).fill("0")
    assert two.get_attribute("data-budget") == "0"  # two views of one model agree
    assert one.locator(".dt-bar").first.evaluate("n => getComputedStyle(n).height") == "12px"


@in_browser
def test_a_page_opened_by_double_click_plays(site, visit):
    site.page("double", site.show(trace_of("pixel")))
    page = visit((site.folder / "double.html").as_uri())
    page.get_by_label(re.compile("^Budget")).fill("0")
    assert page.locator(".dt").get_attribute("data-budget") == "0"
    assert page.locator(".dt-bar").first.evaluate("n => getComputedStyle(n).height") == "12px"
