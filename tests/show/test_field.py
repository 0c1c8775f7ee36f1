"""The field as data and plain HTML, from two small results worked out by hand, and text that stays text."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dynnotes
from dynnotes.learn import evidence
from dynnotes.show import field
from dynnotes.show.claims import VERDICT

ROOT = Path(__file__).parents[2]
KB = dynnotes.load()
GATED, SPARSE = KB["veit2018convolutional"], KB["shazeer2017outrageously"]
EVIL = '</script><script>x</script> <img src=x onerror="x"> & ]]> `'
HALF = 4.302652729911275 * 0.01 / math.sqrt(3)  # 95% interval of three values 0.01 apart: t, 2 degrees


def run(seed, budget, accuracy, macs):
    return {"seed": seed, "budget": budget, "accuracy": accuracy, "macs_claimed": macs, "macs_executed": macs,
            "hard_correlation": None}  # fmt: skip


def result(paper, runs, **more):
    stage = {"epochs": 2, "lr": 0.1, "optimizer": "sgd", "weight_decay": 0.0, "batch": 5, "settings": {}}
    return {"format": "dynnotes.results/1", "paper": paper.key, "task": "canvas-digits",
            "recipe": {"net": "Net", "samples": 10, "test_samples": 5, "epochs": 2, "stages": [stage]},
            "budget": {"name": "threshold", "cheaper": "higher", "retrain": False}, "params": 10, "full": 4000.0,
            "runs": runs, "receipts": [], "static": None,
            "versions": {"python": "3.11.2", "torch": "2.13.0", "dynnotes": "0.1.0"}, "date": "2026-01-02",
            "commit": None, "command": "dynnotes train x", "source_hash": "0" * 16} | more  # fmt: skip


def static(*nets, seeds=3):
    """Runs of (name, MACs, parameters, accuracy of seed 0), each further seed 0.01 better."""
    return [{"net": net, "macs": macs, "params": params, "accuracy": accuracy + 0.01 * seed, "seed": seed, "epochs": 2}
            for net, macs, params, accuracy in nets for seed in range(seeds)]  # fmt: skip


TWO = static(("small", 1000.0, 5, 0.80), ("big", 4000.0, 20, 0.84))


REFERENCE = {"net": "big", "source_hash": "1" * 16}


def clock(*rows, reference=REFERENCE):
    return {"reference": reference, "inputs": 64, "rounds": 9, "rows": list(rows), "date": "2026-01-02", "commit": None,
            "versions": {"python": "3.11.2", "torch": "2.13.0", "dynnotes": "0.1.0"}, "command": "x"}  # fmt: skip


def timed(budget, batch, sparse, dense, noise=1.0):
    """A row beside a reference that took 3 ms in its process; quartiles a tenth away."""
    return {"budget": budget, "batch": batch, "macs": 9.0, "reference_ms": 3.0, "noise": noise, "void": noise > 1.05,
            "sparse": [sparse, 0.9 * sparse, 1.1 * sparse], "dense": [dense, dense, dense]}  # fmt: skip


def timed_net(net, batch, ratio, ms, noise=1.0):
    return {"net": net, "batch": batch, "reference_ms": ms, "ratio": [ratio, 0.9 * ratio, 1.1 * ratio],
            "noise": noise, "void": noise > 1.05}  # fmt: skip


STATIC_CLOCK = clock(timed_net("small", 1, 0.5, 2.1), timed_net("big", 1, 1.0, 2.0),  # 1 is 2 ms, one by one
                     timed_net("small", 32, 0.25, 0.5, 1.2), timed_net("big", 32, 1.0, 0.4))  # fmt: skip


@pytest.fixture
def checkout(tmp_path):
    """A method with two budgets, static nets, a receipt and a recording, and one with a single run on its own task."""
    receipt = {"batch": 1, "full": 800.0, "needed": 200.0, "claimed": 200.0, "executed": 200.0, "issued": None,
               "ms_dense": 2.0, "ms_sparse": 1.0, "time_ratio": 0.5, "time_spread": [0.4, 0.6], "noise": 1.0,
               "void": False}  # fmt: skip
    runs = [run(s, b, a + 0.01 * s, m) for s in range(3) for b, a, m in ((0.1, 0.93, 2000.0), (0.5, 0.90, 1000.0))]
    gated = result(GATED, runs, receipts=[receipt, {**receipt, "batch": 32, "void": True}],
                   static={"file": "static-canvas-digits.json", "epochs": 2},
                   source_hash=evidence.hash_of(GATED.key, "canvas-digits"),
                   clock=clock(timed(0.1, 1, 1.5, 2.0), timed(0.5, 1, 0.75, 2.0), timed(0.1, 32, 0.8, 1.0),
                               timed(0.5, 32, 0.6, 1.0, noise=1.3)))  # fmt: skip
    alone = result(SPARSE, [run(0, None, 0.7, 900.0)], budget=None, task="parity")
    evidence.write_json(gated, tmp_path / "results" / f"{GATED.key}.json")
    evidence.write_json(alone, tmp_path / "results" / f"{SPARSE.key}.parity.json")
    evidence.write_json({"format": "dynnotes.static/1", "runs": TWO, "clock": STATIC_CLOCK},
                        tmp_path / "results/static-canvas-digits.json")  # fmt: skip
    evidence.write_json({}, tmp_path / "assets" / "traces" / f"{GATED.key}.json")
    return tmp_path


def near(*values):
    return pytest.approx(values)


# ---------------------------------------------------------------- the static frontier


def test_the_frontier_and_its_interval_by_hand():
    line = field.frontier(TWO)
    assert len(line) == field.STEPS + 1
    assert line[0] == near(1000, 0.81, 0.81 - HALF, 0.81 + HALF)
    assert line[field.STEPS // 2] == near(2000, 0.83, 0.83 - HALF, 0.83 + HALF)  # half way over log MACs
    assert line[-1] == near(4000, 0.85, 0.85 - HALF, 0.85 + HALF)


def test_the_frontier_goes_on_flat_to_the_dearest_method_and_not_back():
    assert field.frontier(TWO, 9000)[-1] == near(9000, 0.85, 0.85 - HALF, 0.85 + HALF)
    assert field.frontier(TWO, 3000) == field.frontier(TWO)
    assert field.frontier([], 3000) == []


def test_the_frontier_over_parameters_takes_the_better_of_two_nets_of_one_size():
    line = field.frontier([*TWO, *static(("deep", 9000.0, 20, 0.90))], by="params")
    assert line[0] == near(5, 0.81, 0.81 - HALF, 0.81 + HALF)
    assert line[-1] == near(20, 0.91, 0.91 - HALF, 0.91 + HALF)


def test_the_frontier_never_falls_and_one_seed_has_no_interval():
    line = field.frontier(static(("small", 1000.0, 5, 0.8), ("worse", 2000.0, 9, 0.5), seeds=1))
    assert [row[1:] for row in line] == [[0.8, None, None]] * len(line)


# ---------------------------------------------------------------- the data of the plot


def test_every_figure_of_a_method_by_hand(checkout):
    data = field.field_data(KB, checkout)
    gated = next(m for m in data["methods"] if m["key"] == GATED.key)
    cheap, dear = gated["points"]
    assert (cheap["budget"], dear["budget"]) == (0.5, 0.1), "cheapest first"
    assert cheap["accuracy"] == near(0.91, 0.91 - HALF, 0.91 + HALF)
    assert cheap["macs"] == [1000, 1000, 1000]
    assert cheap["gain"] == near(0.1, 0.1, 0.1)
    assert dear["gain"] == near(0.11, 0.11, 0.11)
    assert gated["receipts"][0] == {"batch": 1, "share": 0.25, "time": [0.5, 0.4, 0.6], "ms": [2, 1], "void": False}
    assert gated["receipts"][1]["void"]
    assert gated["facets"] == {"unit": list(GATED.unit), "decision": list(GATED.decision), "adapts": list(GATED.adapts),
                               "training": list(GATED.training), "verdict": [gated["verdict"]]}  # fmt: skip
    assert gated["url"] == f"../papers/{GATED.key}.html"
    assert gated["trace"] == f"../papers/{GATED.key}.html#watch-it-decide"
    assert not gated["stale"]


def test_verdicts_are_those_of_the_evidence(checkout):
    for m in field.field_data(KB, checkout)["methods"]:
        path = checkout / "results" / f"{m['id']}.json"
        found = evidence.verdict(held := evidence.load_result(path), evidence.load_static(held, path.parent))
        assert m["verdict"] == VERDICT[found["verdict"]][0]
        assert m["said"] == [claim.text for claim in found["claims"]]


def test_a_single_run_has_no_interval_no_gain_no_receipt_and_is_stale(checkout):
    alone = next(m for m in field.field_data(KB, checkout)["methods"] if m["key"] == SPARSE.key)
    assert alone["points"] == [{"budget": None, "seeds": 1, "accuracy": [0.7, None, None], "macs": [900, None, None],
                                "gain": None, "times": []}]  # fmt: skip
    assert (alone["knob"], alone["trace"], alone["receipts"]) == ("", "", [])
    assert alone["stale"]


def test_tasks_with_most_methods_come_first_each_with_its_static_nets(checkout):
    evidence.write_json(result(KB["MobileNet"], [run(0, 0.1, 0.7, 9.0)], task="parity"), checkout / "results/z.json")
    data = field.field_data(KB, checkout)
    assert [task["name"] for task in data["tasks"]] == ["parity", "canvas-digits"]
    assert data["tasks"][0]["static"] == []
    (line,) = data["tasks"][1]["static"]
    assert [(net["net"], net["macs"], net["params"], net["seeds"]) for net in line["nets"]] == [
        ("small", 1000, 5, 3), ("big", 4000, 20, 3)]  # fmt: skip
    assert line["macs"] == field.frontier(TWO)
    assert line["params"] == field.frontier(TWO, by="params")
    assert data["batches"] == [1, 32]


def test_milliseconds_are_ratios_times_the_references_own(checkout):
    gated = next(m for m in field.field_data(KB, checkout)["methods"] if m["key"] == GATED.key)
    cheap, dear = gated["points"]
    assert [t["batch"] for t in cheap["times"]] == [1, 32]
    assert cheap["times"][0]["ms"] == near(1.5, 1.35, 1.65)  # 0.75 of 2 ms, whatever it took in its own process
    assert (cheap["times"][0]["dense"], cheap["times"][0]["ratio"]) == near(4.0, 0.75)
    assert dear["times"][1]["ms"] == near(0.32, 0.288, 0.352)  # 0.8 of 0.4 ms
    assert [t["void"] for t in cheap["times"]] == [False, True]
    assert cheap["times"][1]["noise"] == 1.3


def test_the_frontier_over_milliseconds_leaves_void_nets_out(checkout):
    (line,) = field.field_data(KB, checkout)["tasks"][0]["static"]
    assert line["reference"] == "big"
    assert line["ms"]["1"][0] == near(1.0, 0.81, 0.81 - HALF, 0.81 + HALF)  # half of 2 ms
    assert line["ms"]["1"][field.STEPS // 2][:2] == near(math.sqrt(2), 0.83)  # half way over log milliseconds
    assert line["ms"]["1"][-1][:2] == near(3.0, 0.85)  # flat on to the slowest method: 1.5 of 2 ms
    assert line["ms"]["32"] == [near(0.4, 0.85, 0.85 - HALF, 0.85 + HALF)]
    small, big = line["nets"]
    assert (small["times"][0]["ms"][0], big["times"][0]["ms"][0]) == near(1.0, 2.0)
    assert [t["void"] for t in small["times"]] == [False, True]
    assert "dense" not in small["times"][0]


def test_times_beside_another_reference_are_not_shown(checkout):
    path = checkout / "results" / f"{GATED.key}.json"
    held = evidence.load_result(path)
    for other in ({"net": "small"}, {"source_hash": "2" * 16}):
        evidence.write_json(held | {"clock": held["clock"] | {"reference": REFERENCE | other}}, path)
        gated = next(m for m in field.field_data(KB, checkout)["methods"] if m["key"] == GATED.key)
        assert [p["times"] for p in gated["points"]] == [[], []]


def test_facets_hold_the_words_in_use_alone_in_the_order_of_the_vocabulary(checkout):
    facets = field.field_data(KB, checkout)["facets"]
    for name in field.FACETS:
        used = {word for paper in (GATED, SPARSE) for word in field.words(paper, name)}
        assert list(facets[name].items()) == [(w, about) for w, about in KB.facets[name].items() if w in used]
    assert "not judged" in facets["verdict"]


def test_the_checkout_is_on_the_plot_whole(monkeypatch):
    monkeypatch.setattr(evidence, "is_stale", lambda result: False)  # it reads all code, and is tested elsewhere
    data = field.field_data(KB, ROOT)
    files = {p.name.removesuffix(".json") for p in (ROOT / "results").glob("*.json") if p.name[:7] != "static-"}
    assert {m["id"] for m in data["methods"]} == files
    for m in data["methods"]:
        held = evidence.load_result(ROOT / "results" / f"{m['id']}.json")
        assert len(m["points"]) == len({r["budget"] for r in held["runs"]})
    json.dumps(data, allow_nan=False)


# ---------------------------------------------------------------- the plain form


class Table(HTMLParser):
    """The cells of each row of all tables in a piece of HTML, as text, and all links."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.links, self.tags, self._in = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if tag == "a" and name == "href"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in = True

    def handle_endtag(self, tag):
        self._in = self._in and tag not in ("td", "th")

    def handle_data(self, text):
        if self._in:
            self.rows[-1][-1] += text


