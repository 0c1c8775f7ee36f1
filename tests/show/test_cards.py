"""Data cards without a browser: what is chosen, counted, drawn and said, for every task and every kind of target."""
import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dynnotes
from dynnotes import cli, data
from dynnotes.data import Data
from dynnotes.learn import evidence
from dynnotes.show import cards

ROOT = Path(__file__).parents[2]
EVIL = '</svg><script>x</script> ``` <img src=x onerror="x">'


def made(inputs, target, **more):
    hard = torch.linspace(0, 1, len(target))
    return Data("made", "test", (inputs,), target, hard, {"size": 1 - hard}, **more)


def picture(html, which=0):
    """The RGBA values [H, W, 4] of a picture in some HTML."""
    png = re.findall(r"base64,([A-Za-z0-9+/=]+)", html)[which]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))


# ---------------------------------------------------------------- every task


@pytest.fixture(scope="module")
def written():
    return {task: cards.card(task, ROOT / "results", dynnotes.load()) for task in data.tasks()}


@pytest.mark.parametrize("task", data.tasks())
def test_every_task_has_its_card(task, written):
    html = written[task]
    known = cards.facts(task, ROOT / "results")
    assert len(re.findall(r'class="dyn-shot[ "]', html)) == 18
    assert re.search(r"hard\s+=|hard =", html), "the formula of hard"
    for name in ("hard", *known["difficulty"]):
        assert f'aria-label="histogram of {name}"' in html
    assert ("What static nets make of it" in html) == (ROOT / "results" / f"static-{task}.json").is_file()
    assert set(known["splits"]) == set(data.SPLITS)
    assert known["about"] and known["about"] in " ".join(known["text"].split())
    assert json.loads(json.dumps(known)) == known
    assert sum(known["difficulty"]["hard"]["counts"]) == known["drawn"]
    assert any(task in line for line in cards.lines(known))


def test_all_cards_are_a_small_page(written):
    assert sum(map(len, written.values())) < 1_500_000


@pytest.mark.parametrize("task", data.tasks())
def test_names_in_capitals_are_given_values(task):
    formulas = re.findall(r"^ {4,}hard =.*(?:\n {8,}.*)*", cards.docstring(task), re.M)
    used = set(re.findall(r"\b[A-Z][A-Z_]+\b", " ".join(formulas)))
    assert formulas
    assert used <= set(cards.constants(task))


# ---------------------------------------------------------------- which samples, and what is counted


def test_easy_middle_and_hard_come_from_three_tenths():
    samples = made(torch.zeros(100, 1, 4, 4), torch.zeros(100).long())
    found = dict(cards.chosen(samples))
    assert found == {"easy": [0, 2, 4, 5, 7, 9], "middle": [45, 47, 49, 50, 52, 54], "hard": [90, 92, 94, 95, 97, 99]}


def test_few_samples_and_samples_that_are_all_alike():
    few = made(torch.zeros(2, 1, 4, 4), torch.zeros(2).long())
    assert cards.chosen(few) == [("samples", [0, 1])]
    seven = made(torch.zeros(7, 1, 4, 4), torch.zeros(7).long())
    assert cards.chosen(seven) == [("easy", [0, 1]), ("middle", [2, 3]), ("hard", [5, 6])]
    alike = Data("made", "test", (torch.zeros(9, 1, 4, 4),), torch.zeros(9).long(), torch.zeros(9))
    assert cards.chosen(alike) == [("samples", [0, 1, 2, 3, 4, 5])]
    assert cards.shots(alike).count("<li>") == 6


def test_counts_have_a_bin_per_whole_number_or_twenty():
    assert cards.counts([1.0, 1.0, 3.0, 4.0]) == [2, 0, 1, 1]
    assert cards.counts([0.0, 0.5, 1.0]) == [1, *[0] * 9, 1, *[0] * 8, 1]
    assert cards.counts([0.3, 0.3]) == [2, *[0] * 19]


def test_correlation_of_ranks():
    assert cards.correlation([1, 2, 3, 4], [1, 4, 9, 16]) == 1.0
    assert cards.correlation([1, 2, 3, 4], [4, 3, 2, 1]) == -1.0
    assert cards.correlation([1, 1, 1], [1, 2, 3]) is None


# ---------------------------------------------------------------- text


def test_a_docstring_becomes_paragraphs_definitions_and_formulas():
    written = ("made: one thing; what is it?\n\nA `word`\nand <more>:\n\n    small    how small it is\n"
               "             and was\n    loose words  free\n\n    hard = small / 2           in [0, 1]\n")
    html = cards.prose(written, "made")
    assert '<p class="dyn-lead">One thing; what is it?</p>' in html
    assert "<p>A <code>word</code> and &lt;more&gt;:</p>" in html
    assert "<dt>small</dt><dd>how small it is and was</dd>" in html
    assert "<dt>loose words</dt><dd>free</dd>" in html
    assert ">hard = small / 2   in [0, 1]</pre>" in html


