"""Times of trained and of static nets: ratios to one reference, on a clock that runs by what is computed."""
import json
from functools import partial

import jsonschema
import pytest
import torch
from torch import nn

from dynnotes.data import Data
from dynnotes.learn import clock, evidence, frontier, recipes, shipped
from dynnotes.learn.evidence import ResultError
from dynnotes.registry import Budget, Stage

from .test_evidence import Clock, result, run
from .toy import Toy, samples

TASK = "toy"


def static_file(folder, nets=(("net 0", 10.0), ("net 1", 30.0), ("net 2", 20.0)), **more):
    runs = [{"net": net, "macs": macs, "params": 1, "accuracy": 0.5, "seed": s, "epochs": 2}
            for net, macs in nets for s in range(2)]
    return evidence.write_json({"format": evidence.STATIC_FORMAT, "task": TASK, "source_hash": "1" * 16, "runs": runs}
                               | more, folder / f"static-{TASK}.json")


def of_toy(**more):
    return result([run(s, b, 0.9, 100.0 - b) for s in range(2) for b in (0.5, 2.0)], task=TASK, full=120.0,
                  static={"file": f"static-{TASK}.json", "epochs": 2}, **more)


@pytest.fixture
def ticking(tmp_path, monkeypatch):
    """Three static nets and Toy on a clock: a net's price is per input, the sparse Toy's falls with its threshold."""
    watch = Clock()

    class Costs(nn.Module):
        def __init__(self, seconds):
            super().__init__()
            self.seconds, self.layer = seconds, nn.Linear(4, 3)

        def forward(self, x):
            watch.now += self.seconds * len(x)
            return self.layer(x)

    class Timed(Toy):
        def forward(self, x):
            watch.now += len(x) * (0.008 / (1 + self.threshold) if self.sparse else 0.008)
            return super().forward(x)

    seconds = {"net 0": 0.001, "net 1": 0.004, "net 2": 0.006}           # slower than the dearest: MACs are not time
    family = frontier.Family("dynnotes.nets.layers", Stage(1, 0.1), {
        name: lambda data, s=s: Costs(s) for name, s in seconds.items()})
    monkeypatch.setitem(clock.FAMILIES, TASK, family)
    monkeypatch.setattr(clock.tasks, "load", lambda task, split: samples(100))
    monkeypatch.setattr(evidence, "folder", lambda: tmp_path)
    monkeypatch.setattr(evidence, "race", partial(evidence.race, clock=watch))
    monkeypatch.setattr(clock, "Timed", Timed, raising=False)
    static_file(tmp_path)
    return watch


def test_many_against_one_by_hand():
    watch = Clock()
    found = evidence.race(watch.costs(0.010), {"a": watch.costs(0.004), "b": watch.costs(0.025)}, clock=watch)
    assert found.ratios["a"] == pytest.approx((0.4, 0.4, 0.4))
    assert found.ratios["b"] == pytest.approx((2.5, 2.5, 2.5))
    assert found.seconds == pytest.approx({"base": 0.010, "a": 0.004, "b": 0.025})
    assert (found.noise, found.void) == (pytest.approx(1), False)


def test_the_quartiles_are_those_of_the_rounds():
    watch = Clock()
    rounds = [price for seconds in range(1, 9) for price in (0.0, seconds)]    # of two calls one is timed
    price = iter([1.0] * 3 + rounds)                                           # three before the rounds
    def other():
        watch.now += next(price)
    found = evidence.race(watch.costs(2.0), {"other": other}, rounds=8, clock=watch)
    assert found.ratios["other"] == pytest.approx((4.5 / 2, 3 / 2, 6 / 2))


