"""Results are trained again, one per commit; the last test is that."""
import subprocess
from pathlib import Path

import pytest

from dynnotes.learn import evidence, recheck
from dynnotes.learn.train import TrainingError

from .test_evidence import result, run

ROOT = Path(__file__).parents[2]
RESULTS = [p for p in sorted(evidence.folder().glob("*.json")) if not p.stem.startswith("static-")]


def three(*accuracies, macs=100.0, correlation=0.9):
    return [run(seed=s, budget=0.5, accuracy=a, macs=macs, correlation=correlation) for s, a in enumerate(accuracies)]


def test_each_result_gets_its_turn():
    paths = [Path(name) for name in ("c", "a", "b")]
    assert {recheck.choose(paths, f"{n:040x}"[::-1]).name for n in range(64)} == {"a", "b", "c"}
    assert recheck.choose(paths, "000000000004" + "f" * 28).name == "b"


def test_a_value_that_moves_without_its_verdict_passes_and_one_with_it_fails():
    line = [{"net": "n", "epochs": 8, "seed": s, "params": 1, "macs": 100.0, "accuracy": 0.8} for s in range(3)]
    good = result(runs=three(0.90, 0.91, 0.92))
    same = recheck.held_against(good, three(0.905)[:1], line)
    assert (same.left, same.failed) == ((), False)
    moved = recheck.held_against(good, three(0.95)[:1], line)
    assert moved.left == ("seed 0 at 0.5: 0.9500 is not in 0.8852 to 0.9348",)
    assert moved.before == moved.after
    assert not moved.failed
    turned = recheck.held_against(good, three(0.5)[:1], line)
    assert turned.left
    assert turned.before != turned.after
    assert turned.failed


def test_a_stale_result_is_refused(monkeypatch):
    monkeypatch.setattr(evidence, "is_stale", lambda _: True)
    with pytest.raises(TrainingError, match=r"is stale.*measure it again: dynnotes train"):
        recheck.recheck(RESULTS[0])


@pytest.mark.slow
def test_the_result_of_this_commit_is_trained_again(capsys, tmp_path, monkeypatch):
    """Which one the commit's hash says: over many commits all of them."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    path = recheck.choose(RESULTS, commit.strip())
    if evidence.is_stale(evidence.load_result(path)):  # it wears a badge; only a release must not have it
        print(f"{path.name} is stale and waits to be measured again")
        return
    monkeypatch.chdir(tmp_path)
    found = recheck.recheck(path, progress=False)
    print(f"{path.name}: {found}")
    assert not found.failed, f"{path.name}: {'; '.join(found.left)}; was {found.before}, is {found.after}"
