"""The triton backend of the experts: its tests (experts_triton.py) in a process of their own, and what holds without
triton.

Whether triton interprets is settled when it is first imported, and torch imports it by itself. Skipped without a GPU.
"""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux")
TESTS = Path(__file__).with_name("experts_triton.py")


@pytest.mark.slow
@pytest.mark.parametrize("interpret", ["1", pytest.param("0", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: tensor cores, many programs at once"))],
    ids=["interpreter", "gpu"])
def test_in_a_process_of_its_own(interpret):
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)], timeout=900,
                         cwd=TESTS.parents[3], env=os.environ | {"TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"},
                         capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_without_triton_all_else_runs_and_the_remedy_is_said():
    code = """
import sys
sys.modules["triton"] = None                                         # as if it were not installed
import torch
from dynnotes.execute.kernels.experts import expert_ffn, sorted_slots, tiles
x, w, index = torch.ones(3, 4), torch.ones(2, 4, 4), torch.tensor([[0], [1], [-1]])
assert expert_ffn(x, index, None, w, w).sum() == 2 * 4 * 16 and not tiles.takes(x)
try:
    tiles.Tiles(x, *sorted_slots(index, 2), 1)
except ImportError as error:
    assert "needs triton, which is not installed: pip install triton" in str(error)
else:
    raise AssertionError
try:
    expert_ffn(x, index, None, w, w, backend="triton")
except ValueError as error:
    assert "the triton backend is not there on this machine" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="is asked for")
def test_on_a_cpu_nothing_is_interpreted_unasked():
    from dynnotes.execute.kernels.experts import best, tiles
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = torch.zeros(1, 1, dtype=dtype)
        assert not tiles.takes(x) and best(x) != "triton"
