r"""A standard convolution is split into one filter per channel and a 1x1 convolution that mixes the channels.

$$\hat G_{k,l,m} = \sum_{i,j} \hat K_{i,j,m} \cdot F_{k+i-1,\,l+j-1,\,m}$$

(eq. 3), then $1 \times 1$; batch normalisation and ReLU after both. The pair costs, of a standard convolution with $M$
inputs, $N$ outputs, a kernel of side $D_K$ and a map of side $D_F$ (eq. 2, 5, sec. 3.1),

$$\frac{D_K^2 M D_F^2 + M N D_F^2}{D_K^2 M N D_F^2} = \frac{1}{N} + \frac{1}{D_K^2}.$$

A width multiplier $\alpha$ thins every layer, a resolution multiplier $\rho$ shrinks the image and with it every map
(eq. 7); each multiplies the cost by about its square:

$$D_K^2 \cdot \alpha M \cdot \rho^2 D_F^2 + \alpha M \cdot \alpha N \cdot \rho^2 D_F^2.$$

Nothing is decided at inference: this is the static net that a dynamic one has to beat. On the paper's figures: table 1
prints stride 2 for the last depthwise layer, between maps that are both 7x7: it is 1. Table 2 adds up to 100% if the
first convolution takes 1.91% of the mult-adds, not 1.19%. Most mult-adds count the classifier; those of Conv MobileNet
(table 4) and of 160 pixels (tables 7, 9) are right without it.

Claim: separable convolutions save eight to nine times for about one point of accuracy: 70.6% on ImageNet with 569 M
mult-adds (our MACs) and 4.2 M parameters; the same net of standard convolutions 71.7% with 4866 M and 29.3 M (table
4). Read: the tables that `published` rebuilds. Smallest setting: canvas-digits and a net of six separable layers
beside residual nets of standard convolutions; the recipe is this setting.

Left out: RMSprop and asynchronous training, no weight decay on depthwise filters (sec. 3.2); all tasks but
classification (sec. 4.4 to 4.7). Different: the image is shrunk inside the net, not before it.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..execute import Dynamic, Trace, run
from ..nets.backbones import head
from ..nets.layers import conv_bn
from ..registry import Published, Recipe, Stage, paper


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then pointwise, each with batch normalisation and ReLU (fig. 3 right)."""
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(inputs), nn.ReLU(), *conv_bn(inputs, outputs, 1), nn.ReLU())


def standard(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """What it replaces: one 3x3 convolution (fig. 3 left)."""
    return nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU())


class Shrink(nn.Module):
    """Images with `rho` times as many pixels on each side; 1 leaves them alone."""
    def __init__(self, rho: float):
        super().__init__()
        self.rho = rho

    def forward(self, x: Tensor) -> Tensor:                                    # [B, C, H, W]
        if self.rho == 1:
            return x
        size = [round(self.rho * side) for side in x.shape[2:]]
        return F.interpolate(x, size=size, mode="bilinear", antialias=True)    # [B, C, rho H, rho W]


LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


@paper("howard2017mobilenets")
class MobileNet(Dynamic):
    """`layers`: (outputs, stride) of each; before them a 3x3 convolution of stride `stride` to `first` channels.

    `alpha`, `rho`: the multipliers of width and resolution; `layer`: separable, or standard for "Conv MobileNet".
    """
    def __init__(self, *, channels: int, classes: int, alpha: float = 1.0, rho: float = 1.0, first: int = 32,
                 stride: int = 2, layers: Sequence[tuple[int, int]] = LAYERS,
                 layer: Callable[[int, int, int], nn.Module] = separable):
        super().__init__()
        if not (0 < alpha <= 1 and 0 < rho <= 1):
            raise ValueError(f"both multipliers are in (0, 1], not alpha {alpha} and rho {rho}")
        widths = [round(alpha * width) for width in (first, *(outputs for outputs, _ in layers))]
        plan = zip(widths, widths[1:], (by for _, by in layers), strict=False)
        self.net = nn.Sequential(Shrink(rho), *conv_bn(channels, widths[0], 3, stride), nn.ReLU(),
                                 *(layer(*one) for one in plan), head(widths[-1], classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        return run(self.net, x)                                                # [B, classes]

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _ = self(*inputs)
        return self.task(y, target)

    @staticmethod
    def demo():
        model = MobileNet(channels=1, classes=4, alpha=0.5, rho=0.75, first=16, stride=1,
                          layers=((32, 1), (64, 2), (64, 1)))
        return model, (torch.randn(10, 1, 16, 16),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = MobileNet(channels=3, classes=10, first=32, stride=1, layers=LAYERS[:6])
        return model.eval(), (torch.randn(32, 3, 32, 32),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return MobileNet(channels=1, classes=10, first=16, stride=1,
                             layers=((32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)))
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=0.1, weight_decay=5e-4),)),)

    @staticmethod
    def published() -> list[Published]:
        def size(name, where, params=None, macs=None, besides=0, **how):
            half = 0.05 / params if params else 0.5 / macs                     # half of the last digit printed
            return Published(name, lambda: mobilenet(**how), lambda: (torch.randn(2, 3, 224, 224),),
                             params and params * 1e6, macs and macs * 1e6 + besides, half, where)
        shallow, classifier = LAYERS[:6] + LAYERS[-2:], 1024 * 1000
        table_6 = ((1.0, 4.2, 569), (0.75, 2.6, 325), (0.5, 1.3, 149), (0.25, 0.5, 41))
        return [*(size(f"{alpha} MobileNet-224", "table 6", macs=macs, alpha=alpha) for alpha, _, macs in table_6),
                *(size(f"{alpha} MobileNet-224, parameters", "table 6", params, alpha=alpha)
                  for alpha, params, _ in table_6),
                size("1.0 MobileNet-192", "table 7", macs=418, rho=192 / 224),
                size("1.0 MobileNet-160", "table 7", macs=290, besides=classifier, rho=160 / 224),
                size("1.0 MobileNet-128", "table 7", macs=186, rho=128 / 224),
                size("0.5 MobileNet-160", "table 9", macs=76, besides=classifier / 2, alpha=0.5, rho=160 / 224),
                size("Shallow MobileNet", "table 5", macs=307, layers=shallow),
                size("Shallow MobileNet, parameters", "table 5", 2.9, layers=shallow),
                size("Conv MobileNet", "table 4", macs=4866, besides=classifier, layer=standard),
                size("Conv MobileNet, parameters", "table 4", 29.3, layer=standard)]


def mobilenet(alpha: float = 1.0, rho: float = 1.0, layers: Sequence[tuple[int, int]] = LAYERS,
              layer: Callable[[int, int, int], nn.Module] = separable) -> MobileNet:
    """For 224x224 images and 1000 classes (table 1): 4.2 M parameters, 569 MMACs."""
    return MobileNet(channels=3, classes=1000, alpha=alpha, rho=rho, layers=layers, layer=layer)
