"""The break-even explorer: costs found again in rows made from known ones, wrong files, hostile text, crossings."""

import json
import re
from html.parser import HTMLParser

import pytest

from dynnotes.show import breakeven
from dynnotes.show.breakeven import LAYERS

EVIL = "</script><script>x</script> <img src=x onerror='x'> & \" `"
MAPS = ((56, 64), (28, 128), (14, 256), (256, 64))
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)

# A machine of our own: seconds per call, per MAC, per byte of the map, per byte that is moved, per byte of the weights.
DENSE = (4e-6, 8e-12, 3e-11, 0.0, 5e-11)
TIMES = (1e-6, 2e-11)
OURS = (9e-6, 9.6e-12, 2e-11, 4e-11, 6e-11)
TORCH = (6e-5, 9e-12, 5e-11, 8e-10, 5e-11)


def by_hand(costs, side, channels, batch, share, kernel=3, depthwise=False, width=4, times=1):
    """Seconds, with nothing of the package in it."""
    fixed, work, whole, moved, weights = costs
    per_pixel = channels * kernel * kernel * (1 if depthwise else channels)
    pixels = batch * side * side
    both = pixels * channels * width + pixels * channels * width
    return (fixed + work * times * pixels * per_pixel * share + whole * both + moved * share * both
            + weights * per_pixel * width)  # fmt: skip


def row(side, channels, batch, mask, share, part="conv", void=False, **of):
    dense = by_hand(DENSE, side, channels, batch, 1.0, **of)
    multiplied = dense + TIMES[0] + TIMES[1] * 2 * batch * side**2 * channels * of.get("width", 4)
    ours = min(by_hand(OURS, side, channels, batch, share, **of), multiplied)
    torch = by_hand(TORCH, side, channels, batch, share, **of)
    ratios = {"ours": ours, "torch": torch, "dense times mask": multiplied}
    macs = of.get("times", 1) * batch * side**2 * channels**2 * of.get("kernel", 3) ** 2
    return {"part": part, "shape": f"{side}x{channels}", "side": side, "channels": channels,
            "kernel": of.get("kernel", 3), "batch": batch, "mask": mask, "density": share, "share": share, "macs": macs,
            "base": "conv2d", "operator": "aten::mkldnn_convolution",
            "base_gflops": 2e-9 * macs / dense, "base_seconds": dense,
            "ratios": {name: [t / dense, 0.98 * t / dense, 1.03 * t / dense] for name, t in ratios.items()},
            "noise": 1.2 if void else 1.0, "void": void, "goal": None, "error": 1e-7}  # fmt: skip


def rows_of(part="conv", masks=("random", "block"), **of):
    return [row(side, channels, batch, mask, share, part, **of) for side, channels in MAPS for batch in (1, 8)
            for mask in masks for share in SHARES if (side, batch) != (256, 8)]  # fmt: skip


def a_file(*more, **changed):
    other = {"part": "first", "shape": "56x64", "ratio": 2.0}  # a row of another kind is let be
    rows = [*rows_of(), *rows_of("pointwise", ("random",), kernel=1), other, *more]
    return {"machine": "Test CPU", "instructions": "avx512", "versions": {"torch": "2.13.0"}, "date": "2026-01-02",
            "commit": None, "command": "python -m benchmarks.masked_conv", "rows": rows} | changed  # fmt: skip


def saved(content, folder):
    path = folder / "measured.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


CONV = breakeven.fit(LAYERS["conv"], rows_of())


# ---------------------------------------------------------------- the fit


@pytest.mark.parametrize(("part", "of"), [
    ("conv", {}), ("pointwise", {"kernel": 1}), ("depthwise", {"depthwise": True}), ("half", {"width": 2}),
    ("training", {"times": 3}),
])  # fmt: skip
def test_the_fit_finds_the_constants_that_made_the_rows(part, of):
    found = breakeven.fit(LAYERS[part], rows_of(part, **of))
    fixed, work, whole, moved, weights = (c * unit for c, unit in zip(TORCH, (1e3, 1e9, 1e9, 1e9, 1e9), strict=True))
    assert set(found.masks) == {"random", "block"}
    for costs in (m["torch"] for m in found.masks.values()):
        if part == "depthwise":  # MACs and moved bytes are in proportion here: only their sum can be told
            per_byte = 9 / (2 * 4)
            assert costs[1] * per_byte + costs[3] == pytest.approx(work * per_byte + moved, rel=1e-6)
        else:
            assert costs == pytest.approx([fixed, work, whole, moved, weights], rel=1e-4)


