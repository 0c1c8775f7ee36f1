"""Evidence: statistics against independent computation, the frontier, verdicts, result files, and the receipt."""
import itertools
import json
import math
from types import SimpleNamespace

import jsonschema
import pytest
import torch

from dynnotes import registry
from dynnotes.learn import evidence
from dynnotes.learn.evidence import Interval, Receipt, ResultError

from .toy import Toy, samples


def run(seed, budget, accuracy, macs, correlation=0.5):
    return {"seed": seed, "budget": budget, "accuracy": accuracy, "macs_claimed": macs, "macs_executed": macs,
            "hard_correlation": correlation, "rates": {"block 1": 0.5}}


def result(runs=None, **more):
    runs = runs or [run(s, b, 0.9 + s / 100, 1000.0 * b) for s in range(3) for b in (1.0, 2.0)]
    return {"format": "dynnotes.results/1", "paper": "veit2018convolutional", "task": "canvas-digits",
            "recipe": {"net": "Net", "samples": 10, "test_samples": 5, "epochs": 2,
                       "stages": [{"epochs": 2, "lr": 0.1, "optimizer": "sgd", "weight_decay": 0.0, "batch": 5,
                                   "settings": {}}]},
            "budget": {"name": "threshold", "cheaper": "higher", "retrain": False}, "params": 10, "full": 4000.0,
            "runs": runs, "receipts": [], "static": None,
            "versions": {"python": "3.11.2", "torch": "2.13.0", "dynnotes": "0.1.0"}, "date": "2026-01-02",
            "commit": None, "command": "dynnotes train x", "source_hash": "0" * 16} | more


def static(*points, seeds=3, epochs=2):
    return [{"net": f"net {i}", "macs": macs, "accuracy": accuracy + 0.001 * s, "seed": s, "epochs": epochs}
            for i, (macs, accuracy) in enumerate(points) for s in range(seeds)]


# Statistics

# Student's t, two-sided 95%, as printed in any table: degrees of freedom 1, 2, 3, 9.
@pytest.mark.parametrize(("seeds", "t"), [(2, 12.706), (3, 4.303), (4, 3.182), (10, 2.262)])
def test_the_interval_by_hand(seeds, t):
    values = [0.9 + 0.01 * i for i in range(seeds)]
    mean = sum(values) / seeds
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (seeds - 1))
    found = evidence.interval(values)
    assert found.mean == pytest.approx(mean)
    assert found.half == pytest.approx(t * deviation / math.sqrt(seeds), rel=2e-4)
    assert found.low == pytest.approx(mean - found.half)


def test_one_seed_has_no_interval():
    assert evidence.interval([0.5]) == (0.5, None, None)
    assert evidence.interval([0.5]).half is None


