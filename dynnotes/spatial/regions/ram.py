r"""A recurrent network sees an image only through a few small glimpses, and learns by reward where to look next.

A glimpse $\rho(x, l)$ around the location $l$ holds several patches, each twice as wide as the one before, all brought
to one size. What is seen and where are joined, remembered, and lead to the next location (sec. 3.1, sizes in sec. 4):

$$g_t = \mathrm{Rect}\big(\mathrm{Linear}(\mathrm{Rect}(\mathrm{Linear}(\rho(x, l_{t-1})))) +
\mathrm{Linear}(\mathrm{Rect}(\mathrm{Linear}(l_{t-1})))\big),$$
$$h_t = \mathrm{Rect}(\mathrm{Linear}(h_{t-1}) + \mathrm{Linear}(g_t)), \qquad
l_t \sim \mathcal{N}(f_l(h_t), \sigma^2).$$

Looking cannot be differentiated: the locations are learned by REINFORCE from the reward $R$, 1 for a right answer after
the last glimpse and 0 for a wrong one, with a learned baseline $b_t$ of what $h_t$ lets expect (sec. 3.2),

$$\nabla_\theta J \approx \frac{1}{M} \sum_{i=1}^{M} \sum_{t=1}^{T} \nabla_\theta \log \pi(l_t^i \mid s_{1:t}^i)
\, (R^i - b_t), \qquad b_t \to E[R];$$

everything else by the cross-entropy of the answer and the squared error of the baseline (the hybrid loss).

Claim: looking at a few places beats looking at all of a cluttered image: on cluttered translated MNIST of 60x60
pixels eight glimpses of 12x12 pixels at three scales err 4.04%, a convolutional net with two layers 8.09%, eight
random glimpses 14.4% (table 2), and what is computed does not grow with the image (abstract). Neither gives MACs.
Read: the abstract and, as others copied them, the tables. Smallest setting: canvas-digits, digits among fragments of
others; the recipe is this setting.

Left out: the game with moving objects, its LSTM core and its actions (sec. 4); several draws of locations per image.
Different: the first glimpse is at the centre, always; at test time every location is the mean of the Gaussian, not a
draw, so that an answer can be repeated; that mean is tanh(Linear(h / sqrt(width))), in the paper Linear(h)
(decide/policies.py says why). The gradients of REINFORCE and of the baseline stop at $h_t$: core and glimpse network
learn from the cross-entropy alone. Patches start at whole pixels; where two linear layers are summed, one has the bias.
Added: `glimpses`, the number taken at test time, in the paper fixed before the training; so that the answer means
something after each of them, the classifier is trained after every glimpse, those before the last weighted by `early`
(0: the paper's loss). A decision's boxes are those of the finest patch.
"""
from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...decide.policies import GaussianPolicy
from ...execute import Dynamic, Trace, run, run_if
from ...learn.reinforce import baseline_error, reinforce
from ...registry import Budget, Recipe, Stage, paper