@pytest.mark.parametrize("share", [0.03, 0.4, 0.9])
@pytest.mark.parametrize(("side", "channels", "batch"), [(40, 96, 4), (14, 256, 1), (100, 80, 2)])
def test_predictions_for_maps_that_were_not_measured(side, channels, batch, share):
    dense = by_hand(DENSE, side, channels, batch, 1.0)
    assert CONV.seconds("dense", side, channels, batch, 1.0, "random") == pytest.approx(dense, rel=1e-4)
    found = CONV.ratio("torch", side, channels, batch, share, "random")
    assert found == pytest.approx(by_hand(TORCH, side, channels, batch, share) / dense, rel=1e-4)


def test_the_default_falls_back_to_dense_from_half_of_the_pixels_on():
    side, channels, batch = 256, 64, 1
    own, dense = by_hand(OURS, side, channels, batch, 1.0), by_hand(DENSE, side, channels, batch, 1.0)
    fallback = CONV.ratio("dense times mask", side, channels, batch, 1.0, "random")
    assert own / dense > fallback > 1
    assert CONV.ratio("ours", side, channels, batch, 1.0, "random") == pytest.approx(fallback, rel=1e-4)
    assert CONV.ratio("ours", side, channels, batch, 0.2, "random") < fallback


def test_where_nothing_fell_back_no_fallback_is_made_up():
    rows = rows_of()
    for r in rows:
        own = by_hand(OURS, r["side"], r["channels"], r["batch"], r["share"]) / r["base_seconds"]
        r["ratios"]["ours"] = [own] * 3
    found = breakeven.fit(LAYERS["conv"], rows)
    assert found.back is None
    assert found.masks["random"]["ours"] == pytest.approx(CONV.masks["random"]["ours"], rel=1e-4)
    own = by_hand(OURS, 256, 64, 1, 1.0) / by_hand(DENSE, 256, 64, 1, 1.0)
    assert found.ratio("ours", 256, 64, 1, 1.0, "random") == pytest.approx(own, rel=1e-4)


def test_the_break_even_is_where_the_line_meets_one():
    for method, costs in (("ours", OURS), ("torch", TORCH)):
        for side, channels in MAPS:
            low, high = (by_hand(costs, side, channels, 1, s) for s in (0.0, 1.0))
            by_formula = (by_hand(DENSE, side, channels, 1, 1.0) - low) / (high - low)
            found = CONV.break_even(method, side, channels, 1, "random")
            if 0 < by_formula <= 1:
                assert found == pytest.approx(by_formula, rel=1e-4)
                assert CONV.ratio(method, side, channels, 1, found, "random") == pytest.approx(1.0, rel=1e-9)
                assert CONV.ratio(method, side, channels, 1, 0.99 * found, "random") < 1
            else:
                assert found is None
    assert CONV.break_even("torch", 56, 64, 1, "random") is not None
    assert CONV.break_even("torch", 56, 64, 1, "no such mask") is None


def test_never_or_always_faster_has_no_break_even():
    none, always = ([c * k for c in (1, 0, 0, 0, 0)] for k in (1e9, 1e-9))
    found = breakeven.Fit(LAYERS["conv"], CONV.dense, CONV.extra, None, {"random": {"ours": none, "torch": always}})
    assert found.break_even("ours", 28, 128, 1, "random") is None
    assert found.break_even("torch", 28, 128, 1, "random") is None


def test_void_rows_are_not_fitted():
    wrong = [row(28, 128, 1, "random", 0.3 + i / 100, void=True) for i in range(5)]
    for bad in wrong:
        bad["ratios"]["torch"] = bad["ratios"]["ours"] = [50.0, 50.0, 50.0]
    assert breakeven.fit(LAYERS["conv"], rows_of() + wrong).masks == CONV.masks


