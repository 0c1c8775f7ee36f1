"""benchmarks/receipts.py: what it prints and what it writes."""
import json

import pytest

from benchmarks import receipts
from dynnotes.learn import evidence

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