def corners(place: Tensor, size: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Left and top pixel [B] of patches of `size` pixels around `place` [B, 2], x and y in [-1, 1]."""
    left, top = ((place + 1) / 2 * place.new_tensor((width, height)) - size / 2).round().long().unbind(1)
    return left, top


def boxes(place: Tensor, size: int, height: int, width: int) -> Tensor:
    """The part of those patches that lies on the image: x0, y0, x1, y1 in [0, 1], [B, 4]."""
    left, top = corners(place, size, height, width)
    box = torch.stack([left, top, left + size, top + size], 1).to(place)
    return (box / place.new_tensor((width, height, width, height))).clamp(0, 1)


def scaled(x: Tensor, size: int, scales: int) -> list[Tensor]:
    """Images [B, C, H, W] as every scale sees them, once for all glimpses: [B, H', W', C], at scale k the mean over
    the 2^k x 2^k pixels from each pixel on. The border of zeros is half the widest patch.
    """
    view = F.pad(x, [size * 2**scales // 4] * 4).movedim(1, 3)
    views = [view]
    for step in (2**k for k in range(scales - 1)):                             # means of means: 1, 2, 4 pixels apart
        view = (view[:, :-step] + view[:, step:]) / 2
        view = (view[:, :, :-step] + view[:, :, step:]) / 2
        views.append(view)
    return views


def retina(views: list[Tensor], place: Tensor, size: int) -> Tensor:
    """rho(x, l) of the `scaled` images around `place` [B, 2]: size x size pixels of every scale, flat [B, -1]."""
    border = size * 2**len(views) // 4
    height, width = (n - 2 * border for n in views[0].shape[1:3])
    seen, row = [], torch.arange(len(place), device=place.device)[:, None, None]
    for step, view in ((2**k, view) for k, view in enumerate(views)):
        left, top = corners(place, step * size, height, width)
        pixel = border + step * torch.arange(size, device=place.device)
        seen.append(view[row, (top[:, None] + pixel)[:, :, None], (left[:, None] + pixel)[:, None]].flatten(1))
    return torch.cat(seen, 1)


class Look(nn.Module):
    """One step: (image, place [B, 2], h [B, hidden]) -> (the next h, mean [B, 2] of the next place)."""
    def __init__(self, *, channels: int, size: int, scales: int, width: int, hidden: int, std: float):
        super().__init__()
        self.size = size
        self.what = nn.Sequential(nn.Linear(scales * channels * size**2, width), nn.ReLU(), nn.Linear(width, hidden))
        self.where = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, hidden, bias=False))
        self.seen, self.kept = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.policy = GaussianPolicy(hidden, std=std)

    def forward(self, views: list[Tensor], place: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        g = (self.what(retina(views, place, self.size)) + self.where(place)).relu()
        h = (self.kept(h) + self.seen(g)).relu()
        return h, self.policy(h.detach())


@paper("mnih2014recurrent")
class RAM(Dynamic):
    """Glimpses of `scales` patches of `size` pixels (even); `width` of what and where, `hidden` units of the core."""
    budget = Budget("glimpses", 1, 6, (1, 2, 3, 4, 6), cheaper="lower")

    def __init__(self, *, channels: int, classes: int, size: int, scales: int, width: int, hidden: int,
                 std: float = 0.2, early: float = 1.0):
        super().__init__()
        if size % 2:
            raise ValueError(f"a patch has a whole number of pixels on either side of its centre: {size} is odd")
        self.look = Look(channels=channels, size=size, scales=scales, width=width, hidden=hidden, std=std)
        self.answer, self.value = nn.Linear(hidden, classes), nn.Linear(hidden, 1)
        self.scales, self.hidden, self.early, self.glimpses = scales, hidden, early, self.budget.high

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        y, trace, _ = self._see(x)
        return y, trace

    def _see(self, x: Tensor) -> tuple[Tensor, Trace, Tensor]:
        """Answer, trace, and the state after every glimpse [B, most, hidden]. Training takes all glimpses."""
        place, log_prob = x.new_zeros(len(x), 2), x.new_zeros(len(x))          # the centre, by no choice of the net
        h, trace, states = x.new_zeros(len(x), self.hidden), Trace.static(x, 0), []
        views = scaled(x, self.look.size, self.scales)
        for t in range(self.budget.high):
            on = x.new_full((len(x),), float(self.training or t < round(self.glimpses)))
            (new, mean), t_look = run_if(on, self.look, views, place, h, name=f"glimpse {t + 1}", kind="place",
                                         sparse=self.sparse)
            box = boxes(place, self.look.size, *x.shape[2:]) * on[:, None]
            decision = replace(t_look.decisions[0], at=box, log_prob=log_prob * on)
            trace = trace + replace(t_look, decisions=(decision,))
            h = torch.where(on[:, None] > 0, new, h)
            states.append(h)
            place, log_prob = self.look.policy.choose(mean)
            place = place.clamp(-1, 1)
        y, last = run(self.answer, h)                                          # [B, classes]
        return y, trace.stacked("glimpses") + last, torch.stack(states, 1)

    def undecided(self) -> RAM:
        """Untrained nets hardly move. Widen the policy's weights, so that they look at places that differ."""
        nn.init.normal_(self.look.policy.out.weight, std=2 * self.hidden**0.5)
        return self

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, trace, states = self._see(*inputs)
        before = states[:, :-1]                                                # [B, most - 1, hidden]
        reward = self.correct(y, target).to(y)                                 # [B]
        expected = self.value(before.detach()).squeeze(2)                      # [B, most - 1]
        log_prob = trace.decisions[0].log_prob[:, 1:]                          # nobody chose the first
        early = self.task(self.answer(before), target[:, None].expand(-1, before.shape[1]))
        return self.task(y, target) + self.early * early \
            + reinforce(log_prob, reward, expected) + baseline_error(expected, reward)

    @staticmethod
    def demo():
        model = RAM(channels=1, classes=4, size=4, scales=2, width=16, hidden=16).undecided()
        return model, (torch.randn(10, 1, 12, 12),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = RAM(channels=3, classes=10, size=12, scales=3, width=128, hidden=256).undecided()
        return model.eval(), (torch.randn(32, 3, 64, 64),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return RAM(channels=1, classes=10, size=8, scales=3, width=128, hidden=128)
        return (Recipe("canvas-digits", net, (Stage(epochs=40, lr=3e-3, optimizer="adam", weight_decay=1e-2),)),)
