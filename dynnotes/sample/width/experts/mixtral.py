r"""In every block of a language model a router sends each token to two of eight gated networks and adds their answers.

$$y = \sum_{i=0}^{n-1} \mathrm{Softmax}(\mathrm{Top2}(x \cdot W_g))_i \cdot \mathrm{SwiGLU}_i(x)$$

(sec. 2.1, not numbered), where Top2 sets all but the two largest scores to $-\infty$, so that the two weights sum to 1
and the other networks need not run. All feed-forward parts are experts; the rest is Mistral 7B: rotary positions,
queries that share keys and values in groups, RMS norms, no biases; attention reaches over the whole text (sec. 2).

Claim: with 13B of 47B parameters active per token, five times fewer than Llama 2 70B has, it is better or equal on most
of what was tested: 70.6% against 69.9% on MMLU, 74.4% against 69.6% on GSM8K, 71.5% against 73.0% on TriviaQA (table
2). Read: table 2; section 2 for "sparse" and "active" parameters, which both follow from table 1; section 5 for what
experts learn: syntax rather than subject. Smallest setting: text, more of it than one network of the active size can
remember; the recipe, many-tongues, is a small language with more word pairs than one expert holds.

`from_pretrained` reads the weights that were released, in the format of their files on the Hugging Face hub.

Left out: training (the paper says nothing of it), fine-tuning to follow instructions (sec. 4), experts on several
devices (sec. 2.1), and the cache of keys and values while text is generated.
Different: the recipe turns by a base of 10^4, not the 10^6 of the released configuration, which is for 32,768 places.
Added: the balance loss of Fedus et al. 2022 keeps experts busy, as in the released configuration
(router_aux_loss_coef 0.02); the paper names no such loss. The budget is the number of experts `k` used after training.
"""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ....decide.routers import Routing, TopKSoftmax
from ....execute import Dynamic, FeedForwardExperts, Trace, run, run_experts
from ....learn.budgets import balance_loss
from ....nets import rotary
from ....nets.released import Checkpoint
from ....registry import Budget, Published, Recipe, Stage, paper


class MixtureOfExperts(Dynamic):
    """Each token through the best `k` of `experts` SwiGLU networks of `hidden` units (sec. 2.1)."""
    def __init__(self, width: int, hidden: int, experts: int):
        super().__init__()
        self.router = TopKSoftmax(width, experts)
        self.experts = FeedForwardExperts(experts, width, hidden, activation="swiglu", bias=False)

    def forward(self, x: Tensor, k: int, name: str = "experts") -> tuple[Tensor, Trace]:
        y, trace, _ = self.routed(x, k, name)
        return y, trace

    def routed(self, x: Tensor, k: int, name: str) -> tuple[Tensor, Trace, Routing]:
        scores, scoring = run(self.router, x)                                  # [B, T, E]
        routing = self.router.choose(scores, k)
        y, mixing = run_experts(routing.gate, self.experts, x, name=name, sparse=self.sparse or self.training,
                                weight=routing.weight)                         # [B, T, D]
        return y, scoring + mixing, routing


