"""Why was it decided so? Attribute one decision to the pixels that made it, and measure how much fell where it should.

    why = attribute(lambda x: -entropy(model.exits(x)[0]), images)      # what argued for leaving at the first exit
    inside_box(why, boxes)                                              # share on the digit, and what chance would give
    overlay(images, why, boxes)                                         # a Plotly figure

A decision function maps a batch [B, ...] to one number per sample [B]: a gate's logit, a router's score, minus an
entropy.
Captum and Plotly are imported inside functions; this module loads neither.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

ORANGE = "#f2a33a"
SIGNED = [[0, "rgba(60,140,220,1)"], [0.5, "rgba(60,140,220,0)"], [0.5, "rgba(230,80,60,0)"], [1, "rgba(230,80,60,1)"]]


def attribute(
    decision: Callable[[Tensor], Tensor],
    inputs: Tensor,
    baseline: Tensor | float = 0.0,
    *,
    local: bool = False,
    steps: int = 32,
    batch: int = 32,
) -> Tensor:
    """Integrated gradients of `decision` over `inputs` [B, ...], of the same shape: what each pixel added to it.

    The path runs from `baseline` (a number, or a tensor that broadcasts to one input) to the input, in `steps` steps;
    the sum over pixels is close to decision(input) - decision(baseline). `local`: without the factor input - baseline,
    so the mean gradient on the path; a pixel then counts for how much the decision listens to it, not for its
    brightness. Captum does the work, `batch` samples at a time.
    Raises ValueError where `decision` gives no single number per sample.
    """
    from captum.attr import IntegratedGradients

    def one_each(x):
        y = decision(x)
        if y.shape != x.shape[:1]:
            raise ValueError(f"a decision gives one number per sample, not {list(y.shape)} for {len(x)} samples")
        return y

    inputs = inputs.detach()
    if not len(inputs):
        return torch.zeros_like(inputs)
    start = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand(inputs.shape[1:])
    method = IntegratedGradients(one_each, multiply_by_inputs=not local)
    found = [
        method.attribute(x, start.expand_as(x).contiguous(), n_steps=steps, method="gausslegendre").detach()
        for x in inputs.split(batch)
    ]
    return torch.cat(found).to(inputs.dtype)


class Share(NamedTuple):
    """Per sample [B]: `found`, the share of the attribution inside the box, `area`, the share of the pixels there."""

    found: Tensor
    area: Tensor


def inside_box(attribution: Tensor, boxes: Tensor, seen: Tensor | None = None) -> Share:
    """How much of |attribution| [B, ..., H, W] lies inside each sample's box [B, 4] (x0, y0, x1, y1 in [0, 1]).

    Pixels on the edge count by the part of them inside. `seen` [B, H, W]: the pixels that the decision could depend on
    at all (default: every one); the others belong to neither share. A share of nothing (no attribution, nothing seen)
    is NaN; a box without area holds 0. Raises ValueError for a bad box, and for attribution that is not finite, naming
    the sample.
    """
    if attribution.dim() < 3 or boxes.shape != (len(attribution), 4):
        found = f"{list(attribution.shape)}, {list(boxes.shape)}"
        raise ValueError(f"attribution is [B, ..., H, W] and boxes [B, 4], not {found}")
    bad = ~attribution.flatten(1).isfinite().all(1)
    if bad.any():
        raise ValueError(f"attribution of sample {int(bad.nonzero()[0])} is not finite: did the decision overflow?")
    size = attribution.abs().double().flatten(1, -3).sum(1) if attribution.dim() > 3 else attribution.abs().double()
    covered = cover(boxes, *size.shape[1:])
    seen = torch.ones_like(size) if seen is None else seen.double()
    size = size * seen

    def part(of):
        return (of * covered).sum((1, 2)) / of.sum((1, 2))

    return Share(part(size), part(seen))


def cover(boxes: Tensor, height: int, width: int) -> Tensor:
    """[B, H, W]: the part of each pixel inside the box. Raises ValueError unless x0 <= x1 and y0 <= y1, in [0, 1]."""
    boxes = boxes.double()
    ordered = (boxes[:, :2] <= boxes[:, 2:]).all() and (boxes >= 0).all() and (boxes <= 1).all()
    if not ordered:
        raise ValueError("a box is x0, y0, x1, y1 in [0, 1] with x0 <= x1 and y0 <= y1")

    def along(low, high, n):
        pixel = torch.arange(n, dtype=torch.float64, device=boxes.device)
        return (torch.minimum(high[:, None] * n, pixel + 1) - torch.maximum(low[:, None] * n, pixel)).clamp(0, 1)

    x = along(boxes[:, 0], boxes[:, 2], width)
    y = along(boxes[:, 1], boxes[:, 3], height)
    return y[:, :, None] * x[:, None, :]


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """A copy of `model` whose weights are drawn anew: what it says about an input, nobody taught it.

    Modules that can draw their own weights do so; entries of any other parameter change places. Statistics that were
    learned (batch normalisation) start again. The caller's random numbers are left as they were.
    """
    other = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        drawn = set()
        for module in other.modules():
            draw = getattr(module, "reset_parameters", None)
            if callable(draw):
                draw()
                drawn |= {id(p) for p in module.parameters(recurse=False)}
        for p in other.parameters():
            if id(p) not in drawn:
                p.copy_(p.flatten()[torch.randperm(p.numel()).to(p.device)].view_as(p))
    return other


def reading(trained: Share, random: Sequence[Share], where: str = "the box of the digit") -> str:
    """What the shares say, in words, and whether the weights have learned it: `random` are shares of randomised models.

    Differences are paired by sample, with 95% intervals over samples; samples without attribution are left out.
    """
    from ..learn.evidence import interval

    shares = torch.stack([trained.found, trained.area, torch.stack([s.found for s in random]).mean(0)])
    shares = shares[:, shares.isfinite().all(0)]
    if not shares.shape[1]:
        return "No sample has any attribution: there is nothing to read."
    found, area, chance = shares
    over, learned, born = (interval((a - b).tolist()) for a, b in ((found, area), (found, chance), (chance, area)))

    def points(i):
        return f"{100 * i.mean:+.0f} points" + ("" if i.low is None else f", {100 * i.low:+.0f} to {100 * i.high:+.0f}")

    if len(found) < 2:
        return (f"{found.mean():.0%} lies in {where}, which holds {area.mean():.0%} of the pixels ({points(over)}); "
                f"with random weights {chance.mean():.0%}. One sample tells no more than that.")
    little = "slightly " if abs(over.mean) < 0.05 else ""
    prefers = (f"so the decision listens to it {little}more than to the rest" if over.low > 0 else
               f"so the decision listens to it {little}*less* than to the rest" if over.high < 0 else
               "so no preference can be told")
    if learned.low <= 0 <= learned.high:
        origin = "as much as with the trained ones: this is not something that training taught"
    elif born.low <= 0 <= born.high or abs(born.mean) < abs(over.mean) / 5:
        origin = "the area's share, or nearly: the difference was learned"
    elif abs(over.mean) > abs(born.mean) and over.mean * born.mean > 0:
        origin = ("between the two, *not* the area's share: a part of the difference was learned, the rest comes with "
                  "the architecture and the images")
    else:
        origin = ("*not* the area's share: an untrained network has a preference of its own, and training "
                  f"{'raised' if learned.mean > 0 else 'lowered'} it")
    return (f"{found.mean():.0%} lies in {where}, which holds {area.mean():.0%} of the pixels ({points(over)}; 95% "
            f"interval, {len(found)} images), {prefers}. With random weights {chance.mean():.0%} lies there, {origin}.")


def overlay(
    images: Tensor,
    attribution: Tensor,
    boxes: Tensor | None = None,
    captions: Sequence[str] = (),
    *,
    title: str = "",
    sign: tuple[str, str] = ("argues for", "argues against"),
):
    """A Plotly figure: images [B, C, H, W] above, the same with their attribution laid over below; boxes in orange.

    `sign` says in words what a positive and a negative attribution mean. Each is scaled by its own largest value.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    count = len(images)
    if not count or images.shape != attribution.shape or images.dim() != 4:
        found = f"{list(images.shape)}, {list(attribution.shape)}"
        raise ValueError(f"images and attribution are both [B, C, H, W], not {found}")
    grey, why = images.mean(1), attribution.sum(1)
    titles = [_plain(c) for c in captions] or None
    figure = make_subplots(2, count, horizontal_spacing=0.02, vertical_spacing=0.04, column_titles=titles)
    for b in range(count):
        top = float(why[b].abs().max())
        scaled = why[b] / top if top > 0 else why[b]
        for row, bright, hover in ((1, 1.0, "brightness %{z:.2f}"), (2, 0.6, None)):
            figure.add_trace(_heat(go, grey[b] * bright, (0, 1), "Greys_r", hover), row, b + 1)
            _frame(figure, row, b + 1, images.shape[2:], None if boxes is None else boxes[b].tolist())
        figure.add_trace(_heat(go, scaled, (-1, 1), SIGNED, hover="%{z:.2f} of the largest"), 2, b + 1)
    words = f"red {_plain(sign[0])}, blue {_plain(sign[1])}" + ("" if boxes is None else "<br>the digit is in the box")
    figure.update_layout(template="none", height=370, margin={"l": 5, "r": 5, "t": 70 if title else 30, "b": 55},
                         title={"text": _plain(title)} if title else None,
                         paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")
    figure.add_annotation(text=words, showarrow=False, xref="paper", yref="paper", x=0.5, y=-0.04, yanchor="top",
                          font={"size": 12})
    return figure


def _heat(go, values: Tensor, span: tuple[float, float], colours, hover: str | None = None):
    """One image as a heatmap; three decimals are plenty for a colour, and a third of the bytes."""
    told = {"hoverinfo": "skip"} if hover is None else {"hovertemplate": f"{hover}<extra></extra>"}
    z = [[round(v, 3) for v in row] for row in values.tolist()]
    return go.Heatmap(z=z, zmin=span[0], zmax=span[1], colorscale=colours, showscale=False, **told)


def _frame(figure, row: int, column: int, size, box):
    """Square pixels, the first row on top, no axes, and the box where there is one."""
    height, width = size
    axis = figure.get_subplot(row, column).xaxis.plotly_name.replace("xaxis", "x")
    at = {"row": row, "col": column}
    figure.update_xaxes(visible=False, range=[-0.5, width - 0.5], constrain="domain", **at)
    figure.update_yaxes(visible=False, range=[height - 0.5, -0.5], scaleanchor=axis, constrain="domain",
                        constraintoward="bottom" if row == 1 else "top", **at)   # on a narrow page the two rows meet
    if box is not None:
        x0, y0, x1, y1 = box
        figure.add_shape(type="rect", x0=x0 * width - 0.5, x1=x1 * width - 0.5, y0=y0 * height - 0.5,
                         y1=y1 * height - 0.5, line={"color": ORANGE, "width": 2}, **at)


def _plain(words) -> str:
    """Plotly reads a little HTML in its labels; ours are words."""
    return str(words).replace("&", "&amp;").replace("<", "&lt;")
