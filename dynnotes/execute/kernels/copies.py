"""Copies of weights in the order that a kernel reads, kept until the weight changes."""
from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from . import compiled

SOURCE = Path(__file__).with_name("copies.cpp")
_copies: dict[tuple[int, str], tuple] = {}


def kept(weight: Tensor, order: str, make: Callable[[Tensor], Tensor], *also) -> Tensor:
    """`make(weight)` of the first call, until the weight or what else it depends on (`also`) changes.

    A change is seen by the tensor's version and place and, on a CPU, by a sample of its values: writing to
    `weight.data` leaves version and place as they were, so what changes a few single values that way can go unseen.
    On a GPU, where looking would mean waiting, all of it does.
    """
    state = _state(weight)
    if state is None:
        return make(weight.detach())
    state += also
    held = _copies.get((id(weight), order))
    if held is None or held[0]() is not weight or held[1] != state:
        key = id(weight), order
        with torch.inference_mode(False), torch.no_grad():           # it will serve training, too
            held = weakref.ref(weight, lambda _: _copies.pop(key, None)), state, make(weight.detach())
        _copies[key] = held
    return held[2]


def _state(weight: Tensor) -> tuple | None:
    """What changes when `weight` does, or None where that cannot be told."""
    if weight.is_cuda:
        if weight.is_inference() or torch.cuda.is_current_stream_capturing():
            return None                                              # no version; a graph copies when it is replayed
        seen = torch.cuda.current_stream(weight.device).cuda_stream
    else:
        seen = sample(weight)
        if seen is None:
            return None
    return None if weight.is_inference() else weight._version, weight.data_ptr(), weight.dtype, weight.stride(), seen


def sample(weight: Tensor) -> int | tuple | None:
    """What most changes of `weight`'s values change; None where they do not stand side by side."""
    if not (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last)):
        return None
    if weight.is_cpu and (library := compiled.load(SOURCE, quiet=True)) is not None:
        return _sample(library)(weight.data_ptr(), weight.nbytes)
    flat = weight.detach().as_strided((weight.numel(),), (1,))
    return tuple(flat[::max(1, len(flat) // 32)].tolist())


@lru_cache
def _sample(library: ctypes.CDLL):
    library.dyn_sample.restype, library.dyn_sample.argtypes = ctypes.c_int64, [ctypes.c_void_p, ctypes.c_int64]
    return library.dyn_sample
