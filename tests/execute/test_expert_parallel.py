"""Experts over real processes equal one process, bill what ran, keep what they learnt, and say that a rank is lost.

Processes are started once: four ranks and two by torch.distributed.run, then three of which one falls
(expert_parallel_worker.py), then the book's example. The tests read what they left.
"""
import fcntl
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import expert_parallel as benchmark
from dynnotes.execute.expert_parallel import BrokenCheckpoint, load, save
from tests.execute import expert_parallel_worker as worker

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
SIZES = 2, 4
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:torch.distributed is disabled")]


def torchrun(ranks: int, *command, log: Path) -> None:
    with open(log, "w") as out:
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
                        *command], stdout=out, stderr=out, env=ENV, cwd=log.parent, timeout=120, check=False)


def start_all(folder: Path) -> None:
    """One process saves, four ranks and two agree with one process, one of three falls, two run the book's example."""
    model = worker.Layer().double()
    optimizer = worker.learnt(model, worker.tokens_of([12]), 12)
    optimizer.step()
    state = worker.state_of(model, optimizer)
    save(state, folder / "from-1")
    torch.save(worker.bits(state), folder / "from-1.pt")
    for ranks in reversed(SIZES):
        torchrun(ranks, worker.__file__, "agree", folder, log=folder / f"agree-{ranks}.log")
    falling = []
    for rank in range(3):
        with open(folder / f"{rank}-fall.log", "w") as log:
            falling.append(subprocess.Popen([sys.executable, worker.__file__, "fall", folder], stdout=log, stderr=log,
                                            env={**ENV, "RANK": str(rank), "WORLD_SIZE": "3"}))
    try:
        ends = [process.wait(60) for process in falling]
    finally:
        for process in falling:
            process.kill()
    (folder / "ends.json").write_text(json.dumps(ends))
    (folder / "train.py").write_text(re.search(r"```python\n(.*?)```", benchmark.PAGE.read_text("utf-8"), re.S)[1])
    torchrun(2, "train.py", log=folder / "train.log")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the processes left what they saw; several pytest workers start them once between them."""
    base = tmp_path_factory.getbasetemp()
    found = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "expert-parallel"
    found.mkdir(exist_ok=True)
    with open(found / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found / "started").exists():
            (found / "started").touch()
            start_all(found)
    return found


@pytest.fixture
def seen(folder):
    def read(name: str) -> dict:
        logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))
        assert (folder / f"{name}.json").is_file(), f"{name} left nothing:\n{logs}"
        return json.loads((folder / f"{name}.json").read_text())
    return read


# As one process ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ranks", SIZES)
def test_values_and_gradients_are_those_of_one_process(seen, ranks):
    found = seen(f"agree-{ranks}")["cases"]
    assert len(found) == 12
    for name, difference in found.items():
        limit = 4 * torch.finfo(getattr(torch, name)).eps if name in ("float32", "bfloat16") else 1e-9
        assert max(difference.values()) <= limit, (name, difference)


@pytest.mark.parametrize("ranks", SIZES)
def test_a_network_with_a_router_is_that_of_one_process_in_both_forms(seen, ranks):
    found = seen(f"agree-{ranks}")["networks"]
    for name, case in found.items():
        assert max(case[what] for what in ("value", "dense form", "gradients")) <= 1e-9, (name, case)
        assert case["trace"] == 0, name
        assert case["held"] == 1 / ranks, name
    assert found["skewed"]["idle experts"] >= 4 and 0 in found["skewed"]["executed"]   # the cases are what they are for
    assert 0 < found["dropped"]["routed"] < sum(6 + 2 * r for r in range(ranks))
    assert found["no room"]["routed"] == 0
    assert found["last rank without tokens"]["claimed"][-1] == 0


@pytest.mark.parametrize("ranks", SIZES)
def test_conservation_a_rank_executes_what_arrived_and_all_ranks_together_what_was_claimed(seen, ranks):
    for name, case in seen(f"agree-{ranks}")["networks"].items():
        assert sum(case["executed"]) == sum(case["claimed"]), name
        assert case["executed"] == case["rows that arrived, in MACs"], name
        if case["routed"]:
            assert case["executed"] != case["claimed"], f"{name}: nothing travelled"


@pytest.mark.parametrize("ranks", SIZES)
def test_training_with_clipped_norms_and_beside_ddp_and_fsdp_is_that_of_one_process(seen, ranks):
    found = seen(f"agree-{ranks}")["trained"]
    assert set(found) == {"three steps", "DistributedDataParallel", "fully_shard"}
    assert max(found.values()) <= 1e-9, found


# Errors --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ranks", SIZES)
def test_what_ranks_disagree_about_every_rank_says_at_once(seen, ranks):
    expected = {
        "not divisible": f"{ranks + 1} experts cannot be shared out evenly over {ranks} ranks",
        "another size": f"rank 0 8 experts, 6 -> 10 -> 6, relu, biases, torch.float32; rank {ranks - 1} 8 experts, "
                        f"6 -> 11 -> 6",
        "another dtype": f"rank {ranks - 1} 8 experts, 6 -> 10 -> 6, relu, biases, torch.bfloat16",
        "a mesh of two axes": "mesh['experts']",
        "rows of another width": f"rank 0 rows of 6 torch.float64, gradients for experts; rank {ranks - 1} rows of 7",
        "rows that learn on some ranks": "gradients for rows",
    }
    found = seen(f"agree-{ranks}")["errors"]
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        assert len(found[name]) == ranks and len(set(found[name])) == 1, found[name]
        assert part in found[name][0], found[name][0]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_late_rank_ends_in_an_error_within_the_timeout(seen, rank):
    found = seen(f"{rank}-late")
    assert worker.LATE - 0.5 < found["seconds"] < worker.LATE + 2, found
    for part in ("all_to_all_single of gradients of answers", f"rank {rank} (group of 3)",
                 f"with a timeout of {worker.LATE} s", "init_process_group(timeout=", "the last checkpoint"):
        assert part in found["message"], found
    assert "Timed out" in found["cause"]


def test_a_late_rank_itself_is_told_that_the_others_have_gone(seen):
    found = seen("2-late")
    assert worker.SLEEP <= found["seconds"] < worker.SLEEP + 2, found
    assert "rank 2 (group of 3)" in found["message"] and "was killed or failed" in found["message"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_in_an_error_long_before_the_timeout(seen, rank, folder):
    found, ends = seen(f"{rank}-killed"), seen("ends")
    assert found["seconds"] < 5 < worker.PATIENT, found
    for part in ("all_to_all_single of gradients of answers", f"rank {rank} (group of 3)",
                 f"with a timeout of {worker.PATIENT} s", "was killed or failed", "the last checkpoint"):
        assert part in found["message"], found
    assert ends[2] == -9 and ends[rank] == 1, ends
    assert "ExchangeFailed" in (folder / f"{rank}-fall.log").read_text()


# Checkpoints ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("saved", "loaded"), [(1, 4), (4, 4), (1, 2), (4, 2), (2, 2)])
def test_weights_and_moments_are_loaded_to_the_last_bit_on_other_ranks(seen, saved, loaded):
    found = seen(f"agree-{loaded}")["checkpoints"]
    assert found[f"from-{saved}"] == 0
    assert f"from-{loaded} holds a checkpoint" in found["saved twice"]


@pytest.mark.parametrize("saved", [2, 4])
def test_weights_and_moments_are_loaded_to_the_last_bit_in_one_process(seen, folder, saved):
    seen(f"agree-{saved}")
    expected = torch.load(folder / f"from-{saved}.pt")
    model = worker.Layer().double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(math.nan)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    state = worker.state_of(model, optimizer)
    load(state, folder / f"from-{saved}")
    worker.set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    found = worker.bits(worker.state_of(model, optimizer))
    assert found.keys() == expected.keys() and len(expected) > 20
    assert all(torch.equal(found[name], t) for name, t in expected.items())
    assert any("experts.w2" in name and "exp_avg_sq" in name for name in expected)


DAMAGE = {
    "missing": (lambda file: file.unlink(), "__2_0.distcp", "is missing"),
    "cut short": (lambda file: os.truncate(file, file.stat().st_size // 2), "__2_0.distcp", "bytes; copy it again"),
    "no index": (lambda file: file.unlink(), ".metadata", "is not there"),
    "index cut short": (lambda file: os.truncate(file, file.stat().st_size // 2), ".metadata", "cannot be read"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_the_name_of_the_file(seen, folder, tmp_path, how):
    seen("agree-4")
    damage, name, said = DAMAGE[how]
    copy = tmp_path / "copy"
    shutil.copytree(folder / "from-4", copy)
    state = {"model": worker.Layer().double().state_dict()}
    before = {n: t.clone() for n, t in state["model"].items()}
    damage(copy / name)
    with pytest.raises(BrokenCheckpoint) as fault:
        load(state, copy)
    assert str(copy / name) in str(fault.value) and said in str(fault.value)
    assert all(torch.equal(t, before[n]) for n, t in state["model"].items())           # nothing was half loaded
    load(state, folder / "from-4")
    assert not torch.equal(state["model"]["experts.w1"], before["experts.w1"])


# The page ------------------------------------------------------------------------------------------------------------

def test_the_example_of_the_page_runs_and_learns(folder):
    log = (folder / "train.log").read_text()
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", log)]
    assert len(losses) == 5, log
    assert losses[-1] < 0.9 * losses[0]
    model = {"experts.w1": torch.full((16, 256, 64), math.nan)}
    load({"model": model}, folder / "checkpoint")
    assert model["experts.w1"].isfinite().all()


def test_the_table_of_the_page_is_that_of_the_shipped_measurement():
    page, content = benchmark.PAGE.read_text("utf-8"), json.loads(benchmark.SHIPPED.read_text("utf-8"))
    assert benchmark.fill(page, content) == page, "python -m benchmarks.expert_parallel --page"
    rows = content["rows"]
    assert {(row["d"], row["ranks"]) for row in rows} == {(d, p) for d in benchmark.WIDTHS for p in benchmark.RANKS}
    for row in rows:                                                 # rows travel, and gradients: four times R D b
        away = row["tokens_per_rank"] * row["k"] * (row["ranks"] - 1)
        assert row["bytes_computed"] == row["bytes_counted"]
        assert row["bytes_counted"] == pytest.approx(4 * away * row["d"] * 4, rel=0.05)
