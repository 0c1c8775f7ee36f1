"""Compiling at first use: two processes at once, no compiler, a damaged cache, other instructions."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dynnotes.execute.kernels import compiled

CONVOLVE = """
import warnings
import torch
from dynnotes.execute.kernels import compiled
from dynnotes.execute.kernels.masked_conv import best, masked_conv2d
x, weight = torch.randn(1, 4, 6, 6), torch.randn(5, 4, 3, 3)
mask = torch.rand(1, 1, 6, 6) < 0.5
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        y = masked_conv2d(x, mask, weight, padding=1)
expected = torch.where(mask, torch.nn.functional.conv2d(x, weight, padding=1), 0.0)
assert torch.allclose(y, expected, atol=1e-4)
print(best(x), compiled.instructions())
for warning in said:
    if issubclass(warning.category, compiled.NoCompiler):
        print("warned:", warning.message)
"""


def process(code=CONVOLVE, **env):
    """What a fresh process prints; PATH="" there means no compiler to be found."""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **{k: str(v) for k, v in env.items()}},
                          cwd=Path(compiled.__file__).parents[3], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def libraries(cache):
    """Of the kernel; what samples weights is a small one of its own."""
    return sorted((cache / "kernels").glob("native-*.so"))


@pytest.mark.slow
def test_two_processes_compile_at_once_and_make_one_library(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda _: process(DYNNOTES_CACHE=tmp_path), range(2)))
    assert all(line.startswith("cpu ") and "warned" not in line for line in said)
    assert len(libraries(tmp_path)) == 1


@pytest.mark.slow
def test_a_library_cut_off_in_the_cache_is_compiled_again(tmp_path):
    process(DYNNOTES_CACHE=tmp_path)
    library, = libraries(tmp_path)
    whole = library.read_bytes()
    library.write_bytes(whole[:len(whole) // 2])
    assert process(DYNNOTES_CACHE=tmp_path).startswith("cpu ")
    assert [path.read_bytes() for path in libraries(tmp_path)] == [whole]


def test_without_a_compiler_torch_operators_do_it_and_one_warning_says_so(tmp_path):
    said = process(DYNNOTES_CACHE=tmp_path, PATH=tmp_path)
    assert said.startswith("torch ") and said.count("warned:") == 1
    assert "there is no C++ compiler; install g++ or clang++, or set CXX" in said


def test_a_compiler_that_fails_is_quoted(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'no space left on device' >&2\nexit 1\n")
    broken.chmod(0o755)
    said = process(DYNNOTES_CACHE=tmp_path, CXX=broken)
    assert said.startswith("torch ") and "cannot compile it: no space left on device" in said
    assert libraries(tmp_path) == []


def test_kernels_can_be_switched_off():
    assert process(DYNNOTES_CPU="none") == "torch none\n"


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_not_needed(tmp_path):
    (tmp_path / "file").write_text("")
    assert process(DYNNOTES_CACHE=tmp_path / "file").startswith("cpu ")


def test_import_compiles_nothing(tmp_path):
    process("import dynnotes.execute, dynnotes.execute.kernels.masked_conv", DYNNOTES_CACHE=tmp_path)
    assert not (tmp_path / "kernels").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["avx2", "generic"])
def test_a_lesser_cpu_is_compiled_for_and_holds_no_better_instructions(cpu, tmp_path):
    if list(compiled.FLAGS).index(cpu) < list(compiled.FLAGS).index(compiled._best()):
        pytest.skip(f"this CPU has no {cpu}")
    assert process(DYNNOTES_CPU=cpu, DYNNOTES_CACHE=tmp_path) == f"cpu {cpu}\n"
    code = subprocess.run(["objdump", "-d", libraries(tmp_path)[0]], capture_output=True, text=True, check=True).stdout
    assert "%zmm" not in code and ("%ymm" in code) == (cpu == "avx2")


@pytest.mark.parametrize(("cpu", "message"), [("sse9", "'sse9' is none of avx512, avx2, generic, none")])
def test_unknown_instructions_are_refused(cpu, message):
    with pytest.raises(ValueError, match=message), compiled.only(cpu):
        pass


def test_more_than_this_cpu_has_is_refused(monkeypatch):
    monkeypatch.setattr(compiled, "_best", lambda: "generic")
    with pytest.raises(ValueError, match="avx2 is more than this CPU has: generic"), compiled.only("avx2"):
        pass


def test_only_ends_with_its_block():
    before = compiled.instructions()
    with compiled.only("generic"):
        assert compiled.instructions() == "generic"
    assert compiled.instructions() == before