def test_the_plain_tables_say_the_same(checkout):
    table = Table(field.field_tables(field.field_data(KB, checkout)))
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    accuracy = f"91.0 % ({91 - 100 * HALF:.1f} % to {91 + 100 * HALF:.1f} %)"
    assert rows[GATED.method, "threshold 0.5"][:4] == [accuracy, "1 k", "25.0 %", "10"]
    assert rows[GATED.method, "threshold 0.5"][4:8] == [
        "1.50 (dense 4.00, noise 1.00)", "void (noise 1.30)", "0.50", "void"]  # fmt: skip
    assert rows[SPARSE.method, "–"][:8] == ["70.0 %", "900", "22.5 %", "10", "–", "–", "–", "–"]
    assert rows[SPARSE.method, "–"][8] == "not judged, stale"
    assert rows["static: big", "2 epochs"][1:6] == ["4 k", "100.0 %", "20", "2.00 (noise 1.00)", "0.400 (noise 1.00)"]
    assert set(table.links) == {f"../papers/{p.key}.html" for p in (GATED, SPARSE)}
    assert len(table.rows) == 2 + 3 + 2  # heads of two tables, three settings, two static nets


@pytest.mark.parametrize(("value", "told"), [(12.34, "12.3"), (1.0, "1.00"), (0.04567, "0.0457"), (123.4, "123"),
                                             (1234.0, "1234")])  # fmt: skip