@paper("jiang2024mixtral")
class Mixtral(Dynamic):
    """Words [B, T] -> logits of the next word [B, T, words]. `heads` queries share the keys of `groups`; `size`: of a
    head, `base`: of the rotary angles; `k` experts of `hidden` units are used."""
    budget = Budget("k", 1, 8, (1, 2, 3, 4, 8), cheaper="lower")

    def __init__(self, *, words: int, width: int, depth: int, heads: int, groups: int, hidden: int, experts: int = 8,
                 k: int = 2, size: int | None = None, base: float = 1e6, eps: float = 1e-5, balance: float = 0.02):
        super().__init__()
        self.embed, self.head = rotary.words(words, width), rotary.next_word(width, words, eps=eps)
        self.look = nn.ModuleList(rotary.RotaryLookBack(width, heads, groups, size=size, base=base, eps=eps)
                                  for _ in range(depth))
        self.norm = nn.ModuleList(nn.RMSNorm(width, eps=eps) for _ in range(depth))
        self.mix = nn.ModuleList(MixtureOfExperts(width, hidden, experts) for _ in range(depth))
        self.k, self.balance = k, balance

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        y, trace, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, list[Routing]]:
        x, trace = run(self.embed, x)                                          # [B, T, D]
        routings = []
        for i, (look, norm, mix) in enumerate(zip(self.look, self.norm, self.mix, strict=True)):
            x, looking = run(look, x)
            y, mixing, routing = mix.routed(norm(x), int(self.k), f"layer {i + 1} experts")
            x, trace = x + y, trace + looking + mixing
            routings.append(routing)
        y, last = run(self.head, x)                                            # [B, T, words]
        return y, trace + last, routings

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, routings = self._read(*inputs)
        balance = [balance_loss(r.probs.flatten(0, 1), r.wanted.flatten(0, 1)) for r in routings]
        return self.task(y, target) + self.balance * torch.stack(balance).mean()

    @staticmethod
    def from_pretrained(folder: str | os.PathLike, dtype: torch.dtype | None = None) -> Mixtral:
        """The model whose config.json and safetensors lie in `folder`, in eval mode; dtype: as stored unless given.

        Reads model.safetensors, or the shards that model.safetensors.index.json names, one tensor at a time. Experts
        may be apart (w1, w2, w3 of each, as released) or stacked (gate_up_proj, down_proj).
        Raises FileNotFoundError for a file that is missing, ValueError for one that is damaged, for another
        architecture, and for tensors that are missing, unknown or of another shape; messages name file and tensor.
        """
        return _load(Checkpoint(Path(folder)), dtype)

    @staticmethod
    def demo():
        model = Mixtral(words=12, width=16, depth=2, heads=4, groups=2, hidden=12, base=1e4)
        return model, (torch.randint(12, (6, 7)),), torch.randint(12, (6, 7))

    @staticmethod
    def timing():
        model = Mixtral(words=96, width=256, depth=1, heads=8, groups=2, hidden=512)
        return model.eval(), (torch.randint(96, (8, 64)),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return Mixtral(words=96, width=32, depth=2, heads=4, groups=2, hidden=64, base=1e4)
        return (Recipe("many-tongues", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        def net():                                                             # table 1
            return Mixtral(words=32000, width=4096, depth=32, heads=32, groups=8, size=128, hidden=14336, experts=8)
        return [Published("Mixtral 8x7B", net, lambda: (torch.zeros(1, 1, dtype=torch.long),), 47e9, None, 0.5 / 47,
                          "abstract, with the sizes of table 1")]


# Released weights ----------------------------------------------------------------------------------------------------

def _load(found: Checkpoint, dtype: torch.dtype | None) -> Mixtral:
    sizes, tied = _sizes(found.told, found.config)
    stacked = "model.layers.0.mlp.experts.gate_up_proj" in found.files
    try:
        with torch.device("meta"):
            model = Mixtral(**sizes)
    except ValueError as fault:
        raise ValueError(f"{found.told}: {fault}") from None
    found.expect((name for name, _ in _places(model, stacked, tied)),          # angles lie in old files
                 lambda name: name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq"))
    model = model.to(dtype or found.dtype("model.embed_tokens.weight")).to_empty(device="cpu").eval()
    found.fill(_places(model, stacked, tied))
    return model


def _places(model: Mixtral, stacked: bool, tied: bool) -> Iterator[tuple[str, Tensor]]:
    """(name of a tensor in the files, where it belongs) of all that a model consists of."""
    yield "model.embed_tokens.weight", model.embed.weight
    for i, (look, norm, mix) in enumerate(zip(model.look, model.norm, model.mix, strict=True)):
        layer = f"model.layers.{i}"
        for name, rows in zip("qkv", look.query_key_value.weight.split(look.parts), strict=True):
            yield f"{layer}.self_attn.{name}_proj.weight", rows
        yield f"{layer}.self_attn.o_proj.weight", look.out.weight
        yield f"{layer}.input_layernorm.weight", look.norm.weight
        yield f"{layer}.post_attention_layernorm.weight", norm.weight
        experts = mix.experts
        if stacked:
            yield f"{layer}.mlp.gate.weight", mix.router.score.weight
            yield f"{layer}.mlp.experts.gate_up_proj", experts.w1
            yield f"{layer}.mlp.experts.down_proj", experts.w2
            continue
        yield f"{layer}.block_sparse_moe.gate.weight", mix.router.score.weight
        for e in range(len(experts)):
            expert, (gate, up) = f"{layer}.block_sparse_moe.experts.{e}", experts.w1[e].chunk(2)
            yield f"{expert}.w1.weight", gate
            yield f"{expert}.w3.weight", up
            yield f"{expert}.w2.weight", experts.w2[e]
    yield "model.norm.weight", model.head[0].weight
    yield "model.embed_tokens.weight" if tied else "lm_head.weight", model.head[1].weight


SIZES = {"words": "vocab_size", "width": "hidden_size", "depth": "num_hidden_layers", "heads": "num_attention_heads",
         "groups": "num_key_value_heads", "hidden": "intermediate_size", "experts": "num_local_experts",
         "k": "num_experts_per_tok"}


def _sizes(path: Path, config: dict) -> tuple[dict, bool]:
    """(the model's arguments, whether words in and out share their weights), from the config.json at `path`."""
    if (found := config.get("model_type")) != "mixtral":
        raise ValueError(f"{path}: model_type is {found!r}, not 'mixtral'")
    turn = config.get("rope_parameters") or config.get("rope_scaling") or {}
    strange = {"hidden_act": config.get("hidden_act", "silu") != "silu", "sliding_window": config.get("sliding_window"),
               "rope_scaling": turn.get("rope_type", turn.get("type", "default")) != "default",
               "quantization_config": config.get("quantization_config")}
    for name, wrong in strange.items():
        if wrong:
            raise ValueError(f"{path}: {name} is {config.get(name) or turn!r}; this Mixtral has SwiGLU experts, "
                             "attention over the whole text, plain rotary positions and weights as they were trained")
    sizes = {ours: config.get(theirs) for ours, theirs in SIZES.items()}
    for ours, number in sizes.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{path}: {SIZES[ours]} is {number!r}, not a number of at least 1")
    base = turn.get("rope_theta", config.get("rope_theta", 1e6))
    return ({**sizes, "size": config.get("head_dim"), "base": base, "eps": config.get("rms_norm_eps", 1e-5)},
            config.get("tie_word_embeddings", False))
