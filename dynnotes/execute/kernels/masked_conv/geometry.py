"""What a masked convolution looks like, apart from its values; shared by all backends."""
from __future__ import annotations

from typing import NamedTuple

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """batch, size: samples and (height, width) of the input; the rest as in torch.nn.functional.conv2d."""
    batch: int
    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def out(self) -> Pair:
        """(height, width) of the output."""
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in
                     zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True))

    @property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        high, wide = self.out
        return self.batch * high * wide

    def depthwise(self, channels: int, outputs: int) -> bool:
        return 1 < self.groups == channels == outputs
