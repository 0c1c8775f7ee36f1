"""Training in real processes that are really killed, and on a disk that really is full."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = """
import importlib.util, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from dynnotes.learn import train
spec = importlib.util.spec_from_file_location("toy", {toy!r})
toy = importlib.util.module_from_spec(spec)
sys.modules["toy"] = toy
spec.loader.exec_module(toy)
model = train.build(toy.Toy, 0)
{before}
history = train.train(model, toy.RECIPE, toy.samples(), seed=0, out={out!r}, resume={resume})
print(len(history), train.digest(model))
"""


def code(out, before="", resume=False):
    toy = str(Path(__file__).with_name("toy.py"))
    return TRAIN.format(root=str(ROOT), toy=toy, out=str(out), before=before, resume=resume)


def run(text):
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(code(tmp_path_factory.mktemp("whole"))).stdout


SLOW = """
real = train._epoch
train._epoch = lambda *a: (time.sleep(0.5), real(*a))[1]
"""
FULL = """
import resource
real, saved = train._save, []
def save(path, content):
    if saved:                                  # from the second epoch on the disk takes a thousand bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    saved.append(path)
    real(path, content)
train._save = save
"""


@pytest.mark.slow
def test_a_process_killed_by_the_kernel_loses_one_epoch_at_most(tmp_path, undisturbed):
    process = subprocess.Popen([sys.executable, "-c", code(tmp_path, SLOW)], stdout=subprocess.PIPE)
    while not (tmp_path / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stdout.read() == b""
    again = run(code(tmp_path, resume=True))
    assert again.stdout == undisturbed
    assert undisturbed.startswith("5 ")
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".part")] == ["checkpoint.pt"]


@pytest.mark.slow
def test_a_disk_that_is_full_keeps_the_epoch_before_and_says_what_to_do(tmp_path, undisturbed):
    stopped = run(code(tmp_path, FULL))
    assert stopped.returncode == 1
    assert "CheckpointError" in stopped.stderr
    assert "free some space" in stopped.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"], "no half-written file"
    assert run(code(tmp_path, resume=True)).stdout == undisturbed
