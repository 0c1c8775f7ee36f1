"""benchmarks/receipts.py: what it prints and what it writes."""
import json

import pytest

from benchmarks import receipts
from dynnotes.learn import evidence, shipped

from . import test_clock
from .test_clock import TASK, of_toy, ticking  # noqa: F401  the fixture
from .test_evidence import result, run

KEY = "veit2018convolutional"


@pytest.fixture
def held(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "folder", lambda: tmp_path)
    real = evidence.compare
    monkeypatch.setattr(evidence, "compare", lambda *a, rounds, clock: real(*a, rounds=1, target=0, clock=clock))
    return tmp_path


def test_without_results_the_net_stays_as_it_is_and_nothing_is_written(held, capsys):
    assert receipts.main([KEY, "--json", "--rounds", "1"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)[KEY]
    assert [r["batch"] for r in rows] == [1, 32]
    assert all(r["needed"] == r["claimed"] == r["executed"] < r["full"] for r in rows)
    assert not list(held.iterdir())


def test_the_trained_share_is_reached_and_written(held, capsys):
    path = evidence.write_json(result([run(0, 0.5, 0.9, 2400.0)], full=4000.0), held / f"{KEY}.json")
    assert receipts.main([KEY, "--write", "--rounds", "1"]) in (0, 1)
    assert "at 60% of its MACs, as trained" in capsys.readouterr().out
    rows = evidence.load_result(path)["receipts"]
    assert all(r["executed"] / r["full"] == pytest.approx(0.6, abs=0.05) for r in rows)
    assert evidence.load_result(path)["runs"] == result([run(0, 0.5, 0.9, 2400.0)])["runs"]


@pytest.mark.parametrize(("words", "message"), [(["nobody"], "not implemented"), ([KEY, "--rounds", "0"], "at least 1"),
                                                ([KEY, "--write", "--rounds", "1"], "no such file")])
def test_wrong_uses(held, capsys, words, message):
    with pytest.raises(SystemExit):
        receipts.main(words)
    assert message in capsys.readouterr().err


@pytest.fixture
def two(ticking, tmp_path, monkeypatch):                                         # noqa: F811
    """A result whose weights are shipped, one of a second recipe, and one without static nets."""
    monkeypatch.setattr(receipts.shipped, "load_model", lambda key: test_clock.clock.Timed())
    evidence.write_json(of_toy(), tmp_path / f"{KEY}.json")
    evidence.write_json(of_toy(), tmp_path / f"{KEY}.again.json")
    evidence.write_json(result(), tmp_path / "nothing2000beside.json")
    return ticking


def test_the_trained_nets_are_timed_and_written(two, tmp_path, capsys):
    assert receipts.main(["--trained", "--write", "--rounds", "1"]) == 0
    told = capsys.readouterr()
    held = evidence.load_result(tmp_path / f"{KEY}.json")
    assert {(r["budget"], r["batch"]) for r in held["clock"]["rows"]} == {(b, n) for b in (0.5, 2.0) for n in (1, 32)}
    assert [round(r["sparse"][0], 3) for r in held["clock"]["rows"]] == [0.667, 0.667, 1.333, 1.333]
    assert evidence.static_clock(held)["rows"][0]["ratio"][0] == pytest.approx(0.25)
    assert held["runs"] == of_toy()["runs"] and held["receipts"] == []
    assert "clock" not in evidence.load_result(tmp_path / f"{KEY}.again.json")
    assert f"{KEY}.again: skipped, no weights of it are shipped" in told.err
    assert "nothing2000beside: skipped" in told.err
    assert "sparse 0.667 (0.667 to 0.667), dense 2.000" in told.out
    assert f"static-{TASK}" in told.out


def test_without_write_nothing_is_written(two, tmp_path, capsys):
    before = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert receipts.main(["--trained", "--json", "--rounds", "1"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [KEY]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == before


def test_only_what_is_void_or_missing_is_timed_again(two, tmp_path, capsys):
    receipts.main(["--trained", "--write", "--rounds", "1"])
    path = tmp_path / f"{KEY}.json"
    held = evidence.load_result(path)
    rows = held["clock"]["rows"]
    kept, void, wrong = rows[0] | {"noise": 1.01}, rows[1] | {"noise": 1.2, "void": True}, rows[2:3]
    evidence.write_json(held | {"clock": held["clock"] | {"rows": [kept, void, *wrong]}}, path)
    static = evidence.static_clock(held)
    assert receipts.main(["--trained", "--write", "--void", "--rounds", "1"]) == 0
    now = evidence.load_result(path)["clock"]["rows"]
    assert now[0] == kept
    assert not now[1]["void"] and now[1]["noise"] == pytest.approx(1)
    assert len(now) == 4
    assert evidence.static_clock(held)["rows"] == static["rows"]
    other = held["clock"] | {"rows": [kept], "reference": {"net": "net 0", "source_hash": "1" * 16}}
    evidence.write_json(held | {"clock": other}, path)
    receipts.main(["--trained", "--write", "--void", "--rounds", "1"])
    assert evidence.load_result(path)["clock"]["rows"][0] != kept, "of another reference, so nothing of it is kept"


def test_a_void_row_is_an_exit_code_and_a_missing_checkpoint_is_named(two, tmp_path, monkeypatch, capsys):
    taken = test_clock.clock.time_trained
    monkeypatch.setattr(test_clock.clock, "time_trained", lambda *a, **k: (lambda c: {**c, "rows": [
        r | {"noise": 1.2, "void": True} for r in c["rows"]]})(taken(*a, **k)))
    assert receipts.main(["--trained", "--write", "--rounds", "1"]) == 1
    assert "noise 1.200, void" in capsys.readouterr().out

    def gone(key):
        raise shipped.CheckpointError(f"{key}: there is no such checkpoint")
    monkeypatch.setattr(receipts.shipped, "load_model", gone)
    with pytest.raises(SystemExit):
        receipts.main([KEY, "--trained"])
    assert "there is no such checkpoint" in capsys.readouterr().err


def test_void_alone_is_refused(held, capsys):
    with pytest.raises(SystemExit):
        receipts.main(["--void"])
    assert "--void is for --trained" in capsys.readouterr().err
