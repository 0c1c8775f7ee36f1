"""Memory for large buffers that are written once, as the gradients of all experts are at every step.

Such memory is fresh from the system each time, and getting its pages one by one, 4 KB each, can take longer than the
products that fill them. Linux gives pages of 2 MB to who asks.
"""
from __future__ import annotations

import ctypes
from functools import lru_cache

import torch
from torch import Tensor

LARGE, SMALL, ADVICE = 2 << 20, 4 << 10, 14                          # bytes of pages; MADV_HUGEPAGE of Linux


def fresh(like: Tensor) -> Tensor:
    """Not written yet, contiguous, of the shape, dtype and device of `like`; on a CPU in large pages if there are."""
    return in_large_pages(torch.empty_like(like, memory_format=torch.contiguous_format, requires_grad=False))


def in_large_pages(t: Tensor) -> Tensor:
    """`t`, not written yet, which asks for large pages."""
    if t.is_cpu and t.nbytes >= 2 * LARGE and (advise := _advise()):
        begin = -(-t.data_ptr() // SMALL) * SMALL                    # whole pages that are this tensor's alone
        end = (t.data_ptr() + t.nbytes) // SMALL * SMALL
        advise(begin, end - begin, ADVICE)                           # a hint: that it was not taken is no error
    return t


@lru_cache
def _advise():
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):                     # another system
        return None
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return function