def test_milliseconds_have_three_digits_that_count(value, told):
    assert field.milliseconds(value) == told


def test_the_sentence_counts(checkout):
    html = field.field_plot(KB, checkout)
    assert "2 papers measured here on 2 tasks at 3 settings: " in html
    assert "1 not judged" in html
    assert html.count('id="dyn-field"') == 1


def test_nothing_measured_is_said(tmp_path):
    assert field.field_plot(KB, tmp_path) == '<p class="dyn-lead">No method has been measured yet.</p>'


# ---------------------------------------------------------------- bad input


def test_hostile_names_stay_text(checkout):
    held = result(GATED, [run(0, 0.1, 0.7, 9.0)], task=EVIL, budget={"name": EVIL, "cheaper": "higher",
                                                                    "retrain": False})  # fmt: skip
    evidence.write_json(held, checkout / "results" / "evil.json")
    html = field.field_plot(KB, checkout)
    assert html.count("<script") == html.count("</script") == 1
    assert "`" not in re.sub(r"<script.*?</script>", "", html)
    data = json.loads(re.search(r"<script[^>]*>(.*?)</script>", html, re.S)[1])
    assert EVIL in [task["name"] for task in data["tasks"]]
    assert not {"img", "iframe"} & set(Table(html).tags)


def test_a_result_of_no_known_paper_is_named(checkout):
    held = evidence.load_result(checkout / "results" / f"{GATED.key}.json") | {"paper": "nobody2020x"}
    evidence.write_json(held, checkout / "results" / "nobody2020x.json")
    with pytest.raises(evidence.ResultError, match=r"nobody2020x\.json: paper: no entry of bib/ .* 'nobody2020x'"):
        field.field_data(KB, checkout)


def test_a_broken_file_is_named(checkout):
    (checkout / "results" / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(evidence.ResultError, match=r"broken\.json"):
        field.field_data(KB, checkout)