@pytest.mark.parametrize("kind", ["class", "parts", "map", "boxes", "number", "picture"])
def test_hostile_labels_and_words_are_shown_not_run(kind):
    x = torch.rand(8, 1, 4, 4)
    target = {"class": torch.zeros(8).long(), "parts": torch.zeros(8, 2).long(), "map": torch.zeros(8, 4, 4).long(),
              "boxes": torch.tensor([0.0, 0, 1, 1, 0, 1]).expand(8, 1, 6), "number": torch.rand(8),
              "picture": torch.rand(8, 1, 4, 4)}[kind]
    samples = made(x, target, labels=(EVIL,))
    assert cards.asks(samples) == kind
    told = cards.shots(samples)
    words = cards.shots(made(x.flatten(1), torch.zeros(8).long(), labels=(EVIL,), kind="tokens",
                             spell=lambda _: [EVIL, EVIL]))
    assert "<script" not in told + words
    assert "```" not in told + words
    assert "<img" not in told + words


def test_tokens_that_matter_alike_share_a_mark():
    samples = made(torch.zeros(6, 4), torch.zeros(6).long(), labels=("a",), kind="tokens",
                   spell=lambda x: ["one", "two", "three", "four"],
                   informative=torch.tensor([1.0, 1.0, 0.0, 0.52]).expand(6, 4))
    assert '<mark style="--share:1">one two</mark> three <mark style="--share:0.5">four</mark>' in cards.shots(samples)


def test_answers_in_words():
    def said(target, labels=("x", "y", "z"), **more):
        return cards.answer(made(torch.zeros(1, 1, 2, 2), target, labels=labels, **more), 0)
    assert said(torch.tensor([2])) == "z"
    assert said(torch.tensor([[1, -100, 2]])) == "yz"
    assert said(torch.tensor([[1, -100, 0]]), labels=("ten", "eleven")) == "eleven ten"
    assert said(torch.tensor([[[0, 2], [-100, 2]]]), labels=("background", "y", "z")) == "z"
    assert said(torch.tensor([[[0, 2], [0, 2]]])) == "x, z"
    assert said(torch.tensor([[[0, 0, 1, 1, 1.0, 1], [0, 0, 0, 0, 0, 0]]])) == "y"
    assert said(torch.tensor([0.25])) == "0.25"
    assert said(torch.zeros(1, 1, 2, 2)) == ""


# ---------------------------------------------------------------- pictures


def test_a_grey_picture_keeps_its_pixels_to_fifteen_levels():
    x = torch.linspace(-0.5, 1.5, 24).view(1, 1, 4, 6)
    seen = picture(cards.shots(made(x.expand(6, 1, 4, 6), torch.zeros(6).long(), labels=("a",))))
    assert np.abs(seen[..., 0] / 255 - x[0, 0].clamp(0, 1).numpy()).max() <= 1 / 28 + 1e-6 + 1 / 510
    assert (seen[..., 3] == 255).all()


def test_colours_keep_every_value():
    x = torch.arange(12).view(3, 2, 2) / 255 * 20
    seen = picture(cards.shots(made(x.expand(6, 3, 2, 2), torch.zeros(6).long(), labels=("a",))))
    assert (seen[..., :3] == (x.numpy().transpose(1, 2, 0) * 255).round()).all()


def test_frames_stand_in_rows_and_bars_below_those_that_matter():
    x = torch.zeros(6, 8, 1, 5, 7)
    x[:, 6] = 1
    seen = torch.zeros(6, 8)
    seen[:, 6] = 0.5
    html = cards.shots(made(x, torch.zeros(6).long(), labels=("a",), kind="video", informative=seen))
    pixels = picture(html)
    assert pixels.shape == (2 * (5 + 3), 4 * (7 + 3) - 3, 4)
    white = (pixels[..., 0] > 0) & (pixels[..., 3] > 0)
    assert white[8:13, 20:27].all() and white.sum() == 35
    assert not pixels[5:8, :, 3].any() and not pixels[:, 7:10, 3].any()
    assert '<rect class="dyn-matters" x="20" y="13.5" width="7" height="2" opacity="0.5"/>' in html
    assert html.count('class="dyn-matters"') == html.count('class="dyn-shot"') == 6
    assert 'values="0 0;-10 0;-20 0;-30 0;0 -8;-10 -8;-20 -8;-30 -8"' in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) == 3 * 6


def test_bands_are_small_multiples_and_colours_are_not():
    x, target = torch.rand(6, 16, 4, 4), torch.zeros(6).long()
    html = cards.shots(made(x, target, labels=("a",), informative=torch.ones(6, 16)))
    assert picture(html).shape[:2] == (4 * 7, 4 * 7 - 3)
    assert html.count('class="dyn-matters"') == 6 * 16
    assert "under a band" in html
    assert picture(cards.shots(made(x[:, :3], target, labels=("a",)))).shape[:2] == (4, 4)


def test_a_map_is_coloured_by_class_and_explained():
    target = torch.tensor([[0, 1], [2, -100]]).expand(6, 2, 2)
    samples = made(torch.zeros(6, 1, 2, 2), target, labels=("background", "y", "z"), informative=torch.ones(6, 2, 2))
    html = cards.shots(samples)
    seen, colours = picture(html, 1), cards.palette(samples)
    assert [tuple(c[:3]) for c in (seen[0, 0], seen[0, 1], seen[1, 0])] == [tuple(c) for c in colours]
    assert seen[1, 1, 3] == 0
    assert len(set(colours)) == 3
    for name, colour in zip(samples.labels, colours, strict=True):
        assert f'<i style="background:rgb{colour}"></i>{name}' in html
    assert "input, target, what matters" in html