def test_spearman_by_hand():
    a, b = [10, 20, 30, 40, 50], [1, 3, 2, 5, 4]                # no ties: 1 - 6 sum(d^2) / n(n^2 - 1), d^2 = 0 1 1 1 1
    assert evidence.spearman(a, b) == pytest.approx(1 - 6 * 4 / (5 * 24))
    tied = evidence.spearman([1, 1, 2, 3], [4, 5, 6, 7])        # Pearson's of the ranks 1.5 1.5 3 4 and 1 2 3 4
    assert tied == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert evidence.spearman([1, 1, 1], [1, 2, 3]) is None
    assert evidence.spearman([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)


def test_the_summary_is_computed_from_the_runs():
    first, second = evidence.summary(result())
    assert (first.budget, second.budget) == (1.0, 2.0)
    assert first.accuracy.mean == pytest.approx(0.91)
    assert first.accuracy.half == pytest.approx(4.302652729911275 * 0.01 / math.sqrt(3))
    assert first.macs == (1000, 1000, 1000)
    assert first.correlation.mean == 0.5
    flat = evidence.summary(result([run(0, 1.0, 0.9, 10.0, None)]))[0]
    assert flat.correlation is None
    assert flat.accuracy.low is None


# The static line

def test_the_frontier_is_interpolated_over_log_macs_and_never_falls():
    line = static((100, 0.5), (1000, 0.4), (10000, 0.7), seeds=1)
    assert evidence.static_accuracy_at(99, line) is None
    assert evidence.static_accuracy_at(100, line) == pytest.approx(0.5)
    assert evidence.static_accuracy_at(1000, line) == pytest.approx(0.5), "a worse, dearer net is not on the frontier"
    assert evidence.static_accuracy_at(10 ** 3.5, line) == pytest.approx(0.6)
    assert evidence.static_accuracy_at(1e9, line) == pytest.approx(0.7)
    assert evidence.static_accuracy_at(100, []) is None
    assert evidence.static_accuracy_at(100, static((100, 0.5)), seed=2) == pytest.approx(0.502)


def test_above_the_static_nets_and_harder_costs_more_is_reproduced():
    found = evidence.verdict(result(), static((500, 0.5), (5000, 0.6)))
    assert found["verdict"] == "reproduced"
    assert [c.holds for c in found["claims"]] == [True, True, None], "no receipt was taken"
    assert "Above the static nets at 2 of 2 budgets" in found["text"]


def test_below_the_static_nets_and_unrelated_is_not():
    runs = [run(s, b, 0.5 + s / 100, 1000.0 * b, (-1) ** s * 0.1) for s in range(3) for b in (1.0, 2.0)]
    found = evidence.verdict(result(runs), static((500, 0.8), (5000, 0.9)))
    assert found["verdict"] == "not"
    assert [c.holds for c in found["claims"]] == [False, False, None]


def test_a_gain_within_the_noise_does_not_count():
    runs = [run(s, 1.0, 0.8 + (0.0, 0.1, -0.08)[s], 1000.0) for s in range(3)]
    found = evidence.verdict(result(runs), static((500, 0.79), (5000, 0.79)))
    assert evidence.gains(result(runs), static((500, 0.79)))[0][1].mean > 0
    assert found["claims"][0].holds is False
    assert found["verdict"] == "partly"


def test_a_system_is_judged_by_its_clock():
    def timed(*spreads, void=False):
        return [Receipt(batch, 9.0, 9.0, 9.0, 9.0, None, 1.0, 0.5, sum(spread) / 2, spread, 1.0, void).record()
                for batch, spread in zip((1, 32), spreads, strict=False)]
    for receipts, word in ((timed((0.5, 0.7), (0.1, 0.2)), "reproduced"), (timed((0.9, 1.1), (0.1, 0.2)), "not"),
                           (timed((0.5, 0.7), void=True), "open"), ([], "open")):
        found = evidence.verdict(result(paper="xu2018cavs", receipts=receipts), static((500, 0.5)))
        assert found["verdict"] == word
        assert [c.rule for c in found["claims"]] == ["cheaper", "harder", "sooner"]
        assert [c.applies for c in found["claims"]] == [False, False, True]
    assert "0.15 (0.10 to 0.20) of the time at batch 32" in evidence.verdict(
        result(paper="xu2018cavs", receipts=timed((0.5, 0.7), (0.1, 0.2))), [])["text"]


def test_what_cannot_be_judged_is_left_open():
    alone = evidence.verdict(result([run(0, 1.0, 0.9, 1000.0)]), static((500, 0.5), seeds=1))
    assert alone["verdict"] == "open"
    assert [c.holds for c in alone["claims"]] == [None, None, None]
    same = evidence.verdict(result([run(s, 1.0, 0.9, 1000.0, None) for s in range(3)]), static((500, 0.5)))
    assert same["claims"][1].holds is None
    assert "whatever its difficulty" in same["text"]
    assert same["verdict"] == "reproduced", "the rule that does not apply does not count"
    cheaper = evidence.verdict(result([run(s, 1.0, 0.9, 100.0) for s in range(3)]), static((500, 0.5)))
    assert cheaper["claims"][0].holds is None
    assert evidence.verdict(result(), [])["claims"][0].holds is None


def receipts(*rows, executed=400.0, full=1000.0):
    """Records of receipts that save 60% of the MACs, from (batch, quartiles of the time ratio, void)."""
    return [Receipt(batch, full, executed, executed, executed, None, 1.0, 0.5, sum(spread) / 2, spread, 1.0, void)
            .record() for batch, spread, void in rows]


def realised(rows, **more):
    return evidence.verdict(result(receipts=rows, **more), [])["claims"][2]


@pytest.mark.parametrize(("one", "many", "holds"), [
    ((0.45, 0.55), (0.45, 0.55), True),        # 0.55 of the time: 0.45 saved of 0.60 saved MACs are three quarters
    ((0.45, 0.5501), (0.45, 0.55), False),     # the upper quartile of one batch size is a little too slow
    ((0.45, 0.55), (0.10, 0.56), False),
    ((1.2, 1.4), (1.2, 1.4), False),
])
def test_the_saving_is_realised_at_both_batch_sizes(one, many, holds):
    found = realised(receipts((1, one, False), (32, many, False)))
    assert found.holds is holds
    assert found.applies
    assert "saves 60% of its MACs (a trained net" in found.text
    assert ("takes longer" in found.text) == (one[0] > 1)


def test_a_receipt_of_a_noisy_machine_tells_nothing():
    good, bad = (0.3, 0.4), (0.8, 0.9)
    assert realised(receipts((1, good, False), (32, good, True))).holds is None
    assert "No receipt of a quiet machine for batch 32." in realised(receipts((1, good, False), (32, bad, True))).text
    assert realised(receipts((1, bad, False), (32, good, True))).holds is False, "one batch size that fails is enough"
    assert realised(receipts((1, good, True), (32, good, True))).holds is None
    assert realised(receipts((1, good, False), (8, good, False))).holds is None, "batch 32 was not measured"
    assert realised([]).text == "No receipt was taken."


def test_where_nothing_is_skipped_no_saving_is_asked_for():
    found = realised(receipts((1, (0.9, 1.1), False), (32, (0.9, 1.1), False), executed=1000.0))
    assert (found.holds, found.applies) == (None, False)
    assert "no saving to realise" in found.text


def known_as(monkeypatch, **facts):
    """The paper of `result` with other facets."""
    entry = SimpleNamespace(**{"key": "veit2018convolutional", "kind": "method", "adapts": ("input",),
                               "unit": ("layer",), **facts})
    monkeypatch.setattr(evidence, "load", lambda: SimpleNamespace(entries=[entry]))


@pytest.mark.parametrize("word", sorted(evidence.FIXED))
def test_what_does_not_follow_the_input_is_not_asked_to(monkeypatch, word):
    known_as(monkeypatch, adapts=(word,))
    harder = evidence.verdict(result(), [])["claims"][1]
    assert (harder.holds, harder.applies) == (None, False)
    assert evidence.FIXED[word] in harder.text
    assert realised(receipts((1, (0.4, 0.5), False), (32, (0.4, 0.5), False))).holds is True, "what is saved is judged"


def test_every_word_for_what_adapts_is_judged_or_explained():
    assert set(evidence.load().facets["adapts"]) == {"input", *evidence.FIXED}


def test_channels_chosen_for_each_sample_are_asked_for_less(monkeypatch):
    rows = receipts((1, (0.5, 0.6), False), (32, (0.5, 0.64), False))      # 0.36 of 0.60: exactly 60%
    assert realised(rows).holds is False
    known_as(monkeypatch, unit=("channel",))
    assert realised(rows).holds is True
    assert realised(receipts((1, (0.5, 0.65), False), (32, (0.5, 0.6), False))).holds is False
    known_as(monkeypatch, unit=("channel",), adapts=("budget",))
    assert realised(rows).holds is False, "one width for the whole batch is no choice per sample"


def test_one_failed_rule_of_three_is_partly():
    slow = receipts((1, (0.9, 0.95), False), (32, (0.9, 0.95), False))
    found = evidence.verdict(result(receipts=slow), static((500, 0.5), (5000, 0.6)))
    assert [c.holds for c in found["claims"]] == [True, True, False]
    assert found["verdict"] == "partly"


def test_the_price_of_an_accuracy_inverts_the_accuracy_at_a_price():
    line = static((100, 0.5), (1000, 0.4), (10000, 0.7), seeds=1)
    assert evidence.static_macs_at(0.6, line) == pytest.approx(10 ** 3.5)
    assert evidence.static_macs_at(0.7, line) == pytest.approx(10000)
    assert evidence.static_macs_at(0.3, line) == 100, "the cheapest net is better already"
    assert evidence.static_macs_at(0.71, line) is None
    assert evidence.static_macs_at(0.5, []) is None
    for macs in (1200.0, 4000.0):
        assert evidence.static_macs_at(evidence.static_accuracy_at(macs, line), line) == pytest.approx(macs)


def test_the_cost_at_equal_accuracy_is_told():
    def said(accuracy):
        runs = [run(s, 1.0, accuracy, 1000.0) for s in range(3)]
        return evidence.verdict(result(runs), static((100, 0.499), (10000, 0.699)))["claims"][0].text
    assert said(0.6).endswith("A static net as accurate costs 1.00 times as much.")
    assert said(0.65).endswith("A static net as accurate costs 3.16 times as much."), "a quarter of two decades more"
    assert said(0.9).endswith("No static net trained here is as accurate.")
    assert said(0.3).endswith("A static net as accurate costs at most 0.10 times as much.")


def test_gains_are_paired_by_seed():
    runs = [run(s, 1.0, 0.6 + 0.05 * s, 1000.0) for s in range(3)]
    nets = [{"net": "a", "macs": 1000, "accuracy": 0.5 + 0.05 * s, "seed": s, "epochs": 2} for s in range(3)]
    (_, gain), = evidence.gains(result(runs), nets)
    assert gain.mean == pytest.approx(0.1)
    assert gain.half == pytest.approx(0, abs=1e-9)


# Files

def test_the_schema_is_a_schema_and_takes_a_result():
    schema = json.loads(evidence.SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert evidence.check(result()) is not None


def broken(change):
    bad = result()
    change(bad)
    return bad


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r.pop("runs"), "'runs' is a required"),
    (lambda r: r.pop("full"), "'full' is a required"),
    (lambda r: r.update(runs=[]), "runs"),
    (lambda r: r.update(extra=1), "extra"),
    (lambda r: r["runs"][3].update(accuracy=1.5), r"runs\.3\.accuracy"),
    (lambda r: r["runs"][1].update(accuracy="good"), r"runs\.1\.accuracy"),
    (lambda r: r["runs"][2].update(macs_executed=1.0), r"runs\.2: claims 1000.* MACs, executed 1"),
    (lambda r: r["runs"][0].update(macs_claimed=math.inf, macs_executed=math.inf), "finite"),
    (lambda r: r["runs"].append(dict(r["runs"][0])), "twice"),
    (lambda r: r["budget"].update(cheaper="sideways"), r"budget\.cheaper"),
    (lambda r: r.update(date="yesterday"), "date"),
    (lambda r: r.update(static={"file": "../../secret.json", "epochs": 1}), "static"),
    (lambda r: r.update(source_hash="x"), "source_hash"),
])
def test_a_wrong_field_is_named(change, message):
    with pytest.raises(ResultError, match=message):
        evidence.check(broken(change))


