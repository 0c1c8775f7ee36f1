"""Pages and figures of the book, without a browser: what is escaped, what is counted, what is said."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import dynnotes
from dynnotes import registry
from dynnotes.knowledge.query import Paper, Relation
from dynnotes.learn import evidence
from dynnotes.show import book, figures, pages, tables

ROOT = Path(__file__).parents[2]
KB = dynnotes.load()
EVIL = '</script><script>x</script> {{ 7*7 }} ``` {raw} <img src=x onerror="x"> $y$ [a](javascript:x) \n\n# head'


def evil(**more):
    fields = dict.fromkeys(("title", "method", "tldr", "headline", "venue", "doi", "eprint", "code", "status"), EVIL)
    return Paper(**{"key": "evil2024x", "type": "misc", "names": ((EVIL, EVIL),), "year": 2024, "kind": "method",
                    "taxon": "sample/depth", "aka": (EVIL,), "unit": (EVIL,), "decision": ("gating",),
                    "url": "javascript:alert(1)", "relations": (Relation("extends", EVIL, EVIL),), **fields, **more})


def test_a_hostile_paper_puts_no_markup_on_its_page():
    page = pages.paper_page(evil(), KB)
    blocks = re.findall(r"^(`{3,})\{raw\} html\n(.*?)^\1\n", page, re.S | re.M)
    inside = "".join(body for _, body in blocks)
    assert len(blocks) >= 3
    assert "<script" not in inside
    assert "<img" not in inside
    assert "href=\"javascript" not in inside
    outside = re.sub(r"^(`{3,})\{raw\} html\n.*?^\1\n", "", page, flags=re.S | re.M)
    heading = next(line for line in outside.split("\n") if line.startswith("# "))
    assert not re.search(r"(?<!\\)[<>`{}$\[\]]", heading), "an unescaped mark in the title"
    assert outside.count("\n# ") == 1


def test_the_map_of_a_hostile_paper_cannot_leave_its_script_element(monkeypatch):
    class Kb:
        facets, lists, nodes = KB.facets, KB.lists, KB.nodes

        def __iter__(self):
            return iter([evil(unit=("layer",))])

    html = pages.field_map(Kb(), {})
    data = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1]
    assert json.loads(data)["papers"][0]["title"] == EVIL
    assert html.count("<script") == 1


@pytest.mark.parametrize(("url", "safe"), [
    ("https://a.b/c?d=e&f", "https://a.b/c?d=e&amp;f"), ("../x/y.html#z", "../x/y.html#z"), ("javascript:x", "#"),
    ("JaVa\tScript:x", "#"), (" data:text/html,x", "#"), ("vbscript:x", "#"),
    ("http://x/\"onclick=", "http://x/&quot;onclick="),
])
def test_link_targets(url, safe):
    assert tables.attribute(url) == safe


def test_every_paper_says_what_it_is():
    sources = registry.sources()
    for paper in KB:
        page = pages.paper_page(paper, KB, source=sources.get(paper.key))
        assert pages.markdown(paper.title) in page
        if paper.key in sources:
            assert pages.YES in page
            assert sources[paper.key].name in page
            assert "not implemented" not in page
        elif paper.kind != "survey":
            assert ">planned<" in page or ">reference<" in page
        if not paper.status.startswith("checked"):
            assert "unconfirmed" in page
        for word in tables.words(paper, "decision"):
            assert f"?decision={word}" in page


def test_relations_are_shown_from_both_ends():
    for paper in KB:
        for relation in paper.relations:
            if relation.target in {other.key for other in KB}:
                there = pages.relations(KB[relation.target], KB)
                assert f'href="{paper.key}.html"' in there, (paper.key, relation)


def test_a_page_names_the_nearest_papers_and_why():
    html = pages.near(KB["ConvNet-AIG"], KB, 3)
    assert html.count("<li>") == 3
    nearest, why = next((p, why) for p, _, why in KB.relatives("ConvNet-AIG") if p.kind != "background")
    assert f'href="{nearest.key}.html"' in html
    assert pages.text(why[0]) in html
    assert all(pages.near(p, KB) in pages.paper_page(p, KB) for p in list(KB)[:3])


def test_the_plain_map_lists_each_paper_once():
    links = re.findall(r'href="\.\./papers/([^"]+)\.html"', pages.field_list(KB, {}))
    assert sorted(links) == sorted(paper.key for paper in KB)


def test_code_is_shown_whole_and_numbered():
    for source in registry.sources().values():
        shown = pages.code(source)
        first = int(re.search(r":lineno-start: (\d+)", shown)[1])
        lines = source.file.read_text(encoding="utf-8").split("\n")
        body = re.search(r":lineno-start: \d+\n\n(.*?)\n`{3,}\n$", shown, re.S)[1].split("\n")
        assert body == lines[first - 1 : first - 1 + len(body)]
        assert not any(lines[first - 1 + len(body) :]), "the end of the file is missing"
        assert pages.idea(source)


def result(seeds=3, **more):
    runs = [
        {"seed": s, "budget": b, "accuracy": 0.9 - 0.1 * b + 0.01 * s, "macs_claimed": 1e6 * (1 - b / 2),
         "macs_executed": 1e6 * (1 - b / 2), "hard_correlation": 0.4 + 0.01 * s}
        for s in range(seeds) for b in (0.2, 0.8)
    ]
    receipt = {"batch": 8, "full": 4e6, "needed": 2e6, "claimed": 2e6, "executed": 2e6, "issued": None, "ms_dense": 2.0,
               "ms_sparse": 1.5, "time_ratio": 0.75, "time_spread": [0.7, 0.8], "noise": 1.0, "void": False}
    stage = {"epochs": 1, "lr": 0.1, "optimizer": "sgd", "weight_decay": 0, "batch": 8, "settings": {}}
    made = {"format": "dynnotes.results/1", "paper": "veit2018convolutional", "task": "canvas-digits",
            "recipe": {"net": "<b>Net</b>", "samples": 10, "test_samples": 5, "epochs": 1, "stages": [stage]},
            "budget": {"name": "threshold", "cheaper": "higher", "retrain": False}, "params": 1234, "full": 1e6,
            "runs": runs,
            "receipts": [receipt, {**receipt, "batch": 1, "void": True}], "static": None,
            "versions": {"python": "3", "torch": "2", "dynnotes": "0"}, "date": "2026-01-01", "commit": None,
            "command": "dynnotes train <i>", "source_hash": "0" * 16}
    return evidence.check({**made, **more})


def test_results_are_computed_from_the_runs_and_escaped():
    html = pages.results_section(result(), stale=True)
    assert "<b>" not in html
    assert "<i>" not in html
    assert "stale" in html
    point = evidence.summary(result())[0]
    assert tables.percent(point.accuracy.mean) in html
    assert tables.percent(point.accuracy.low) in html
    assert "void" in html
    figure = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])
    assert figure["data"][0]["y"] == [p.accuracy.mean for p in evidence.summary(result())]


def test_one_seed_has_no_interval():
    html = pages.results_section(result(seeds=1))
    assert "one seed, so no interval" in html
    assert " to " not in re.sub(r"<script.*?</script>", "", html, flags=re.S).split("Receipt")[0].split("<table")[1]


def without_knob(executed=1e6, **more):
    runs = [{"seed": s, "budget": None, "accuracy": 0.9 + 0.01 * s, "macs_claimed": executed, "macs_executed": executed,
             "hard_correlation": None} for s in range(3)]
    return result(budget=None, runs=runs, **more)


@pytest.mark.parametrize(("executed", "said"), [(1e6, "nothing is saved"), (6e5, "follows from the input alone")])
def test_a_paper_without_a_knob_has_a_point_per_seed_and_says_so(executed, said):
    html = pages.results_section(without_knob(executed))
    words = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert "There is no knob to turn" in words
    assert said in words
    assert "None" not in words
    assert "the only one" in words
    figure = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])
    assert figure["data"][0]["y"] == [0.9, 0.91, 0.92]
    assert figure["data"][0]["text"] == ["seed 0", "seed 1", "seed 2"]
    assert figure["data"][0]["mode"] == "markers"
    assert 'at 3 seeds"' in html


def test_the_receipt_of_a_net_that_skips_nothing_is_one_number_and_two_times():
    receipt = result()["receipts"][0]
    same = {**receipt, "needed": 4e6, "claimed": 4e6, "executed": 4e6}
    html = pages.receipt_table([same])
    assert "Nothing is skipped" in html
    assert html.count("4 M") == 1
    assert "needed" not in html
    assert "1.5" in html
    assert "needed" in pages.receipt_table([receipt, same])


def test_each_task_of_a_paper_has_its_section(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "is_stale", lambda result: False)
    key = "veit2018convolutional"
    assert book._results(tmp_path, key) == ""
    evidence.write_json(result(), tmp_path / f"{key}.json")
    alone = book._results(tmp_path, key)
    assert alone == pages.results_section(result())
    evidence.write_json(result(task="another"), tmp_path / f"{key}.another.json")
    evidence.write_json(result(task="else"), tmp_path / f"{key}x.json")  # of another paper
    both = book._results(tmp_path, key)
    assert re.findall(r"<h3 [^>]*>On (.*?)</h3>", both) == ["canvas-digits", "another"]
    assert alone in both


def test_static_nets_are_drawn_beside():
    static = [{"net": net, "seed": seed, "epochs": 1, "macs": macs, "accuracy": 0.8 + macs / 1e7}
              for net, macs in (("a", 4e5), ("b", 9e5)) for seed in range(3)]
    html = pages.results_section(result(), static)
    figure = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])
    assert [trace["name"] for trace in figure["data"]] == ["<b>Net</b>", "static nets"]
    assert figure["data"][1]["x"] == [4e5, 9e5]


def test_the_times_of_the_trained_net_stand_beside_its_budgets():
    row = {"sparse": [2.0, 1.5, 3.0], "ms": 0.8, "ms_dense": 0.4, "noise": 1.01, "void": False}
    times = [row | {"budget": 0.9, "batch": 32, "void": True}, row | {"budget": 0.9, "batch": 1}]
    html = pages.results_section(result(), times=times)
    assert "Times of the trained net" in html
    assert "Times of the trained net" not in pages.results_section(result())
    assert html.count("0.8 <span class=\"dyn-muted\">(0.6 to 1.2)</span>") == 2
    alone = pages.time_table(times, "threshold")
    assert alone in html and alone.count("void:") == 1
    assert alone.index("void:") > alone.index("(0.6 to 1.2)")        # batch 1 comes first


def test_a_figure_says_what_it_shows():
    label = figures.label_of({"data": [{"type": "bar"}], "layout": {"title": {"text": "T"}, "xaxis": {"title": "x"}}})
    assert label == "T: x"
    assert figures.label_of({"data": [{"type": "bar"}]}) == "Chart (bar)"
    rich = {"layout": {"title": "T", "meta": {"aria": "Six bars, the third is the highest"}}}
    assert figures.label_of(rich) == "Six bars, the third is the highest"
    assert figures.label_of({"data": [], "layout": {"title": "T", "meta": "x"}}) == "T"
    assert figures.embed({"data": [{"name": "</script><b>"}]}, "x").count("</script>") == 1


def test_the_address_of_the_project_is_the_one_in_pyproject():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == urls["Repository"]
    assert config["html"]["baseurl"].rstrip("/") == urls["Book"].rstrip("/")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["repository-code"] == urls["Repository"]
    assert citation["url"] == urls["Book"]
