"""The triton backend: its tests (masked_conv_triton.py) in a process of their own, and what holds without triton.

Whether triton interprets is settled when it is first imported, and torch imports it by itself. Skipped without a GPU.
"""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux")
TESTS = Path(__file__).with_name("masked_conv_triton.py")


@pytest.mark.slow
@pytest.mark.parametrize("interpret", ["1", pytest.param("0", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: tensor cores, bfloat16, many programs at once"))],
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
from dynnotes.execute.kernels.masked_conv import masked_conv2d, tiles
x, mask, weight = torch.ones(1, 2, 4, 4), torch.ones(1, 1, 4, 4), torch.ones(3, 2, 1, 1)
assert (masked_conv2d(x, mask, weight) == 2).all() and not tiles.takes(x)
try:
    masked_conv2d(x, mask, weight, backend="triton")
except ImportError as error:
    assert "needs triton, which is not installed: pip install triton" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
