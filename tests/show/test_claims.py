"""The card of a claim: what a docstring says, how it is shown, and the table of verdicts."""

import re

import pytest

import dynnotes
from dynnotes import registry
from dynnotes.learn import evidence
from dynnotes.show import claims, pages

from .test_pages import result

DOC = """One sentence.

$$y = x$$

Claim: half of the steps suffice, 50% of
1.85 M MACs (table 1). Read: the abstract. Smallest setting: needles and
one GRU; the recipe is this setting.

Left out: drawing $u_t$ at random, `clip`. Different: the order. Added: a knob."""
SOURCES = registry.sources()


def test_the_parts_of_a_docstring():
    assert claims.said(DOC) == (
        "half of the steps suffice, 50% of 1.85 M MACs (table 1). Read: the abstract.",
        "needles and one GRU; the recipe is this setting.",
        "drawing $u_t$ at random, `clip`.",
    )
    assert claims.said("Left out: nothing.\nDifferent: all.") == ("", "", "nothing.")
    assert claims.said("Left out: Different: all.").left_out == ""
    assert claims.said("A claim: this is none.") == ("", "", "")
    assert claims.without_claim(DOC) == re.sub(r"Claim: .*?\n\n", "", DOC, flags=re.S)


@pytest.mark.parametrize("key", sorted(SOURCES))
def test_every_implemented_paper_has_a_claim(key):
    words = claims.said_by(SOURCES[key])
    assert re.search(r"\((?:[^()]*; )?(?:abstract|table|fig|sec)|\(sec|README", words.claim), "its place in the paper"
    assert re.search(r"\d|order of magnitude", words.claim), "a figure"
    assert re.search(r"Read: [^.]+\.$", words.claim), "what of the paper was read stands last"
    assert "the recipe" in words.setting, "whether the recipe is that setting"
    assert words.left_out
    tasks = {task for _, task in _measured(key)}
    assert any(task in words.setting for task in tasks), "the task where it is measured"


def _measured(key):
    for path in evidence.folder().glob(f"{key}*.json"):
        yield path, evidence.load_result(path)["task"]


def test_the_claim_is_on_the_card_and_not_in_the_text_below():
    kb = dynnotes.load()
    for key, source in SOURCES.items():
        page = pages.paper_page(kb[key], kb, source=source)
        assert page.count('<dl class="dyn-claim">') == 1
        assert "\nClaim: " not in page
        assert "\nLeft out: " in page


def test_prose_is_escaped_and_formulas_are_marked():
    assert claims.prose("a `b<c` at $x_1 < \\alpha$ & on") == (
        'a <code>b&lt;c</code> at <span class="math notranslate nohighlight">\\(x_1 &lt; \\alpha\\)</span> &amp; on'
    )
    assert claims.prose("one ` alone, 5 $ too") == "one &#96; alone, 5 $ too"
    card = claims.card(claims.Said("<script>x</script>", "", "`<img src=x>`"))
    assert "<script" not in card
    assert "<img" not in card
    assert "Smallest setting" not in card
    assert claims.card(claims.Said("", "", "")) == ""


def test_each_way_a_rule_can_come_out_has_its_words():
    found = {"verdict": "partly", "claims": [
        evidence.Claim("cheaper", True, "A <b>"), evidence.Claim("harder", False, "B"),
        evidence.Claim("realised", None, "C"), evidence.Claim("sooner", None, "D", applies=False)]}  # fmt: skip
    html = claims.judgement(result(), found, stale=False)
    assert re.findall(r'<strong>(.*?)</strong> <span class="dyn-badge[^"]*">(.*?)</span>', html) == [
        (claims.RULE["cheaper"], "holds"), (claims.RULE["harder"], "does not hold"),
        (claims.RULE["realised"], "cannot be told"), (claims.RULE["sooner"], "does not apply")]  # fmt: skip
    assert "partly reproduced" in html
    assert "A &lt;b&gt;" in html
    assert "stale" not in html
    assert "stale" in claims.judgement(result(), found, stale=True)
    assert claims.JUDGED in html
    assert set(claims.RULE) == set(evidence.RULES)


def test_our_figures_are_computed_and_void_rows_left_out():
    said = claims.figures(result())
    assert said.startswith("Here, on canvas-digits: 83.0 % to 89.0 % accuracy with 60.0 % to 90.0 % of all MACs "
                           "(2 budgets, 3 seeds).")  # fmt: skip
    assert "takes 75.0 % of the time at batch 8 with 50.0 % of its MACs" in said
    assert "batch 1 " not in said, "that receipt is void"
    assert "not judged" not in claims.figures(result(receipts=[]))


def records(folder, keys=("veit2018convolutional", "yu2019slimmable")):
    return claims.records(dynnotes.load(), {key: SOURCES[key] for key in keys}, folder)


def test_the_table_has_a_line_per_paper_and_task(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "is_stale", lambda result: result["task"] == "another")
    evidence.write_json(result(), tmp_path / "veit2018convolutional.json")
    evidence.write_json(result(task="another"), tmp_path / "veit2018convolutional.another.json")
    rows = records(tmp_path)
    gated = "veit2018convolutional"
    assert [(row["key"], row["task"]) for row in rows] == [
        (gated, "canvas-digits"), (gated, "another"), ("yu2019slimmable", None)]  # fmt: skip
    lines = claims.listed(rows)
    assert [re.split(r"\s{2,}", line) for line in lines[:4]] == [
        ["paper", "task", "verdict", "cheaper", "harder", "realised"],
        ["ConvNet-AIG", "canvas-digits", "reproduced", "?", "yes", "?"],
        ["ConvNet-AIG", "another", "reproduced, stale", "?", "yes", "?"],
        ["Slimmable Networks", "-", "not measured", "-", "-", "-"]]  # fmt: skip
    told = claims.told(rows[:2])
    assert told[0] == f"claim: {rows[0]['claim']}"
    assert "ConvNet-AIG on another: reproduced, stale" in told
    assert any(line.startswith(f"  {claims.RULE['harder']}: holds. Harder inputs cost more at 2 of 2") for line in told)
    assert claims.told(rows[2:])[-1] == "not measured"


def test_a_rule_of_a_system_is_marked():
    rule = {"rule": "sooner", "holds": True, "applies": True}
    assert claims._short(rule) == "yes (sooner)"
    assert claims._short({"rule": "cheaper", "holds": None, "applies": False}) == "-"


def test_the_book_gives_the_numbers_that_the_rules_use():
    page = (registry.PACKAGE.parent / "book" / "receipt.md").read_text(encoding="utf-8")
    section = page.split("## How a claim is judged\n")[1].split("\n## ")[0]
    assert f"at least {evidence.REALISED:.0%} of the MACs" in section
    assert f"{evidence.REALISED_CHANNELS:.0%} where channels" in section
    assert evidence.BATCHES == (1, 32)
    assert "one input at a time and for 32 at once" in section
    for name in ("cheaper", "harder", "realised"):
        assert f"\n{claims.RULE[name]}\n: " in section
    assert claims.JUDGED.endswith("#how-a-claim-is-judged")