def test_a_machine_that_is_not_quiet_makes_all_of_them_void():
    watch = Clock()
    turn = iter(range(10 ** 9))
    def uneven():
        watch.now += 0.05 * (3 if next(turn) // 2 % 2 else 1)                # of two calls one is timed
    assert evidence.race(uneven, {"a": watch.costs(0.1), "b": watch.costs(0.1)}, rounds=9, clock=watch).void


def test_static_nets_are_ratios_to_the_dearest_and_kept_beside_their_runs(ticking, tmp_path):
    found = clock.time_static(TASK, rounds=3)
    assert found["reference"] == {"net": "net 1", "source_hash": "1" * 16}
    assert [(row["net"], row["batch"]) for row in found["rows"]] == [
        (net, batch) for net in ("net 0", "net 1", "net 2") for batch in (1, 32)]
    assert [row["ratio"] for row in found["rows"]] == [pytest.approx([r] * 3) for r in (0.25, 0.25, 1, 1, 1.5, 1.5)]
    assert all(row["reference_ms"] == pytest.approx(4) and not row["void"] for row in found["rows"])
    held = evidence.read_json(tmp_path / f"static-{TASK}.json", evidence.STATIC_FORMAT)
    assert held["clock"] == found
    assert len(held["runs"]) == 6
    assert evidence.static_clock(of_toy()) == found
    assert evidence.reference_ms(found) == pytest.approx({1: 4, 32: 4})
    before = ticking.now
    assert clock.static_clock(TASK) == found
    assert ticking.now == before, "what is there is not measured again"


@pytest.mark.parametrize("change", [
    lambda c: c.update(clock=c["clock"] | {"rows": c["clock"]["rows"][1:]}),
    lambda c: c.update(source_hash="2" * 16),
    lambda c: c["runs"].append({**c["runs"][0], "net": "net 2", "macs": 99.0}),
    lambda c: c.pop("clock"),
])
def test_static_nets_are_timed_again_when_some_are_missing_or_the_reference_is_another(ticking, tmp_path, change):
    clock.time_static(TASK, rounds=1)
    content = evidence.read_json(tmp_path / f"static-{TASK}.json", evidence.STATIC_FORMAT)
    change(content)
    evidence.write_json(content, tmp_path / f"static-{TASK}.json")
    before = ticking.now
    found = clock.static_clock(TASK, rounds=1, write=False)
    assert ticking.now > before
    assert found["reference"] == clock.reference_of(TASK, content)
    assert {row["net"] for row in found["rows"]} == {"net 0", "net 1", "net 2"}
    assert evidence.read_json(tmp_path / f"static-{TASK}.json", evidence.STATIC_FORMAT) == content, "asked not to write"


def test_a_trained_net_is_timed_at_each_budget_dense_and_sparse(ticking):
    torch.manual_seed(0)
    model, static = clock.Timed().train(), clock.time_static(TASK, rounds=1)
    model.threshold = 1.25
    found = clock.time_trained(model, of_toy(), static, rounds=3, command="here")
    assert [(row["budget"], row["batch"]) for row in found["rows"]] == [(2.0, 1), (2.0, 32), (0.5, 1), (0.5, 32)]
    for row in found["rows"]:
        assert row["dense"] == pytest.approx([2] * 3)                     # 8 ms over 4 ms
        assert row["sparse"] == pytest.approx([2 / (1 + row["budget"])] * 3)
        assert row["reference_ms"] == pytest.approx(4)
    assert found["rows"][0]["macs"] < found["rows"][2]["macs"] < 120
    assert model.training and not model.sparse and model.threshold == 1.25, "left as it was"
    held = evidence.check(of_toy(clock=found))
    assert [row["ms"] for row in evidence.times(held, static)] == pytest.approx([8 / 3] * 2 + [8 / 1.5] * 2)
    assert [row["ms_dense"] for row in evidence.times(held, static)] == pytest.approx([8] * 4)


def test_a_ratio_of_one_is_the_quietest_of_the_references_times():
    def took(net, batch, ms, void=False):
        return {"net": net, "batch": batch, "reference_ms": ms, "void": void}
    rows = [took("a", 1, 2.2), took("b", 1, 2.0), took("c", 1, 1.0, True), took("a", 32, 0.4, True)]
    assert evidence.reference_ms(of(*rows)) == {1: 2.0, 32: 0.4}, "a void time counts where there is no other"
    assert evidence.reference_ms(of()) == {}


def test_the_scale_is_that_of_one_measurement_whatever_the_machine_did_later(ticking):
    static = clock.time_static(TASK, rounds=1)
    taken = clock.time_trained(clock.Timed(), of_toy(), static, rounds=1)
    later = {**taken, "rows": [{**row, "reference_ms": 3 * row["reference_ms"]} for row in taken["rows"]]}
    assert evidence.times(of_toy(clock=later), static)[0]["ms"] == evidence.times(of_toy(clock=taken), static)[0]["ms"]
    assert evidence.times(of_toy(clock=taken), static | {"reference": {"net": "net 0", "source_hash": "1" * 16}}) == []
    assert evidence.times(of_toy(clock=taken), None) == evidence.times(of_toy(), static) == []


def test_weights_for_one_budget_are_timed_at_that_alone(ticking, monkeypatch):
    each = Budget("threshold", 0.0, 4.0, (0.5, 2.0), cheaper="higher", retrain=True)
    monkeypatch.setattr(clock.Timed, "budget", each)
    found = clock.time_trained(clock.Timed(), of_toy(), clock.time_static(TASK, rounds=1), rounds=1)
    assert {row["budget"] for row in found["rows"]} == {2.0}


def test_a_paper_without_a_budget_is_timed_once(ticking, monkeypatch):
    monkeypatch.setattr(clock.Timed, "budget", None)
    alone = of_toy() | {"runs": [run(0, None, 0.9, 50.0)], "budget": None}
    found = clock.time_trained(clock.Timed(), alone, clock.time_static(TASK, rounds=1), rounds=1)
    assert [(row["budget"], row["batch"]) for row in found["rows"]] == [(None, 1), (None, 32)]
    evidence.check(alone | {"clock": found})


def test_rows_that_are_held_are_not_timed_again(ticking):
    static = clock.time_static(TASK, rounds=1)
    first = clock.time_trained(clock.Timed(), of_toy(), static, rounds=1)
    held = [row | {"noise": 1.01} for row in first["rows"][1:]]
    again = clock.time_trained(clock.Timed(), of_toy(), static, rounds=1, held=held)
    assert again["rows"][1:] == held
    assert again["rows"][0]["noise"] != 1.01


def test_the_timed_inputs_are_as_hard_as_all_and_mixed():
    hard = torch.cat([torch.zeros(500), torch.linspace(0, 1, 300), torch.ones(200)])
    data = Data("x", "test", (torch.arange(1000.0).unsqueeze(1),), torch.zeros(1000), hard)
    (x,) = clock.timed_inputs(data)
    taken = hard[x.squeeze(1).long()]
    assert len(x.unique()) == len(x) == clock.INPUTS
    assert float(taken.mean()) == pytest.approx(float(hard.mean()), abs=0.01)
    for batch in taken.split(32):
        assert float(batch.mean()) == pytest.approx(float(hard.mean()), abs=0.1), "each batch holds easy and hard ones"
    few = Data("x", "test", (torch.arange(10.0).unsqueeze(1),), torch.zeros(10), torch.linspace(0, 1, 10))
    assert len(clock.timed_inputs(few)[0]) == clock.INPUTS


def test_threads_and_gradients_are_put_back(ticking):
    threads, seen = torch.get_num_threads(), []
    model = clock.Timed()
    model.register_forward_pre_hook(lambda *_: seen.append((torch.get_num_threads(), torch.is_grad_enabled())))
    clock.time_trained(model, of_toy(), clock.time_static(TASK, rounds=1), rounds=1)
    assert (1, False) in seen
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()


# What is believed

def row(**more):
    return {"budget": 0.5, "batch": 1, "macs": 9.0, "reference_ms": 3.0, "sparse": [1.0, 0.9, 1.1],
            "dense": [2.0, 1.9, 2.1], "noise": 1.0, "void": False, **more}


def of(*rows, **more):
    return {"reference": {"net": "a", "source_hash": "1" * 16}, "inputs": 64, "rounds": 9, "rows": list(rows),
            "versions": {"python": "3"}, "date": "2026-01-02", "commit": None, "command": "x", **more}


def test_a_result_with_a_clock_is_read_and_one_without_still_is():
    evidence.check(of_toy(clock=of(row(), row(batch=32), row(budget=2.0))))
    evidence.check(of_toy(clock=of()))
    evidence.check(of_toy())


@pytest.mark.parametrize(("rows", "message"), [
    ([row(budget=0.7)], r"clock\.rows\.0\.budget: 0.7 was not measured, only \[0.5, 2.0\]"),
    ([row(budget=None)], r"budget: None was not measured"),
    ([row(), row()], "budget 0.5 at batch 1 occurs twice"),
    ([row(sparse=[0.0, 0.0, 1.0])], r"clock\.rows\.0\.sparse"),
    ([row(sparse=[-1.0, -2.0, 1.0])], r"clock\.rows\.0\.sparse"),
    ([row(dense=[float("inf"), 1.0, float("inf")])], "dense: should be finite"),
    ([row(dense=[float("nan"), 1.0, 2.0])], "dense: should be finite"),
    ([row(), row(batch=32, reference_ms=float("nan"))], r"rows\.1\.reference_ms: should be finite"),
    ([row(macs=float("inf"))], "macs: should be finite"),
    ([row(sparse=[1.0, 1.2, 1.4])], "the median 1.0 is not between the quartiles"),
    ([row(noise=1.06)], "void: is False, with a noise of 1.06"),
    ([row(void=True)], "void: is True, with a noise of 1.0"),
    ([row(ratio=[1.0, 1.0, 1.0])], "ratio"),
    ([{"budget": 0.5, "batch": 1}], "required"),
])
def test_a_row_that_cannot_be_believed_is_named(rows, message):
    with pytest.raises(ResultError, match=message):
        evidence.check(of_toy(clock=of(*rows)))


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c["rows"][0].update(net="net 9"), r"static-toy\.json: clock\.rows\.0\.net: 'net 9' was not measured"),
    (lambda c: c["rows"][0].pop("ratio"), r"static-toy\.json: rows\.0: 'ratio' is a required"),
    (lambda c: c.pop("reference"), r"static-toy\.json: clock: 'reference' is a required"),
    (lambda c: c["rows"][1].update(noise=2.0), r"static-toy\.json: clock\.rows\.1\.void"),
])
def test_a_wrong_clock_of_static_nets_names_the_file_and_the_field(ticking, tmp_path, change, message):
    found = clock.time_static(TASK, rounds=1)
    change(found)
    static_file(tmp_path, clock=found)
    with pytest.raises(ResultError, match=message):
        evidence.static_clock(of_toy())


