r"""Each token of a vision transformer halts by itself: one entry of its embedding says how much longer it is needed.

After block $l$ the first entry of token $k$ is its halting score, with two constants shared by all blocks, and no
parameter more than the transformer has (sec. 3):

$$h_k^l = \sigma(\gamma \, t_{k,0}^l + \beta), \qquad
N_k = \min\Big\{n \le L : \sum_{l=1}^{n} h_k^l \ge 1 - \epsilon\Big\}, \qquad r_k = 1 - \sum_{l=1}^{N_k - 1} h_k^l.$$

From block $N_k + 1$ on the token is gone: neither computed nor seen by others; after the last block all have halted.
The scores weigh the class token, the only one that answers, and the loss prices depth and shapes it:

$$t_o = \sum_l p_c^l t_c^l, \quad p_c^l = h_c^l \text{ or, at } l = N_c, r_c, \qquad
L = L_\text{task} + \alpha_p \frac{1}{K} \sum_k (N_k + r_k) + \alpha_d \, \mathrm{KL}.$$

KL compares the mean score of each block, $\mathcal H$, as a distribution over depth, with a Gaussian of standard
deviation 1 around a target depth, $\mathcal H^\text{target}$. As in the authors' code (github.com/NVlabs/A-ViT), the
class token halts like the others, $\gamma$ and $\beta$ are constants, the Gaussian is read at the depths
$0 \dots L - 1$, $\mathcal H$ is held in $[0.01, 0.99]$, and tokens that have left score nothing.

Claim: on ImageNet the throughput of DeiT-Tiny rises by 62%, that of DeiT-Small by 38%, for 0.3% of accuracy
(abstract). The authors' README gives A-ViT-T 71.4% with 0.8 G FLOPs, A-ViT-S 78.8% with 3.6 G; these seem to be MACs,
since DeiT-Small has 4.6 G MACs by our count. Read: the abstract and that README. Smallest setting: canvas-digits,
where most patches show no digit, and a small transformer, trained before it learns to halt; the recipe is this
setting, with 64 tokens and six blocks.

Left out: distillation. The recipe trains a transformer first and then its halting, as the authors start from DeiT; its
patches pass four small convolutions, without which so small a transformer learns too slowly. Different: the KL is
$\mathrm{KL}(\mathcal H^\text{target} \| \mathcal H)$, as in the code, not
$\mathrm{KL}(\mathcal H \| \mathcal H^\text{target})$; the target sums to one, in the code to 3.3,
which scales $\alpha_d$ alone; $\mathcal H$ is a mean over all tokens of the batch, the code leaves out its first
sample. Added: `threshold`, $1 - \epsilon$, is the budget to turn after training; the authors keep it at 0.99, and
their own knobs are the target depth and $\alpha_p$, which need a new training for each value.
"""
from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ...decide.halting import halt
from ...execute import Decision, Dynamic, Trace, run, run_kept
from ...nets.transformer import Block, Tokens, classifier, patches, small_convolutions
from ...registry import Budget, Published, Recipe, Stage, paper