def test_boxes_lie_where_the_target_says():
    target = torch.tensor([[0.25, 0.5, 0.75, 1.0, 1, 1], [0, 0, 0.1, 0.1, 0, 0]]).expand(6, 2, 6)
    html = cards.shots(made(torch.zeros(6, 1, 8, 16), target, labels=("a", "b")))
    boxes = re.findall(r'<rect class="dyn-over" x="4" y="4" width="8" height="4"/><text[^>]*>(\w)</text>', html)
    assert boxes == ["b"] * html.count("<svg")
    html = cards.shots(made(torch.zeros(6, 1, 8, 16), torch.zeros(6).long(), labels=("a",),
                            box=torch.tensor([0, 0, 0.5, 0.5]).expand(6, 4)))
    assert 'class="dyn-over dyn-dashes" x="0" y="0" width="8" height="4"' in html


def test_a_restored_picture_stands_below_its_input_and_before_the_naive_answer():
    x, true, naive = torch.zeros(6, 1, 2, 2), torch.ones(6, 1, 4, 4), torch.full((6, 1, 4, 4), 0.5)
    html = cards.shots(made(x, torch.cat([true, naive], 1)))
    assert "input, target, naive answer" in html
    assert [picture(html, k)[0, 0, 0] for k in range(3)] == [0, 255, 128]
    same = torch.cat([torch.ones(6, 1, 2, 2), x], 1)
    assert "input, target." in cards.shots(made(x, same)), "the input is shown once"


def test_a_signal_is_drawn_to_one_scale_with_the_steps_that_matter():
    x = torch.zeros(6, 5, 2)
    x[:, 2, 1] = 1
    html = cards.shots(made(x, torch.zeros(6).long(), labels=("a",), kind="signal",
                            informative=torch.tensor([0.0, 1, 1, 0, 0]).expand(6, 5)))
    assert 'd="M0 58l1 0l1 -26l1 26l1 0"' in html
    assert '<rect class="dyn-matters" x="0.5" y="0" width="2" height="60"' in html
    assert "2 of them" in html


# ---------------------------------------------------------------- static nets


def frontier(folder, **more):
    runs = [{"net": net, "epochs": 1, "seed": seed, "params": 1, "macs": macs, "accuracy": accuracy}
            for net, macs, accuracy in ((EVIL, 2000.0, 0.9), ("cheap", 1000.0, 0.5)) for seed in (0, 1)]
    file = folder / "static-canvas-digits.json"
    file.write_text(json.dumps({"format": evidence.STATIC_FORMAT, "runs": runs, "source_hash": "old"} | more))
    return file


def test_static_nets_are_listed_cheapest_first_and_old_ones_wear_a_badge(tmp_path):
    frontier(tmp_path)
    known = cards.facts("canvas-digits", tmp_path)
    assert [net["net"] for net in known["static"]["nets"]] == ["cheap", EVIL]
    assert known["static"]["seeds"] == 2
    html = cards.frontier(known)
    assert "stale" in html and "<script" not in html and "50.0 %" in html and "2 k" in html
    assert "stale" in "\n".join(cards.lines(known))
    frontier(tmp_path, source_hash=evidence.source_hash("dynnotes.nets.backbones", "dynnotes.data.canvas_digits"))
    assert "stale" not in cards.frontier(cards.facts("canvas-digits", tmp_path))


def test_a_broken_file_of_static_nets_is_named(tmp_path):
    file = frontier(tmp_path)
    file.write_text("{")
    with pytest.raises(evidence.ResultError, match=r"static-canvas-digits\.json"):
        cards.facts("canvas-digits", tmp_path)


# ---------------------------------------------------------------- the command


def test_tasks_are_listed_without_torch():
    code = "import sys; sys.modules['torch'] = None; from dynnotes import cli; sys.exit(cli.main(['tasks']))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    assert [line.split()[0] for line in out.stdout.splitlines()] == list(data.tasks())


def test_one_task_as_text_and_as_json(capsys):
    assert cli.main(["tasks", "needles"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("needles: a long talk")
    assert "one of 4 classes: red, green, blue, gold" in out
    assert re.search(r"^rivals +0 +1 +5 +\+0\.\d\d", out, re.M)
    assert cli.main(["tasks", "needles", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["labels"] == ["red", "green", "blue", "gold"] and known["inputs"] == [[64]]
    assert cli.main(["tasks", "--json"]) == 0
    assert [row["task"] for row in json.loads(capsys.readouterr().out)] == list(data.tasks())


def test_an_unknown_task_is_named_with_the_nearest(capsys):
    assert cli.main(["tasks", "needels"]) == 2
    err = capsys.readouterr().err
    assert "needels" in err and "did you mean 'needles'" in err and "Traceback" not in err