def test_no_cost_is_negative_whatever_the_rows():
    rows = rows_of()
    for i, r in enumerate(rows):
        r["ratios"] = {name: [v[0] * (0.3 + (i * 7 % 11) / 5)] * 3 for name, v in r["ratios"].items()}
    found = breakeven.fit(LAYERS["conv"], rows)
    fitted = [found.dense, found.extra, found.back or [], *(own for m in found.masks.values() for own in m.values())]
    costs = [c for own in fitted for c in own]
    assert min(costs) >= 0


def test_the_error_is_none_on_its_own_law_and_told_where_it_is_broken():
    clean = breakeven.errors(LAYERS["conv"], rows_of())
    assert set(clean) == {"ours", "torch", "dense times mask"}
    assert max(e[name] for e in clean.values() for name in ("median", "worst")) < 1e-3
    assert clean["torch"]["left_worst"] < 1e-3, "four maps tell enough to predict each from the others"
    rows = rows_of()
    for r in rows:
        if r["side"] == 14:  # a map with a law of its own
            r["ratios"]["torch"] = [2 * v for v in r["ratios"]["torch"]]
    broken = breakeven.errors(LAYERS["conv"], rows)
    assert broken["torch"]["left_worst"] > 0.3
    assert broken["torch"]["rows"] == len(rows)
    assert broken["dense times mask"]["left_worst"] < 1e-3


def test_errors_by_hand():
    """Three rows of one map, measured at 1, 2 and 4 times what one constant cost predicts at best."""
    rows = [row(28, 128, 1, "random", share) for share in (0.25, 0.5, 1.0)]
    for r in rows:
        r["ratios"] = {"ours": [0.5] * 3, "torch": [r["share"]] * 3}
    found = breakeven.errors(LAYERS["conv"], rows)
    assert found["ours"]["worst"] == pytest.approx(0, abs=1e-9)
    assert found["torch"]["worst"] == pytest.approx(0, abs=1e-9)
    assert found["torch"]["left_median"] is None, "one map cannot be left out"
    assert breakeven.errors(LAYERS["blocks"], rows) == {}


# ---------------------------------------------------------------- what was measured


def test_a_measured_line_leaves_void_rows_out_and_joins_equal_shares():
    rows = [row(14, 256, 1, "block", s) for s in (0.25, 0.25, 0.5, 1.0)]
    rows[1]["ratios"]["torch"], rows[0]["ratios"]["torch"] = [0.4] * 3, [0.2] * 3
    rows[3]["void"] = True
    assert [s for s, _ in breakeven.measured_line(rows, "torch")] == [0.25, 0.5]
    assert breakeven.measured_line(rows, "torch")[0][1] == pytest.approx(0.3)


@pytest.mark.parametrize(("line", "at"), [
    ([(0.1, 0.2), (0.5, 0.8), (1.0, 1.3)], 0.7), ([(0.1, 0.2), (1.0, 0.9)], None), ([(0.1, 1.1), (1.0, 1.9)], None),
    ([(0.25, 0.5), (0.5, 1.0)], 0.5), ([], None),
])  # fmt: skip
def test_crossing(line, at):
    assert breakeven.crossing(line) == (None if at is None else pytest.approx(at))


# ---------------------------------------------------------------- files


def test_a_good_file_is_read(tmp_path):
    assert breakeven.load(saved(a_file(), tmp_path)) == json.loads(json.dumps(a_file()))