@paper("yin2022avit")
class AViT(Dynamic):
    """`depth` blocks over the tokens of `embed`, class token first (see nets.transformer.Tokens); `grid`: rows and
    columns of its patches. `gamma`, `beta`: of the halting score; `target`: mean depth, `ponder` and `prior`: weights
    of the two losses."""
    budget = Budget("threshold", 0.0, 1.0, (0.001, 0.01, 0.1, 0.5, 0.99), cheaper="lower")

    def __init__(self, *, embed: nn.Module, grid: tuple[int, int], width: int, depth: int, heads: int, classes: int,
                 gamma: float = 5.0, beta: float = -10.0, target: float = 8.0, ponder: float = 5e-4,
                 prior: float = 0.1):
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = classifier(width, classes)
        self.grid, self.gamma, self.beta, self.threshold = grid, gamma, beta, 0.99
        self.target, self.ponder, self.prior = target, ponder, prior

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        y, trace, _, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, Tensor, Tensor]:
        x, trace = run(self.embed, x)                                          # [B, 1 + n, D]
        alive, total = torch.ones_like(x[..., 0]), torch.zeros_like(x[..., 0])
        answer, pondered, scores = torch.zeros_like(x[:, 0]), total, []
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            x, running = run_kept(alive, block, x, name=f"block {i + 1}", sparse=self.sparse, keys="kept")
            score = (self.gamma * x[..., 0] + self.beta).sigmoid() * alive     # [B, 1 + n]
            weight, total, halted = halt(total, score, self.threshold, last)
            answer = answer + (weight * alive)[:, :1] * x[:, 0]                # t_o [B, D]
            pondered = pondered + alive + weight * alive * halted              # in the end N_k + r_k
            trace, scores = trace + self._apart(running), [*scores, score]
            alive = alive * ~halted
        y, reading = run(self.head, answer)                                    # [B, classes]
        return y, trace + reading, pondered, torch.stack(scores, 1)            # [B, 1 + n], [B, depth, 1 + n]

    def _apart(self, running: Trace) -> Trace:
        """The block's decision as two, the patches on their grid and the class token."""
        one, = running.decisions
        return Trace(running.spent, running.full, (
            replace(one, gate=one.gate[:, 1:], shape=self.grid),
            Decision(f"{one.name}, class token", "layer", one.gate[:, 0], one.macs)))

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, pondered, scores = self._read(*inputs)
        return self.task(y, target) + self.ponder * pondered.mean() + self.prior * self._distance(scores)

    def _distance(self, scores: Tensor) -> Tensor:
        """KL(H_target || H) of the mean scores of each block."""
        found = scores.mean((0, 2))                                            # [depth]
        found = (found / found.sum()).clamp(0.01, 0.99)
        depth = torch.arange(len(found), dtype=found.dtype, device=found.device)
        wanted = (-0.5 * (depth - self.target) ** 2).softmax(0)
        return (wanted * (wanted.log() - found.log())).sum()

    def undecided(self) -> AViT:
        """The first entry hardly differs at first. Draw what is written to it so that untrained tokens differ."""
        self.gamma, self.beta = 1.0, -1.0
        for block in self.blocks:
            nn.init.normal_(block.then[-1].weight[0], std=1.0)
        return self

    @staticmethod
    def demo():
        embed = Tokens(patches(1, 4, 16), 16, 16)
        model = AViT(embed=embed, grid=(4, 4), width=16, depth=4, heads=2, classes=4, target=2.0).undecided()
        return model, (torch.randn(10, 1, 16, 16),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        embed = Tokens(patches(3, 16, 192), 196, 192)
        model = AViT(embed=embed, grid=(14, 14), width=192, depth=6, heads=3, classes=10).undecided()
        return model.eval(), (torch.randn(16, 3, 224, 224),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            embed = Tokens(small_convolutions(1, 32), 64, 32)
            return AViT(embed=embed, grid=(8, 8), width=32, depth=6, heads=2, classes=10, target=3.0, ponder=0.01)
        everything = Stage(epochs=4, lr=3e-3, optimizer="adam", settings={"ponder": 0.0, "prior": 0.0})
        return (Recipe("canvas-digits", net, (everything, Stage(epochs=5, lr=3e-3, optimizer="adam"))),)

    @staticmethod
    def published() -> list[Published]:
        # Layer by layer from the authors' models_act.py; they print 5 M and 22 M parameters.
        def size(name, width, heads, tolerance, where, params=None):
            tokens, image, hidden, classes = 196 + 1, 3 * 16 * 16, 4 * width, 1000
            block = 4 * (width + 1) * width + (width + 1) * hidden + (hidden + 1) * width + 4 * width
            counted = (image + 1) * width + (1 + tokens) * width + 12 * block + 2 * width + (width + 1) * classes
            macs = 196 * image * width + 12 * (tokens * 12 * width ** 2 + 2 * tokens ** 2 * width) + width * classes
            return Published(name, lambda: deit(width, heads), lambda: (torch.randn(2, 3, 224, 224),),
                             params or counted, None if params else macs, tolerance, where)
        return [size("A-ViT-T", 192, 3, 0, "the authors' code"), size("A-ViT-S", 384, 6, 0, "the authors' code"),
                size("A-ViT-S, parameters", 384, 6, 0.5 / 22, "the authors' README", 22e6)]


def deit(width: int, heads: int) -> AViT:
    """For 224x224 images: 12 blocks over 196 patches of 16x16 pixels (DeiT, Touvron et al. 2021)."""
    return AViT(embed=Tokens(patches(3, 16, width), 196, width), grid=(14, 14), width=width, depth=12, heads=heads,
                classes=1000)
