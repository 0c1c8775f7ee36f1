"""Convolutions over a video that compute again only what changed since the last frame, layer by layer."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..execute import Decision, Dynamic, Trace, price
from ..execute.kernels.masked_conv.branch import layers_of, masked_branch
from ..registry import Budget


class ChangedPixels(Dynamic):
    """`net` on every frame: [B, T, C, H, W] -> [B, T, O, H', W'], by a cache of every layer's last map.

    net: convolutions, each with batch normalisation and ReLU behind it or not. A pixel changes where any of its
    channels moves by more than `threshold` from what the cache holds; only then the cache takes the new value, so that
    slow drifts are seen in the end. A layer computes the output pixels that read a changed one. The answer is exactly
    that of `net` on the cached frames; at threshold 0 those are the frames themselves.
    Raises RuntimeError for sparse training: batch normalisation would learn from the changed pixels alone.
    """
    budget = Budget("threshold", 0.0, 1.0, (0.0, 0.02, 0.05, 0.1, 0.2), cheaper="higher")

    def __init__(self, net: nn.Sequential, threshold: float = 0.0):
        super().__init__()
        self.net, self.threshold = net, threshold

    def forward(self, video: Tensor) -> tuple[Tensor, Trace]:
        if self.sparse and self.net.training:
            raise RuntimeError("ChangedPixels: batch normalisation learns from every pixel; train with "
                               'execute("dense")')
        frame, maps, answers, trace = video[:, 0], None, [], None
        for t in range(video.shape[1]):
            new = (video[:, t] - frame).abs().amax(1, keepdim=True) > self.threshold if t else \
                torch.ones_like(frame[:, :1], dtype=torch.bool)
            frame = torch.where(new, video[:, t], frame)
            masks = self._reached(new)
            if self.sparse:
                maps = self._again(frame, masks, maps)
                answers.append(maps[-1].clone())                     # the cache is written to in the next frame
            else:
                answers.append(self.net(frame))
            spent = self._billed(frame, masks, t)
            trace = spent if trace is None else trace + spent
        return torch.stack(answers, 1), trace.stacked("frames")

    def _reached(self, mask: Tensor) -> list[Tensor]:
        """Per convolution: which of its output pixels read a changed one."""
        found, mask = [], mask.float()
        for conv in self._convs():
            ph, pw = conv.padding
            padded = F.pad(mask, (pw, pw, ph, ph))
            mask = F.max_pool2d(padded, conv.kernel_size, conv.stride, 0, conv.dilation) if len(mask) else \
                mask.new_zeros(0, 1, *((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(
                    padded.shape[2:], conv.kernel_size, conv.stride, conv.dilation, strict=True)))
            found.append(mask)
        return found

    def _again(self, frame: Tensor, masks: list[Tensor], maps: list[Tensor] | None) -> list[Tensor]:
        """Every layer's map, from the last ones where nothing changed."""
        x, found = frame, []
        for i, (layer, mask) in enumerate(zip(layers_of(self.net), masks, strict=True)):
            x, _ = masked_branch(x, mask, [layer], into=None if maps is None else maps[i])
            found.append(x)
        return found

    def _billed(self, frame: Tensor, masks: list[Tensor], t: int) -> Trace:
        spent, full, x = 0, 0, frame
        for conv, mask in zip(self._convs(), masks, strict=True):
            cost = price(conv, x)
            spent = spent + mask.double().flatten(1).sum(1) * (cost.macs / mask.shape[2:].numel())
            full, x = full + cost.macs, x.new_empty(len(x), *cost.shapes.size, device="meta")
        last = masks[-1].to(frame)
        decision = Decision(f"frame {t}", "pixel", last, full / last.shape[2:].numel(), shape=tuple(last.shape[2:]))
        return Trace(spent, torch.full_like(spent, full), (decision,))

    def _convs(self) -> list[nn.Conv2d]:
        return [layer for layer in self.net if isinstance(layer, nn.Conv2d)]
