r"""One set of weights runs at several widths, because each width has batch normalisations of its own.

At a switch $w$ every layer uses its first channels only, and switchable batch normalisation (sec. 3) normalises them
with parameters and statistics that no other switch shares,

$$y' = \gamma_w \frac{y - \mu_w}{\sqrt{\sigma_w^2 + \epsilon}} + \beta_w, \qquad
y = W_{[:w C_\text{out},\,:w C_\text{in}]} * x_{[:w C_\text{in}]}.$$

Every step of training runs all switches and adds up their gradients (algorithm 1), the gradient of

$$L = \sum_{w \in \{0.25, 0.5, 0.75, 1\}} L_\text{class}(f_w(x), y).$$

Claim: one net that runs at four widths is about as good as four nets trained alone: S-ResNet-50 errs 24.0, 25.1, 27.9
and 35.0% on ImageNet, the single nets 23.9, 25.3, 28.0 and 36.2%, at 4.1 G, 2.3 G, 1.1 G and 278 M FLOPs, by which
the paper means multiply-adds, our MACs (table 3). Read: the full text. Smallest setting: canvas-digits and a residual
net at four widths beside single nets of the same widths; the recipe trains this net, but the static nets of the task
beside it are other ones, whose first convolution does not halve the image.

Left out: S-MobileNet v2, S-ShuffleNet, the eight switches, detection and pose. S-MobileNet v1 has plain ReLUs here.
The budget is the width. A width between two switches runs the narrower one, the widest that is not over the budget.
In training only the kept channels are computed: the gates are not learned, so this changes no gradient.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ....execute import Dynamic, Trace, run_channels
from ....nets.backbones import plan
from ....nets.switchable import SwitchableBatchNorm
from ....registry import Budget, Published, Recipe, Stage, paper

SWITCHES = (0.25, 0.5, 0.75, 1.0)


def first(count: int, total: int, like: Tensor) -> Tensor:
    """The same gate for every sample of the batch: the first `count` of `total` channels are on. [B, total]"""
    gate = torch.zeros(len(like), total, device=like.device)
    gate[:, :count] = 1
    return gate


class SlimConv(Dynamic):
    """Convolution without bias and switchable batch normalisation; `slim_input` is False for the image."""
    def __init__(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1,
                 slim_input: bool = True, switches: Sequence[float] = SWITCHES):
        super().__init__()
        self.name = name
        self.inputs = [int(inputs * w) if slim_input else inputs for w in switches]
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = SwitchableBatchNorm([int(outputs * w) for w in switches])

    def forward(self, x: Tensor, switch: int) -> tuple[Tensor, Trace]:         # [B, inputs, H, W]
        on = first(self.norm.sizes[switch], self.conv.out_channels, x)
        fed = first(self.inputs[switch], self.conv.in_channels, x)
        y, trace = run_channels(on, self.conv, x, name=self.name, sparse=self.sparse or self.training, inputs=fed)
        return self.norm(y, switch), trace                                     # [B, outputs, H/s, W/s]


class SlimBlock(Dynamic):
    """Convolutions with ReLUs between them; with `shortcut` (another, or None for the input itself) a residual."""
    def __init__(self, layers: Sequence[SlimConv], shortcut: SlimConv | None = None, residual: bool = False):
        super().__init__()
        self.layers, self.shortcut, self.residual = nn.ModuleList(layers), shortcut, residual

    def forward(self, x: Tensor, switch: int) -> tuple[Tensor, Trace]:
        y, trace = self.layers[0](x, switch)
        for layer in self.layers[1:]:
            y, running = layer(y.relu(), switch)
            trace = trace + running
        if self.shortcut is not None:
            x, passing = self.shortcut(x, switch)
            trace = trace + passing
        return (x + y if self.residual else y).relu(), trace


@paper("yu2019slimmable")
class SlimmableNetwork(Dynamic):
    """`stem` and `blocks` slim to any of the `switches`; a linear classifier reads `features` pooled maps."""
    budget = Budget("width", 0.25, 1.0, SWITCHES, cheaper="lower")

    def __init__(self, stem: SlimConv, blocks: Sequence[SlimBlock], features: int, classes: int, *,
                 pool: nn.Module | None = None, switches: Sequence[float] = SWITCHES):
        super().__init__()
        if list(switches) != sorted(switches):
            raise ValueError(f"switches from narrow to wide, not {list(switches)}")
        self.stem, self.pool = stem, pool or nn.Identity()
        self.blocks, self.out = nn.ModuleList(blocks), nn.Linear(features, classes)
        self.switches, self.width = tuple(switches), 1.0

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        return self.run_at(max((i for i, w in enumerate(self.switches) if w <= self.width), default=0), x)

    def run_at(self, switch: int, x: Tensor) -> tuple[Tensor, Trace]:
        x, trace = self.stem(x, switch)
        x = self.pool(x.relu())
        for block in self.blocks:
            x, running = block(x, switch)
            trace = trace + running
        x = x.mean((2, 3))                                                     # [B, features]
        kept = first(int(self.out.in_features * self.switches[switch]), self.out.in_features, x)
        every = first(self.out.out_features, self.out.out_features, x)
        y, last = run_channels(every, self.out, x, name="classifier", sparse=self.sparse or self.training, inputs=kept)
        return y, trace + last                                                 # [B, classes]

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        return sum(self.task(self.run_at(i, *inputs)[0], target) for i in range(len(self.switches)))

    @staticmethod
    def demo():
        model = slimmable_resnet(channels=1, classes=4, widths=(8, 16), depths=(1, 1))
        return model, (torch.randn(10, 1, 12, 12),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = slimmable_resnet(channels=3, classes=10, widths=(64, 128, 256), depths=(2, 2, 2))
        return model.at(0.5).eval(), (torch.randn(32, 3, 28, 28),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return slimmable_resnet(channels=1, classes=10, widths=(16, 32, 64), depths=(1, 1, 1), stride=2)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=0.1, weight_decay=5e-4),)),)

    @staticmethod
    def published() -> list[Published]:
        code = "the authors' code, models/"
        return [Published("S-ResNet-50", slimmable_resnet50, _photo, 25_636_712, None, 0, code + "s_resnet.py"),
                Published("S-MobileNet v1", slimmable_mobilenet_v1, _photo, 4_264_808, None, 0,
                          code + "s_mobilenet_v1.py"),
                *_by_width("S-ResNet-50", slimmable_resnet50, ((278, 1), (1100, 100), (2300, 100), (4100, 100))),
                *_by_width("S-MobileNet v1", slimmable_mobilenet_v1, ((41, 1), (150, 1), (325, 1), (569, 1)))]


def _photo() -> tuple[Tensor]:
    return (torch.randn(1, 3, 224, 224),)


def _by_width(name: str, make: Callable[[], SlimmableNetwork], printed: Sequence[tuple[int, int]]) -> list[Published]:
    """What one input costs at each switch; `printed`: (millions, the last digit's worth), right within half of it.

    The authors' profiler also counts an addition per pixel of the last pooling, 7x7 pixels of every feature.
    """
    def one(width, millions, digit):
        macs = millions * 1e6 - 49 * width * make().out.in_features
        return Published(f"{name} at {width:g}", lambda: make().at(width), _photo, None, macs, digit * 5e5 / macs,
                         "model zoo of the authors' code", "spent")
    with torch.device("meta"):
        return [one(width, *row) for width, row in zip(SWITCHES, printed, strict=True)]


def slimmable_resnet(*, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int],
                     stride: int = 1) -> SlimmableNetwork:
    """A residual network of basic blocks (nets.backbones.ResNet at full width); `stride` of its first convolution."""
    stem = SlimConv("stem", channels, widths[0], 3, stride, slim_input=False)
    blocks = []
    for i, (inputs, outputs, step) in enumerate(plan(widths, depths, widths[0])):
        name = f"block {i + 1}"
        layers = [SlimConv(f"{name}.1", inputs, outputs, 3, step), SlimConv(f"{name}.2", outputs, outputs, 3)]
        blocks.append(SlimBlock(layers, _shortcut(name, inputs, outputs, step), residual=True))
    return SlimmableNetwork(stem, blocks, widths[-1], classes)


def slimmable_resnet50() -> SlimmableNetwork:
    """S-ResNet-50 for 224x224 images."""
    blocks = []
    for i, (inputs, outputs, stride) in enumerate(plan((256, 512, 1024, 2048), (3, 4, 6, 3), 64)):
        name, middle = f"block {i + 1}", outputs // 4
        layers = [SlimConv(f"{name}.1", inputs, middle, 1), SlimConv(f"{name}.2", middle, middle, 3, stride),
                  SlimConv(f"{name}.3", middle, outputs, 1)]
        blocks.append(SlimBlock(layers, _shortcut(name, inputs, outputs, stride), residual=True))
    stem = SlimConv("stem", 3, 64, 7, 2, slim_input=False)
    return SlimmableNetwork(stem, blocks, 2048, 1000, pool=nn.MaxPool2d(3, 2, 1))


def slimmable_mobilenet_v1() -> SlimmableNetwork:
    """S-MobileNet v1 for 224x224 images: depthwise 3x3 and pointwise 1x1 convolutions in turn."""
    blocks, inputs = [], 32
    for i, (outputs, stride) in enumerate([(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
                                           (1024, 2), (1024, 1)]):
        blocks.append(SlimBlock([SlimConv(f"block {i + 1}.depth", inputs, inputs, 3, stride, groups=inputs),
                                 SlimConv(f"block {i + 1}.point", inputs, outputs, 1)]))
        inputs = outputs
    return SlimmableNetwork(SlimConv("stem", 3, 32, 3, 2, slim_input=False), blocks, 1024, 1000)


def _shortcut(name: str, inputs: int, outputs: int, stride: int) -> SlimConv | None:
    return None if inputs == outputs and stride == 1 else SlimConv(f"{name}.shortcut", inputs, outputs, 1, stride)
