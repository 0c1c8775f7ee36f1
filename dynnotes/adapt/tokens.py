r"""A vision transformer drops the tokens that its class token hardly looks at: fewer and fewer on the way through.

In block $i$ of `at` the attention of the class token, averaged over heads, says how much each patch counts,

$$a = \mathrm{softmax}\Big(\frac{q_\text{class} K^\top}{\sqrt d}\Big), \qquad \bar a = \frac{1}{H} \sum_h a^h,$$

and of the patches still there the share `keep` with the largest $\bar a$ stays, from the feed-forward half of that
same block on (EViT, Liang et al. 2022, arXiv 2202.07800, eq. 1 and "Attentive token identification"). As in the
authors' code (github.com/youweiliang/evit) blocks count from 0 and the number that stays is rounded up. The class
token, and what stands beside it (distillation token, registers), always stays. Nothing is added that learns.

Left out: the fused token that gathers what was dropped (same paper, "Inattentive token fusion"), and the slow start of
the training, from all tokens down to `keep`. Different: the number that stays is equal for all samples, what stays is
not; the dense form computes every token and hides the dropped ones from the others' attention.
"""
from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..execute import Decision, Dynamic, Trace, price, run
from ..registry import Budget
from .weave import AdaptError, Woven


class Attend(nn.Module):
    """The first half of an encoder block, x + attention(norm(x)): [B, n, D] -> [B, n, D].

    mask: [B, n], tokens of 0 are seen by none. The block's parts are called as its own forward calls them.
    """
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._attend(x, mask)[0]

    def scored(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """With one entry more per token: what the class token sees in it, mean over heads: [B, n, D + 1]."""
        y, q, k = self._attend(x, mask)
        a = q[:, :, :1] @ k.mT * q.shape[-1] ** -0.5                           # [B, heads, 1, n]
        if mask is not None:
            a = a.masked_fill(mask[:, None, None] == 0, -torch.inf)
        return torch.cat([y, a.softmax(-1).mean(1).mT], -1)                    # eq. (1)

    def _attend(self, x, mask):
        inner = self.norm(x)
        q, k, v = self.project(inner)                                          # [B, heads, n, d]
        seen = None if mask is None else mask[:, None, None] != 0
        y = F.scaled_dot_product_attention(q, k, v, seen, self.dropout() if self.training else 0.0)
        return x + self.finish(inner, y.transpose(1, 2).flatten(2)), q, k

    # What differs between the libraries: each has a subclass below, and no Attend of its own is ever made.

    def project(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, n, d] of normalised tokens."""
        raise NotImplementedError

    def finish(self, inner: Tensor, y: Tensor) -> Tensor:
        """What is added to the tokens, from what attention read."""
        raise NotImplementedError

    def dropout(self) -> float:
        """Of attention weights, in training."""
        raise NotImplementedError


class TimmAttend(Attend):
    """Of timm's vision_transformer.Block with layers.Attention."""
    def __init__(self, block: nn.Module):
        super().__init__()
        self.norm, self.attention = block.norm1, block.attn
        self.after = nn.Sequential(block.ls1, block.drop_path1)

    def project(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = self.attention
        q, k, v = own.qkv(inner).unflatten(-1, (3, own.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return own.q_norm(q), own.k_norm(k), v

    def finish(self, inner: Tensor, y: Tensor) -> Tensor:
        own = self.attention
        y = own.norm(y)
        if own.gate is not None:
            y = y * own.gate(inner).sigmoid()
        return self.after(own.proj_drop(own.proj(y)))

    def dropout(self) -> float:
        return self.attention.attn_drop.p


class TorchvisionAttend(Attend):
    """Of torchvision's vision_transformer.EncoderBlock."""
    def __init__(self, block: nn.Module):
        super().__init__()
        self.norm, self.attention, self.after = block.ln_1, block.self_attention, block.dropout

    def project(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = self.attention
        return F.linear(inner, own.in_proj_weight, own.in_proj_bias).unflatten(
            -1, (3, own.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def finish(self, inner: Tensor, y: Tensor) -> Tensor:
        return self.after(self.attention.out_proj(y))

    def dropout(self) -> float:
        return self.attention.dropout


class Feed(nn.Module):
    """The second half of an encoder block, x + parts(x), each token for itself."""
    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x + self.parts(x)


class Stretch(nn.Module):
    """Halves of blocks one after another, with the same tokens throughout: [B, n, D] -> [B, n, D].

    scored: the last half is an Attend and tells its score as well: [B, n, D + 1].
    """
    def __init__(self, halves: Sequence[nn.Module], scored: bool):
        super().__init__()
        self.halves, self.ends_scored = nn.ModuleList(halves), scored

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        *halves, last = self.halves
        for half in halves:
            x = half(x, mask)
        return last.scored(x, mask) if self.ends_scored else last(x, mask)


class Narrowing(Dynamic):
    """Encoder blocks as stretches, with fewer tokens from one to the next: [B, N, D] -> [B, those that stay, D].

    `always`: the first tokens, class token first, which never leave; `grid`: rows and columns of the patches that
    follow.
    """
    def __init__(self, stretches: Sequence[Stretch], names: Sequence[str], always: int, grid: tuple[int, ...],
                 keep: float):
        super().__init__()
        self.stretches = nn.ModuleList(stretches)
        self.names, self.always, self.grid, self.keep = tuple(names), always, grid, keep

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, N, D]
        tokens, left = x.shape[1], x.shape[1] - self.always
        places = torch.arange(tokens, device=x.device).expand(x.shape[:2])     # [B, n], of the tokens still there
        first, *others = self.stretches
        x, trace = run(first, x)                                               # [B, N, D + 1]
        for name, stretch in zip(self.names, others, strict=True):
            left = max(1, math.ceil(self.keep * left - 1e-9)) if left else 0   # 0.7 * 10 is 7 patches, not 8
            score = x[..., -1].detach()
            stay = self._best(score if self.sparse else score.gather(1, places), left)
            places = places.gather(1, stay)                                    # [B, always + left]
            x, running = self._narrowed(name, stretch, x[..., :-1], stay, places, tokens)
            trace = trace + running
        return (x if self.sparse else _at(x, places)), trace

    def _best(self, score, left):
        """Where the tokens stand that always stay, and the `left` patches of the highest score: [B, always + left]."""
        always = torch.arange(score.shape[1], device=score.device) < self.always
        return score.masked_fill(always, 2.0).topk(self.always + left, 1).indices.sort(1).values

    def _narrowed(self, name, stretch, x, stay, places, tokens):
        """The stretch on the tokens at `places`: all samples have equally many, so that the sparse form holds nothing
        else from here to the end, and needs neither padding nor places to return to."""
        gate = x.new_zeros(len(x), tokens).scatter(1, places, 1.0)             # [B, N]
        full = price(stretch, x.new_empty(1, tokens, x.shape[-1])).macs
        spent = price(stretch, x[:, :places.shape[1]]).macs
        y = stretch(_at(x, stay)) if self.sparse else stretch(x, gate)
        patches = gate[:, self.always:]                                        # about the others nothing is decided
        shape = self.grid if math.prod(self.grid) == patches.shape[1] else ()
        one = Decision(name, "token", patches, full / tokens, shape=shape)
        return y, Trace(Trace.static(x, spent).spent, Trace.static(x, full).full, (one,))


def _at(x: Tensor, places: Tensor) -> Tensor:
    """Of the tokens [B, N, D] those at `places` [B, n]."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class FewerTokens(Woven):
    """A vision transformer that drops tokens (see `with_fewer_tokens`); `keep`: the share that stays each time."""
    budget = Budget("keep", 0.0, 1.0, (0.3, 0.5, 0.7, 0.9, 1.0), cheaper="lower")

    def __init__(self, model: nn.Module, name: str, blocks: Narrowing):
        super().__init__(model, {name: blocks})

    @property
    def keep(self) -> float:
        return self._blocks().keep

    @keep.setter
    def keep(self, share: float):
        self._blocks().keep = share

    def _blocks(self) -> Narrowing:
        return next(part for part in self.parts if isinstance(part, Narrowing))

    def loss(self, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """The task's own: nothing is added that learns by anything else."""
        return self.task(self(*inputs)[0], target)


def with_fewer_tokens(model: nn.Module, at: Sequence[int], keep: float = 0.7) -> FewerTokens:
    """`model` with fewer tokens from each block in `at` on (counted from 0): of those still there the share `keep`.

    `model` is, or holds, one VisionTransformer with a class token, timm's (so ViT, DeiT, DINO, DINOv2 with or without
    registers) or torchvision's. It shares its weights with the result and is not changed. keep = 1 is the model
    itself; one patch stays at least. EViT drops tokens at a quarter, half and three quarters of the depth: (3, 6, 9)
    of 12 blocks. Raises AdaptError for another model, a block that is not there or a share outside 0 to 1.
    """
    if not 0 <= keep <= 1:
        raise AdaptError(f"keep is a share between 0 and 1 of the tokens, not {keep}")
    name, vit, blocks, halves, always, grid = _transformer(model)
    at = sorted(at)
    if not at or len(set(at)) < len(at) or not all(isinstance(i, int) and 0 <= i < len(blocks) for i in at):
        raise AdaptError(f"at: different blocks of {type(vit).__name__}, from 0 to {len(blocks) - 1}, not {at}")
    stretches, start = [], 0
    for i in at:
        stretches.append(Stretch(halves[start:2 * i + 1], scored=True))        # up to the attention of block i
        start = 2 * i + 1
    stretches.append(Stretch(halves[start:], scored=False))
    names = [f"patches kept at block {i}" for i in at]
    return FewerTokens(model, name, Narrowing(stretches, names, always, grid, keep))


def _transformer(model):
    """(name of the module that holds the blocks, the transformer, blocks, halves of blocks, tokens that always stay,
    grid of patches) of the one vision transformer inside `model`."""
    # A model of a library that was never imported cannot be there: neither timm nor torchvision is needed to ask.
    timm, vision = (sys.modules.get(f"{lib}.vision_transformer") for lib in ("timm.models", "torchvision.models"))
    known = tuple(library.VisionTransformer for library in (timm, vision) if library)
    found = [(name, module) for name, module in model.named_modules() if known and isinstance(module, known)]
    if len(found) != 1:
        raise AdaptError(f"{type(model).__name__} holds {len(found) or 'no'} VisionTransformer"
                         f"{'s' if len(found) > 1 else ''} of timm or torchvision; give one, or put a Dynamic of your "
                         "own in the place of its blocks (dynnotes.adapt.Woven, dynnotes.execute.run_kept)")
    name, vit = found[0]
    prefix = f"{name}." if name else ""
    if vision and isinstance(vit, vision.VisionTransformer):
        side, blocks = vit.image_size // vit.patch_size, vit.encoder.layers
        _check(f"{prefix}encoder.layers", blocks, lambda b: type(b) is vision.EncoderBlock,
               "torchvision's EncoderBlock")
        halves = [half for b in blocks for half in (TorchvisionAttend(b), Feed(b.ln_2, b.mlp))]
        return f"{prefix}encoder.layers", vit, blocks, halves, 1, (side, side)
    if vit.cls_token is None:
        raise AdaptError(f"{name or type(vit).__name__} has no class token, whose attention says which patches count; "
                         "take a model with class_token=True")
    if vit.attn_pool is not None:
        raise AdaptError(f"{name or type(vit).__name__} pools by attention over all tokens (attn_pool), not by its "
                         "class token; take a model with global_pool='token' or 'avg'")
    blocks = vit.blocks
    _check(f"{prefix}blocks", blocks, lambda b: type(b) is timm.Block and type(b.attn) is timm.Attention,
           "timm's Block with Attention")
    halves = [half for b in blocks for half in (TimmAttend(b), Feed(b.norm2, b.mlp, b.ls2, b.drop_path2))]
    return f"{prefix}blocks", vit, blocks, halves, vit.num_prefix_tokens, tuple(vit.patch_embed.grid_size or ())


def _check(name, blocks, fits, kind):
    for i, block in enumerate(blocks):
        if not fits(block):
            inside = f" with {type(block.attn).__name__}" if hasattr(block, "attn") else ""
            raise AdaptError(f"{name}.{i} is a {type(block).__name__}{inside}, and only {kind} is known here; put a "
                             "Dynamic of your own in its place (dynnotes.adapt.Woven, dynnotes.execute.run_kept)")
