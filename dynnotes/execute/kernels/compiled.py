"""C++ sources of this package, compiled on first use into the user's cache and called through a plain C interface.

Nothing is compiled at import or install. Where no compiler is, or it fails, `load` says so once, returns None, and
the kernels fall back to torch operators. What the cache holds is named by the source, the flags and the compiler, and
by its own content, so that a file that was cut off is compiled again, not loaded.

    DYNNOTES_CPU=avx512|avx2|generic|none     the instructions to compile for, instead of all that this CPU has
    CXX="clang++"                             the compiler, instead of c++, g++ or clang++
    DYNNOTES_CACHE=DIR                        where compiled files go, instead of the user's cache
"""
from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from ...knowledge.index import cache_dir

FLAGS = {"avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mtune=native"],
         "avx2": ["-mavx2", "-mfma", "-mtune=native"], "generic": []}
BF16 = ["-mavx512bf16"]                                              # beside avx512, where the CPU has it
HEADERS = Path(__file__).parent                                      # what sources include
COMMON = ["-std=gnu++17", "-O3", "-fno-math-errno", "-fPIC", "-shared"]


class NoCompiler(RuntimeWarning):
    """The compiled kernels are missing: what they would do runs on torch operators, slower."""


def instructions() -> str:
    """What kernels are compiled for now: "avx512", "avx2", "generic", or "none". Raises ValueError for a wrong word."""
    return _asked or _from_environment()


@contextmanager
def only(cpu: str):
    """Within this, kernels use these instructions and no better ones. Raises ValueError for what this CPU lacks."""
    global _asked
    before, _asked = _asked, _checked(cpu, "only()")
    try:
        yield
    finally:
        _asked = before


_asked: str | None = None


@lru_cache
def _from_environment() -> str:
    return _checked(os.environ.get("DYNNOTES_CPU") or _best(), "DYNNOTES_CPU")


def _best() -> str:
    return {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability(), "generic")


def _checked(cpu: str, who: str) -> str:
    if cpu not in (*FLAGS, "none"):
        raise ValueError(f"{who}: {cpu!r} is none of {', '.join(FLAGS)}, none")
    if cpu in FLAGS and list(FLAGS).index(cpu) < list(FLAGS).index(_best()):
        raise ValueError(f"{who}: {cpu} is more than this CPU has: {_best()}")
    return cpu


def load(source: Path, quiet: bool = False) -> ctypes.CDLL | None:
    """The compiled `source`, or None, with a NoCompiler warning the first time unless `quiet`, where it cannot be
    compiled."""
    return _load(source, instructions(), quiet)


@lru_cache
def _load(source, cpu, quiet) -> ctypes.CDLL | None:
    if cpu == "none":
        return None
    compiler = os.environ.get("CXX")
    command = shlex.split(compiler) if compiler else next(
        ([found] for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    if not command:
        return None if quiet else _without(source, "there is no C++ compiler; install g++ or clang++, or set CXX")
    has_bf16 = cpu == "avx512" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    threads = ["-fopenmp", *_runtime()]
    attempts = [(*extra, *shared) for extra in ([BF16, []] if has_bf16 else [[]])
                for shared in (threads, ["-fopenmp"], [])]
    fault = ""
    for extra in attempts:                                           # what an older compiler lacks is left out
        try:
            return ctypes.CDLL(str(_compiled(source, [*command, *COMMON, *FLAGS[cpu], *extra])))
        except (OSError, subprocess.SubprocessError) as error:
            fault = (getattr(error, "stderr", None) or str(error)).strip()
    return None if quiet else _without(source, f"{shlex.join(command)} cannot compile it: {fault[-500:]}")


def _without(source, why) -> None:
    warnings.warn(f"{source.stem} kernels run on torch operators, slower: {why}", NoCompiler, stacklevel=4)


def _runtime() -> list[str]:
    """Torch's own OpenMP library where it ships one, so that its threads are used and not a second set."""
    return [str(path) for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))][:1]


def _compiled(source: Path, command: list[str]) -> Path:
    """The file that `command` makes of `source`, from the cache if it is there and whole."""
    text = b"\0".join(file.read_bytes() for file in (source, *sorted(HEADERS.glob("*.h"))))
    version = subprocess.run([command[0], "--version"], capture_output=True, timeout=60, check=True).stdout
    key = hashlib.sha256(b"\0".join([text, version, *(part.encode() for part in command)])).hexdigest()[:16]
    folder = _folder()
    with _locked(folder / f"{source.stem}-{key}.lock"):
        for found in folder.glob(f"{source.stem}-{key}-*.so"):
            if found.stem.rpartition("-")[2] == hashlib.sha256(found.read_bytes()).hexdigest()[:16]:
                return found
            found.unlink()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made.so"
            subprocess.run([*command, f"-I{HEADERS}", "-o", str(made), str(source)], capture_output=True, text=True,
                           timeout=600, check=True)
            whole = folder / f"{source.stem}-{key}-{hashlib.sha256(made.read_bytes()).hexdigest()[:16]}.so"
            os.replace(made, whole)
    return whole


def _folder() -> Path:
    """Where compiled files go: the cache, or for a user who cannot write there, a folder of this process."""
    for folder in filter(None, [cache_dir()]):
        folder = folder / "kernels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return _own_folder()


@lru_cache
def _own_folder() -> Path:
    import atexit
    folder = Path(tempfile.mkdtemp(prefix="dynnotes-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _locked(path: Path):
    """One process at a time, where the system has file locks; elsewhere each compiles for itself, which is harmless."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:                                              # a file system without locks
            pass
        yield