def test_files_round_trip_and_faults_name_the_file(tmp_path):
    path = evidence.write_json(result(), tmp_path / "deep" / "x.json")
    assert evidence.load_result(path) == result()
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    for text, message in (("{", "is not JSON"), ("[]", "no format"), ('{"format": "dynnotes.results/2"}', "upgrade"),
                          (json.dumps(result(params=0)), "params")):
        path.write_text(text)
        with pytest.raises(ResultError, match=message) as caught:
            evidence.load_result(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        evidence.load_result(tmp_path / "none.json")


def test_nan_is_never_written_and_the_old_file_stays(tmp_path):
    path = evidence.write_json({"a": 1}, tmp_path / "x.json")
    with pytest.raises(ValueError, match="JSON"):
        evidence.write_json({"a": math.nan}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_the_static_nets_of_a_result_are_those_of_its_epochs(tmp_path):
    evidence.write_json({"format": evidence.STATIC_FORMAT, "runs": static((1, 0.5)) + static((1, 0.6), epochs=9)},
                        tmp_path / "static-canvas-digits.json")
    refers = result(static={"file": "static-canvas-digits.json", "epochs": 9})
    assert {r["epochs"] for r in evidence.load_static(refers, tmp_path)} == {9}
    assert evidence.load_static(result(), tmp_path) == []
    assert evidence.load_static(result(static={"file": "gone.json", "epochs": 9}), tmp_path) == []


@pytest.mark.parametrize("path", sorted(evidence.folder().glob("*.json")), ids=lambda p: p.stem)
def test_every_result_of_the_project_is_valid(path):
    if path.stem.startswith("static-"):
        runs = evidence.read_json(path, evidence.STATIC_FORMAT)["runs"]
        assert all(0 <= r["accuracy"] <= 1 and r["macs"] > 0 for r in runs)
    else:
        held = evidence.load_result(path)
        first = registry.sources()[held["paper"]].load().recipes()[0].task
        assert path.stem == held["paper"] + ("" if held["task"] == first else f".{held['task']}")
        assert evidence.load_static(held, path.parent), "the static nets it refers to are there"


# Staleness

@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small dynnotes on disk: a paper, what it imports, and what it does not."""
    root = tmp_path / "dynnotes"
    files = {"registry.py": "x = 1", "nets/__init__.py": "", "nets/layers.py": "from . import deep\ny = 2",
             "nets/deep.py": "z = 3", "nets/other.py": "o = 4", "show/__init__.py": "", "show/draw.py": "d = 5",
             "sample/paper.py": '"""Says."""\nfrom ..nets.layers import y\nfrom ..registry import x\n'
                                'from ..show import draw\n\ndef f():\n    """Doc."""\n    return y\n'}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(evidence.registry, "PACKAGE", root)
    return root


@pytest.mark.parametrize(("file", "old", "new", "changes"), [
    ("sample/paper.py", "Doc.", "Another docstring.", False),
    ("sample/paper.py", '"""Says."""\n', '"""Says."""\n# a comment\n\n\n', False),
    ("sample/paper.py", "return y", "return y + 1", True),
    ("nets/layers.py", "y = 2", "y = 3", True),
    ("nets/deep.py", "z = 3", "z = 4", True),
    ("registry.py", "x = 1", "x = 2", True),
    ("nets/other.py", "o = 4", "o = 5", False),
    ("show/draw.py", "d = 5", "d = 6", False),
])
def test_the_source_hash_follows_the_code_that_matters(package, file, old, new, changes):
    before = evidence.source_hash("dynnotes.sample.paper")
    path = package / file
    path.write_text(path.read_text().replace(old, new))
    assert (evidence.source_hash("dynnotes.sample.paper") != before) == changes


def test_the_hash_of_a_real_paper_covers_its_task_and_its_verbs(monkeypatch):
    seen = []
    real = evidence._file_of
    monkeypatch.setattr(evidence, "_file_of", lambda name: (seen.append(name), real(name))[1])
    evidence.hash_of("veit2018convolutional", "canvas-digits")
    for needed in ("dynnotes.execute.verbs", "dynnotes.decide.gates", "dynnotes.nets.layers",
                   "dynnotes.data.canvas_digits"):
        assert needed in seen
    kernels = [name for name in seen if name.startswith("dynnotes.execute.kernels")]
    assert kernels                                                   # met on the way, but not read: tests hold them
    read = []
    real_read = evidence._read
    monkeypatch.setattr(evidence, "_read", lambda text, name, package: (read.append(name),
                                                                        real_read(text, name, package))[1])
    evidence.hash_of("veit2018convolutional", "canvas-digits")
    assert "dynnotes.execute.verbs" in read and not set(kernels) & set(read)


# The receipt

class Clock:
    """A clock that advances by the price of what runs, plus what `noise(reading)` adds."""
    def __init__(self, noise=lambda reading: 0.0):
        self.now, self.readings, self.noise = 0.0, 0, noise

    def __call__(self):
        self.readings += 1
        self.now += self.noise(self.readings)
        return self.now

    def costs(self, seconds):
        def call():
            self.now += seconds
        return call


def test_a_quiet_clock_gives_the_true_ratio():
    clock = Clock()
    timing = evidence.compare(clock.costs(0.010), clock.costs(0.004), clock=clock)
    assert timing.ratio == pytest.approx(0.4)
    assert timing.noise == pytest.approx(1)
    assert timing.spread == pytest.approx((0.4, 0.4))
    assert not timing.void
    assert (timing.base, timing.other) == pytest.approx((0.010, 0.004))


def test_slow_drift_cancels_within_a_round():
    clock = Clock()
    slow = itertools.count(1)

    def costs(seconds):
        def call():
            clock.now += seconds * (1 + 0.002 * next(slow))
        return call
    timing = evidence.compare(costs(0.04), costs(0.02), clock=clock)
    assert timing.ratio == pytest.approx(0.5, abs=0.02)
    assert not timing.void


def uneven(clock, noisy_calls):
    """Two prices for the very same work in turn, for the first `noisy_calls` calls; of two calls one is timed."""
    count = itertools.count()

    def call():
        n = next(count)
        clock.now += 0.05 * (1 if n >= noisy_calls or n // 2 % 2 else 3)
    return call


def test_a_noisy_machine_is_tried_again_then_void():
    clock = Clock()
    always = evidence.compare(uneven(clock, 10 ** 9), clock.costs(0.05), rounds=9, attempts=3, clock=clock)
    assert always.void
    assert not 0.95 <= always.noise <= 1.05
    clock = Clock()
    once = evidence.compare(uneven(clock, 40), clock.costs(0.05), rounds=9, attempts=3, clock=clock)
    assert not once.void
    assert once.ratio == pytest.approx(1)


def made(**more):
    return Receipt(**{"batch": 1, "full": 1000.0, "needed": 400.0, "claimed": 400.0, "executed": 400.0, "issued": None,
                      "ms_dense": 1.0, "ms_sparse": 0.55, "time_ratio": 0.55, "time_spread": (0.5, 0.6), "noise": 1.0,
                      "void": False, **more})


def test_the_receipts_own_arithmetic():
    assert made().saving_macs == pytest.approx(0.6)
    assert made().saving_time == pytest.approx(0.45)
    assert made().realised == pytest.approx(0.75)
    assert made(void=True).realised is None
    assert made(executed=1000.0).realised is None
    assert Receipt.of(json.loads(json.dumps(made().record()))) == made()
    assert "no kernel of ours ran" in str(made())
    assert "void" in str(made(void=True))


def test_the_receipt_of_a_net_counts_what_ran_and_puts_everything_back():
    torch.manual_seed(0)
    model, inputs = Toy().train(), samples(40).inputs
    ticks = itertools.count()
    one = evidence.receipt(model, inputs, 1, rounds=1, clock=lambda: next(ticks) / 1000)
    many = evidence.receipt(model, inputs, 32, rounds=1, clock=lambda: next(ticks) / 1000)
    assert one.needed == one.claimed == one.executed < one.full == 120
    assert many.executed == pytest.approx(one.executed), "the same inputs cost the same, however they are grouped"
    assert evidence.receipt(model, inputs, 100, rounds=1, clock=lambda: next(ticks) / 1000).batch == 100
    assert model.training
    assert not model.sparse
    schema = json.loads(evidence.SCHEMA.read_text("utf-8"))
    jsonschema.validate(one.record(), schema["$defs"]["receipt"] | {"$defs": schema["$defs"]})


def test_intervals_have_a_half_width():
    assert Interval(1.0, 0.5, 1.5).half == 0.5
    assert SimpleNamespace(**made().record()).batch == 1


# What the rules and formats say at their edges

def test_three_seeds_by_hand():
    low, high = 0.90 - 4.303 * 0.02 / 3 ** 0.5, 0.90 + 4.303 * 0.02 / 3 ** 0.5          # deviation of these three: 0.02
    assert evidence.interval([0.88, 0.90, 0.92]) == pytest.approx((0.90, low, high), abs=1e-5)


def test_rising_at_half_of_the_budgets_is_not_most():
    def rising_at(count):
        runs = [run(s, b, 0.9, 1000.0 * b, (0.5 if b <= count else -0.5) + s / 100)
                for s in range(3) for b in (1.0, 2.0, 3.0, 4.0)]
        return evidence.verdict(result(runs), [])["claims"][1].holds
    assert [rising_at(n) for n in (0, 2, 3, 4)] == [False, False, True, True]


def test_a_seed_without_its_own_static_nets_is_not_compared():
    runs = [run(s, 1.0, 0.9, 1000.0) for s in range(3)]
    (_, gain), = evidence.gains(result(runs), static((500, 0.5), seeds=2))
    assert gain.mean == pytest.approx(0.3995), "0.900 less 0.500 and 0.501; the third seed has no partner"
    assert evidence.gains(result(runs), static((2000, 0.5))) == [], "no static net is as cheap"


def test_interpolation_is_over_the_logarithm():
    line = static((1000, 0.4), (4000, 0.8), seeds=1)
    assert evidence.static_accuracy_at(2000, line) == pytest.approx(0.6), "halfway in log MACs, a third in MACs"


@pytest.mark.parametrize(("version", "read"), [("1", True), ("1.7", True), ("2", False), ("10", False), ("0", False)])
def test_minor_versions_are_read_and_other_major_ones_are_not(tmp_path, version, read):
    path = evidence.write_json(result(format=f"dynnotes.results/{version}"), tmp_path / "x.json")
    if read:
        assert evidence.load_result(path)["format"].endswith(version)
    else:
        with pytest.raises(ResultError, match=rf"x\.json: the format is dynnotes.results/{version}, .*upgrade"):
            evidence.load_result(path)


def test_a_write_that_fails_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch):
    path = evidence.write_json({"a": 1}, tmp_path / "x.json")

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(evidence.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        evidence.write_json({"a": 2}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