def test_there_may_be_no_clock(ticking, tmp_path):
    assert evidence.static_clock(of_toy()) is None
    assert evidence.static_clock(of_toy() | {"static": None}) is None
    assert evidence.static_clock(of_toy() | {"static": {"file": "gone.json", "epochs": 2}}) is None


def test_every_clock_of_the_project_fits_the_schema_and_its_static_nets():
    schema = json.loads(evidence.SCHEMA.read_text("utf-8"))
    part = schema["$defs"]["static_clock"] | {"$defs": schema["$defs"]}
    for path in sorted(evidence.folder().glob("static-*.json")):
        content = evidence.read_json(path, evidence.STATIC_FORMAT)
        jsonschema.validate(content["clock"], part)
        assert content["clock"]["reference"] == clock.reference_of(content["task"], content), path
        assert {r["net"] for r in content["clock"]["rows"]} == {r["net"] for r in content["runs"]}
    for path in sorted(evidence.folder().glob("*.json")):
        if not path.name.startswith("static-"):
            held = evidence.load_result(path)
            shipped_weights = (shipped.CHECKPOINTS / f"{path.stem}.safetensors").is_file()
            assert "clock" in held or not shipped_weights, path     # a training may time nets that are not shipped
            budgets = {r["budget"] for r in held["runs"]} if "clock" in held else set()
            found = evidence.times(held, evidence.static_clock(held, path.parent))
            assert {(r["budget"], r["batch"]) for r in found} == {(b, n) for b in budgets for n in (1, 32)}, path
            for r in found:                                # 64 inputs cost about what all cost
                runs = [x["macs_executed"] for x in held["runs"] if (x["budget"], x["seed"]) == (r["budget"], 0)]
                assert r["macs"] == pytest.approx(runs[0], rel=0.1), path


