"""The compiled library (native.cpp) and its functions, with their types declared."""
from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import torch

from .. import compiled

SOURCE = Path(__file__).with_name("native.cpp")
NAMES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}


@lru_cache
def _functions(library) -> dict:
    """The library's functions by name, with their types declared."""
    number, place = ctypes.c_int64, ctypes.c_void_p
    found = {"rows": (number, [place, number, place, place]),
             "reads": (None, [ctypes.c_char_p, place, place]), "clear": (None, [place, *[number] * 3, place])}
    for name in NAMES.values():
        found |= {f"packed_{name}": (number, [number] * 4), f"pack_{name}": (None, [place] * 2 + [number] * 4),
                  f"conv_{name}": (number, [ctypes.c_char_p, place]),
                  f"branch_{name}": (number, [ctypes.c_char_p, number]),
                  f"masked_{name}": (number, [ctypes.c_char_p, place, number])}
        if name != "bf16":
            found |= {f"packed_back_{name}": (number, [number] * 4),
                      f"pack_back_{name}": (None, [place] * 2 + [number] * 4),
                      f"grad_input_{name}": (number, [ctypes.c_char_p]),
                      f"grad_weight_{name}": (number, [ctypes.c_char_p])}
    functions = {}
    for name, (result, takes) in found.items():
        function = functions[name] = getattr(library, f"dyn_{name}")
        function.restype, function.argtypes = result, takes
    return functions


def function(name: str):
    """`dyn_<name>` of the library, with its types declared."""
    return _functions(compiled.load(SOURCE))[name]


def available() -> bool:
    """Whether the kernel is compiled, or can be."""
    return compiled.load(SOURCE) is not None
