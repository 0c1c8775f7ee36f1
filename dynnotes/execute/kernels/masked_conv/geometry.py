"""What a masked convolution looks like, apart from its values; shared by all backends."""
from __future__ import annotations

from functools import cached_property, lru_cache
from typing import NamedTuple

Pair = tuple[int, int]


class _Fields(NamedTuple):
    batch: int
    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


class Geometry(_Fields):
    """batch, size: samples and (height, width) of the input; the rest as in torch.nn.functional.conv2d."""

    @cached_property
    def out(self) -> Pair:
        """(height, width) of the output."""
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in
                     zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True))

    @cached_property
    def mask(self) -> tuple[int, int, int, int]:
        """Shape of a mask of output pixels."""
        return self.batch, 1, *self.out

    @cached_property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        high, wide = self.out
        return self.batch * high * wide

    def depthwise(self, weight) -> bool:
        """Whether each output of `weight` [O, C / groups, kh, kw] reads one channel, and each channel feeds one."""
        return self.groups > 1 and self.groups == len(weight) and weight.shape[1] == 1

    @cached_property
    def pointwise(self) -> bool:
        """Whether an output pixel reads the one input pixel in its place."""
        return self.kernel == self.stride == (1, 1) and self.padding == (0, 0)


@lru_cache(4096)
def geometry_of(x: tuple[int, ...], weight: tuple[int, ...], stride=1, padding=0, dilation=1,
                groups: int = 1) -> Geometry:
    """The Geometry of a convolution of those shapes. Raises ValueError where channels or kernel do not fit."""
    if len(x) != 4 or len(weight) != 4:
        raise ValueError(f"masked convolution: x is [B, C, H, W] and weight [O, C / groups, kh, kw], "
                         f"not {list(x)} and {list(weight)}")
    if groups < 1 or x[1] != weight[1] * groups or weight[0] % groups:
        raise ValueError(f"masked convolution: weight {list(weight)} in {groups} groups does not take {x[1]} channels")
    geometry = Geometry(x[0], tuple(x[2:]), tuple(weight[2:]), *map(_pair, (stride, padding, dilation)), groups)
    if min(geometry.out) < 1:
        raise ValueError(f"masked convolution: a kernel of {geometry.kernel} with dilation {geometry.dilation} is "
                         f"larger than the padded input {geometry.size}")
    if max(geometry.pixels, geometry.batch * geometry.size[0] * geometry.size[1]) >= 2 ** 31:
        raise ValueError("masked convolution: more than 2**31 pixels; use smaller batches")
    return geometry


def _pair(n) -> Pair:
    return (n, n) if isinstance(n, int) else tuple(n)