@pytest.mark.parametrize(("field", "value", "told"), [
    ("share", 1.2, "at most 1"), ("share", 0, "above zero"), ("share", None, "above zero"),
    ("side", 5.5, "whole number"), ("channels", "64", "whole number"), ("batch", True, "whole number"),
    ("base_seconds", -1, "above zero"),
    ("void", 1, "true or false"), ("base_gflops", "x", "null or a number"), ("operator", None, "a text"),
    ("ratios", {"torch": [1, 1, 1]}, "`ours`"), ("mask", 3, "a text"), ("part", None, "a text"),
    ("noise", 0, "above zero"),
])  # fmt: skip
def test_a_wrong_field_is_named_with_its_file_and_row(tmp_path, field, value, told):
    content = a_file()
    content["rows"][3][field] = value
    path = saved(content, tmp_path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: rows\[3\]\.{field}: should be .*{told}"):
        breakeven.load(path)


@pytest.mark.parametrize("values", [[1.0, 1.1, 1.2], [0.5, 0.6], [0, 0, 0], "0.5", [1, 1, None]])
def test_a_ratio_that_is_none_is_named(tmp_path, values):
    content = a_file()
    content["rows"][0]["ratios"]["torch"] = values
    with pytest.raises(ValueError, match=r"measured\.json: rows\[0\]\.ratios\.torch: should be \[median, low, high\]"):
        breakeven.load(saved(content, tmp_path))


@pytest.mark.parametrize(("content", "told"), [
    ("{", "not JSON"), ("[]", "the file: should be an object"), ('{"machine": NaN}', "NaN is no number"),
    (a_file(machine=3), "machine: should be a text"), (a_file(versions={"torch": 2}), "versions: should be texts"),
    (a_file(rows={}), "rows: should be a list"), (a_file(rows=[]), "rows: should be a list with rows of conv"),
    (a_file(row(56, 64, 1, "random", 0.25)), "should be measured once"),
])  # fmt: skip
def test_a_wrong_file_is_named(tmp_path, content, told):
    with pytest.raises(ValueError, match=rf"measured\.json: .*{re.escape(told)}"):
        breakeven.load(saved(content, tmp_path))


def test_no_file_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"benchmarks\.masked_conv --json"):
        breakeven.load(tmp_path / "none.json")


def test_a_field_that_is_missing_is_named(tmp_path):
    content = a_file()
    del content["rows"][2]["share"]
    with pytest.raises(ValueError, match=r"rows\[2\]\.share"):
        breakeven.load(saved(content, tmp_path))


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """Tags, attributes, and the cells of each row of tables."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.rows, self._in = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        self._in = tag in ("td", "th")
        if self._in:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._in = self._in and tag not in ("td", "th")

    def handle_data(self, text):
        if self._in:
            self.rows[-1][-1] += text


def test_the_table_holds_every_row_and_where_it_meets_one():
    rows = Page(breakeven.plain(breakeven.explorer_data(a_file()))).rows
    found = {r[0]: r[1:] for r in reversed(rows)}  # the first table, where two have the same map
    told = found["56x64, batch 1, single pixels: masked, torch operators"]
    assert told[: len(SHARES)] == [f"{row(56, 64, 1, 'random', s)['ratios']['torch'][0]:.2f}" for s in SHARES]
    line = [(s, row(56, 64, 1, "random", s)["ratios"]["torch"][0]) for s in SHARES]
    assert told[len(SHARES)] == f"{breakeven.crossing(line):.0%}"
    assert told[-2] == "conv2d"
    assert len(rows) == 2 + 3 * 7 * 2 + 3 * 7, "two heads, three forms of seven maps and batches, two masks and one"


def test_void_is_said_in_the_table():
    content = a_file()
    content["rows"][0] = row(56, 64, 1, "random", 0.05, void=True)
    rows = Page(breakeven.plain(breakeven.explorer_data(content))).rows
    assert next(r for r in rows if r[0].startswith("56x64, batch 1, single pixels"))[1] == "void"


def test_everything_is_in_the_piece_and_nothing_is_asked_of_a_network():
    html = breakeven.explorer(a_file())
    page = Page(html)
    assert page.tags.count("script") == 2
    assert page.tags.count("style") == 1
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset"}
    code = re.sub(r"http://www\.w3\.org/2000/svg", "", html)
    assert not re.search(r"https?:|@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(", code)


def test_hostile_text_stays_text():
    content = a_file(machine=EVIL, command=EVIL)
    for r in content["rows"]:
        r["shape"] = EVIL + r["shape"]
        r |= {"base": EVIL, "operator": EVIL} if r["part"] != "first" else {}
    html = breakeven.explorer(content)
    page = Page(html)
    assert page.tags.count("script") == html.count("</script>") == 2
    assert not {"img", "iframe"} & set(page.tags)
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])
    assert data["machine"]["machine"] == EVIL
    assert any(EVIL in r[0] for r in page.rows)


def test_the_data_is_what_the_script_needs():
    data = breakeven.explorer_data(a_file())
    assert [layer["part"] for layer in data["layers"]] == ["conv", "pointwise"]
    conv = data["layers"][0]
    assert conv["fit"]["masks"] == CONV.masks
    assert len(conv["rows"]) == len(rows_of())
    json.dumps(data, allow_nan=False)
