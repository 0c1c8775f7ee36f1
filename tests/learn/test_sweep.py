"""Sweeps: real processes and a real Ray, some of them killed; nothing is lost, nothing counts twice."""
import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dynnotes import cli
from dynnotes.learn import evidence, sweep
from dynnotes.learn.sweep import STATIC, Options, Trial, finished, merge, trials
from dynnotes.learn.train import TrainingError

SMALL = Options(epochs=1, samples=64, test_samples=32)
LONG = Options(epochs=60, samples=600, test_samples=32)
TRIALS = [Trial("graves2016adaptive", "parity", seed) for seed in (0, 1)]


@pytest.fixture(autouse=True)
def one_recipe(monkeypatch):
    """Of ACT's two recipes only that for parity, whose trials take seconds."""
    real = sweep.recipes.recipes_of
    monkeypatch.setattr(sweep.recipes, "recipes_of",
                        lambda key, task=None: tuple(r for r in real(key, task) if r.task == "parity"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the long trials leave when nobody interferes."""
    out = tmp_path_factory.mktemp("undisturbed")
    return dict(sweep.on_local(TRIALS, LONG, out, 2))


def runs(held):
    return {trial: left["result"]["runs"] for trial, left in held.items()}


def pid_of(mark, *, tries=600):
    """The process whose command line holds `mark`."""
    for _ in range(tries):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in line and int(folder.name) != os.getpid():
                return int(folder.name)
        time.sleep(0.1)
    return pytest.fail(f"no process {mark}")


def kill_in_the_middle(mark, checkpoint: Path):
    """Kill a process of this name with a signal that nobody can catch, once it has saved an epoch."""
    def wait_and_kill():
        while not checkpoint.exists():
            time.sleep(0.02)
        os.kill(pid_of(mark), signal.SIGKILL)
        killed.append(True)

    killed: list = []
    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread, killed


def test_threads_may_ask_at_once_of_which_code_a_trial_is():
    """Python 3.11 fails to parse (SystemError) where a garbage collection lets another thread in that parses, too."""
    before, expected, faults = gc.get_threshold(), TRIALS[0].source_hash, []

    def collected(phase, info):
        for _ in range(200):
            pass

    def ask():
        for _ in range(3):
            try:
                assert TRIALS[0].source_hash == expected
            except SystemError as fault:
                faults.append(fault)

    switch = sys.getswitchinterval()
    gc.callbacks.append(collected)
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(collected)
        gc.set_threshold(*before)
        sys.setswitchinterval(switch)
    assert not faults


def test_trials_are_every_recipe_and_seed_once():
    found = trials(["graves2016adaptive"], range(2))
    assert found[:2] == TRIALS
    assert found[2:] == [Trial(STATIC, "parity", 0), Trial(STATIC, "parity", 1)]
    assert trials(["graves2016adaptive", "graves2016adaptive"], [1], static=False) == [TRIALS[1]]
    assert TRIALS[0].name == "graves2016adaptive.parity.0"


@pytest.mark.slow
def test_a_killed_process_is_begun_again_and_the_result_is_the_same(tmp_path, undisturbed):
    checkpoint = tmp_path / TRIALS[0].folder / "seed-0" / "checkpoint.pt"
    thread, killed = kill_in_the_middle(f'"key": "{TRIALS[0].key}", "task": "parity", "seed": 0', checkpoint)
    held = sweep.sweep([TRIALS[0].key], (0, 1), options=LONG, out=tmp_path, workers=2, static=False, progress=False)
    thread.join(5)
    assert killed == [True]
    assert sorted(t.name for t in held) == [t.name for t in TRIALS]
    assert runs(held) == runs(undisturbed)


@pytest.mark.slow
def test_a_killed_ray_worker_loses_nothing_and_counts_nothing_twice(tmp_path, undisturbed):
    pytest.importorskip("ray")
    checkpoint = tmp_path / TRIALS[0].folder / "seed-0" / "checkpoint.pt"
    thread, killed = kill_in_the_middle("ray::run_trial", checkpoint)
    held = sweep.sweep([TRIALS[0].key], (0, 1), on="ray", options=LONG, out=tmp_path, workers=2, static=False,
                       progress=False)
    thread.join(5)
    assert killed == [True]
    assert runs(held) == runs(undisturbed)
    (result, _), = merge(held).values()
    assert sorted((r["seed"], r["budget"]) for r in result["runs"]) == sorted(
        (r["seed"], r["budget"]) for left in undisturbed.values() for r in left["result"]["runs"])


@pytest.mark.slow
def test_what_finished_is_not_run_again(tmp_path, undisturbed, monkeypatch):
    for trial, left in undisturbed.items():
        evidence.write_json(left, tmp_path / f"{trial.name}.json")
    monkeypatch.setattr(sweep, "_process", lambda *a: pytest.fail("run again"))
    held = sweep.sweep([TRIALS[0].key], (0, 1), options=LONG, out=tmp_path, static=False, resume=True, progress=False)
    assert runs(held) == runs(undisturbed)
    assert finished(TRIALS[0], SMALL, tmp_path) is None, "of other options"
    (tmp_path / f"{TRIALS[0].name}.json").write_text("{")
    assert finished(TRIALS[0], LONG, tmp_path) is None, "damaged"


def test_epochs_of_other_code_or_of_a_sweep_begun_anew_are_not_gone_on_from(tmp_path, monkeypatch):
    before = tmp_path / TRIALS[0].folder / "seed-0" / "checkpoint.pt"
    before.parent.mkdir(parents=True)
    before.write_text("old")
    there = []
    monkeypatch.setattr(sweep, "on_local", lambda todo, *a: there.append(before.exists()) or iter(()))
    sweep.sweep([TRIALS[0].key], [0], out=tmp_path, static=False, resume=True, progress=False)
    sweep.sweep([TRIALS[0].key], [0], out=tmp_path, static=False, progress=False)
    assert there == [True, False]
    folder = TRIALS[0].folder
    monkeypatch.setattr(evidence, "hash_of", lambda *a: "another")
    assert TRIALS[0].folder != folder


@pytest.mark.slow
def test_seeds_and_static_nets_come_together(undisturbed):
    static = {Trial(STATIC, "parity", s): {"result": {"task": "parity", "runs": [
        {"net": "a", "seed": s, "macs": 5.0, "epochs": 2, "params": 1, "accuracy": 0.5}]}} for s in (1, 0)}
    (result, lines), = merge({**static, **undisturbed}).values()
    assert {r["seed"] for r in result["runs"]} == {0, 1}
    assert [r["seed"] for r in lines] == [0, 1]
    assert result["static"] == {"file": "static-parity.json", "epochs": 2}
    evidence.check(result)
    assert sweep.trained_model(undisturbed[TRIALS[0]]).training is False


@pytest.mark.slow
def test_a_trial_that_cannot_run_says_why(tmp_path):
    with pytest.raises(TrainingError, match="graves2016adaptive: no recipe for 'chess'"):
        list(sweep.on_local([Trial("graves2016adaptive", "chess", 0)], SMALL, tmp_path, 1))


def test_a_process_that_is_killed_again_and_again_is_given_up(tmp_path, monkeypatch):
    begun = []

    def killed(*a, **b):
        begun.append(1)
        return type("Done", (), {"returncode": -9, "stderr": ""})

    monkeypatch.setattr(sweep.subprocess, "run", killed)
    with pytest.raises(TrainingError, match=r"killed 3 times.*--workers"):
        sweep._process(TRIALS[0], SMALL, tmp_path)
    assert len(begun) == 3


def test_static_nets_of_seeds_measured_before_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "folder", lambda: tmp_path)
    same = {"macs": 1.0, "epochs": 1, "params": 1}
    run = lambda net, seed, accuracy: {"net": net, "seed": seed, "accuracy": accuracy} | same
    content = {"format": evidence.STATIC_FORMAT, "task": "t", "samples": 1, "test_samples": 1, "recipe": {},
               "source_hash": "0" * 16, **evidence.circumstances("x")}
    monkeypatch.setattr(evidence, "read_json", lambda path, _: json.loads(Path(path).read_text()))
    sweep.keep_static(content, [run("a", 0, 0.5), run("a", 1, 0.5)])
    sweep.keep_static(content, [run("a", 1, 0.7)])
    held = json.loads((tmp_path / "static-t.json").read_text())["runs"]
    assert [(r["seed"], r["accuracy"]) for r in held] == [(0, 0.5), (1, 0.7)]
    sweep.keep_static(content | {"source_hash": "1" * 16}, [run("a", 1, 0.9)])
    assert len(json.loads((tmp_path / "static-t.json").read_text())["runs"]) == 1


def test_the_command_refuses_what_is_not_implemented(capsys):
    assert cli.main(["sweep", "temporal/sensors"]) == 2
    assert "no paper in temporal/sensors is implemented yet" in capsys.readouterr().err
    assert cli.main(["sweep", "nosuch"]) == 2
