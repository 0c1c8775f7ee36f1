"""Static networks: what papers make dynamic, and the line that a dynamic network has to beat."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .layers import basic, bottleneck, conv_bn, shortcut


def stem(kind: str, inputs: int, outputs: int) -> nn.Sequential:
    """First layers of a ResNet (He et al. 2016): "cifar" one 3x3, "imagenet" a strided 7x7 and a pooling."""
    if kind == "cifar":
        return nn.Sequential(*conv_bn(inputs, outputs, 3), nn.ReLU())
    if kind == "imagenet":
        return nn.Sequential(*conv_bn(inputs, outputs, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    raise ValueError(f'stem is "cifar" or "imagenet", not {kind!r}')


def head(inputs: int, classes: int) -> nn.Sequential:
    """Global average pooling and a linear classifier: [B, C, H, W] -> [B, classes]."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def plan(widths: Sequence[int], depths: Sequence[int], inputs: int) -> list[tuple[int, int, int]]:
    """(inputs, outputs, stride) of every residual block; each group after the first halves the map."""
    blocks = []
    for g, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for d in range(depth):
            blocks.append((inputs, width, 2 if g and d == 0 else 1))
            inputs = width
    return blocks


class ResNet(nn.Module):
    """The static residual network (He et al. 2016): [B, channels, H, W] -> logits [B, classes]."""
    def __init__(self, *, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int],
                 first: int | None = None, kind: str = "cifar", branch: Callable[..., nn.Module] = basic):
        super().__init__()
        first = first or widths[0]
        self.stem = stem(kind, channels, first)
        blocks = plan(widths, depths, first)
        self.branches = nn.ModuleList(branch(*b) for b in blocks)
        self.shortcuts = nn.ModuleList(shortcut(*b) for b in blocks)
        self.head = head(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch, short in zip(self.branches, self.shortcuts, strict=True):
            x = (short(x) + branch(x)).relu()
        return self.head(x)


def resnet50(classes: int = 1000) -> ResNet:
    """ResNet-50 for 224x224 images: 25.6 M parameters, 4.1 GMACs."""
    return ResNet(channels=3, classes=classes, widths=(256, 512, 1024, 2048), depths=(3, 4, 6, 3), first=64,
                  kind="imagenet", branch=bottleneck)