# Where it is kept

def test_a_training_times_its_net_and_a_quick_one_does_not(ticking, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "result_path", lambda key, task: tmp_path / f"{key}.{task}.json")
    told = recipes.keep(of_toy(), clock.Timed(), tmp_path, altered=False)
    assert {row["budget"] for row in told["clock"]["rows"]} == {0.5, 2.0}
    assert evidence.load_result(tmp_path / f"{told['paper']}.{TASK}.json") == told
    assert told["clock"]["command"] == told["command"]
    assert "clock" not in recipes.keep(of_toy(), clock.Timed(), tmp_path / "altered", altered=True)
    assert "clock" not in recipes.keep(of_toy() | {"static": None, "task": "none"}, clock.Timed(), tmp_path, False)


def test_later_seeds_keep_the_times_of_the_first(ticking):
    timed = of_toy(clock=of(row()))
    later = of_toy() | {"runs": [run(s, b, 0.9, 100.0) for s in (5, 6) for b in (0.5, 2.0)]}
    assert recipes.merged(later, timed)["clock"] == timed["clock"]
    assert "clock" not in recipes.merged(later | {"source_hash": "9" * 16}, timed), "of other code"
    newer = of(row(noise=1.02))
    assert recipes.merged(later | {"clock": newer}, timed)["clock"] == newer


def test_static_nets_trained_later_leave_the_clock(tmp_path, monkeypatch):
    family = frontier.Family("dynnotes.nets.layers", Stage(1, 0.1), {})
    options = {"sizes": (8, 8), "file": tmp_path / "static.json", "family": family}
    content = frontier.static_nets("parity", (0,), **options)
    evidence.write_json(content | {"clock": of()}, tmp_path / "static.json")
    assert frontier.static_nets("parity", (0,), **options)["clock"] == of()
    evidence.write_json(content | {"clock": of(), "source_hash": "9" * 16}, tmp_path / "static.json")
    assert "clock" not in frontier.static_nets("parity", (0,), **options), "of other code"


