"""Mixtral beside transformers' Mixtral, with the same weights: the sparse block and its gradients, and whole models
read from the checkpoints that transformers writes.

transformers computes the router's softmax, the norms and the rotary angles in float32 whatever the dtype. For the
comparison in float64 its code runs with float64 in their place (`exact`): then only the order of sums differs. torch's
grouped product knows no float64 either; there transformers has one of its own, for builds of torch without.
"""
import json
from contextlib import contextmanager
from unittest import mock

import pytest
import torch

from dynnotes.sample.width.experts.mixtral import Mixtral, MixtureOfExperts
from tests import cpu_torchvision  # noqa: F401  before anything imports torchvision, as transformers does

from transformers import MixtralConfig, MixtralForCausalLM  # isort: skip
from transformers.integrations import moe  # isort: skip
from transformers.models.mixtral import modeling_mixtral  # isort: skip

# Their forms of the experts: a loop over them, and the sorted tokens in one grouped product.
FORMS = ("eager", "grouped_mm")
WIDTH, HIDDEN, EXPERTS, K, TOKENS = 24, 40, 8, 2, (3, 20)


class Float64:
    """torch, with float64 in place of float32."""
    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def exact():
    """Inside, transformers' Mixtral asks for float64 wherever it would ask for float32."""
    with mock.patch.object(modeling_mixtral, "torch", Float64()), \
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double), \
            mock.patch.object(moe, "_can_use_grouped_mm", return_value=False):
        yield


def off(found, expected):
    """Distance over length, in float64."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


# The block -----------------------------------------------------------------------------------------------------------

def blocks(form, dtype):
    """(theirs, ours) with the same random weights."""
    torch.manual_seed(0)
    theirs = modeling_mixtral.MixtralSparseMoeBlock(MixtralConfig(
        hidden_size=WIDTH, intermediate_size=HIDDEN, num_local_experts=EXPERTS, num_experts_per_tok=K,
        experts_implementation=form))
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    theirs = theirs.to(dtype)
    ours = MixtureOfExperts(WIDTH, HIDDEN, EXPERTS).to(dtype)
    with torch.no_grad():
        ours.router.score.weight.copy_(theirs.gate.weight)
        ours.experts.w1.copy_(theirs.experts.gate_up_proj)
        ours.experts.w2.copy_(theirs.experts.down_proj)
    return theirs.eval(), ours.eval()


def inputs(router, dtype):
    """(x, a cotangent): of random tokens those whose second and third best scores rounding cannot swap."""
    torch.manual_seed(1)
    x = torch.randn(4 * TOKENS[0] * TOKENS[1], WIDTH).to(dtype)
    best = (x.double() @ router.double().T).sort(-1, descending=True).values
    sure = best[:, K - 1] - best[:, K] > 2 * torch.finfo(dtype).eps * best.abs().amax(-1)
    x = x[sure][:TOKENS[0] * TOKENS[1]].view(*TOKENS, WIDTH)
    return x, torch.randn(x.shape).to(dtype)


def of_theirs(block, x, cotangent):
    """{name: tensor}: the answer, and the gradients of tokens, router and both stacks of weights."""
    x = x.clone().requires_grad_()
    y = block(x)
    leaves = {"x": x, "router": block.gate.weight, "w1": block.experts.gate_up_proj, "w2": block.experts.down_proj}
    return {"y": y.detach(), **dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), cotangent), strict=True))}


def of_ours(block, x, cotangent):
    x = x.clone().requires_grad_()
    y, _ = block(x, K)
    leaves = {"x": x, "router": block.router.score.weight, "w1": block.experts.w1, "w2": block.experts.w2}
    return {"y": y.detach(), **dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), cotangent), strict=True))}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["dense", "sparse"])
@pytest.mark.parametrize("training", [False, True])
def test_the_block_and_all_its_gradients_in_float64(training, how, form):
    theirs, ours = blocks(form, torch.float64)
    x, cotangent = inputs(ours.router.score.weight.detach(), torch.float64)
    with exact():
        expected = of_theirs(theirs.train(training), x, cotangent)
    found = of_ours(ours.train(training).execute(how), x, cotangent)
    for name, t in expected.items():
        assert t.abs().max() > 0.1, name
        torch.testing.assert_close(found[name], t, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", ["dense", "sparse"])
def test_the_block_and_all_its_gradients_in_other_dtypes(how, dtype, form):
    """The longest chain from tokens to a gradient stores 16 results (score, two of the softmax, gate and up, silu,
    their product, answer, weighted, sum; and back again), each off by at most eps / 2 of itself: 8 eps, of the norm."""
    theirs, ours = blocks(form, dtype)
    x, cotangent = inputs(ours.router.score.weight.detach(), dtype)
    expected, found = of_theirs(theirs, x, cotangent), of_ours(ours.execute(how), x, cotangent)
    truth = of_ours(ours.double(), x.double(), cotangent.double())
    near = 8 * torch.finfo(dtype).eps
    for name, t in truth.items():
        assert found[name].dtype is expected[name].dtype is dtype
        assert off(found[name], t) < near, name
        assert off(expected[name], t) < near, name
        assert off(found[name], expected[name]) < 2 * near, name


def test_the_bound_of_bfloat16_tells_gate_from_up_and_one_weight_from_another():
    """What it is for: halves of w1 the wrong way round, or probabilities among all in place of the two, are out."""
    _, ours = blocks("eager", torch.bfloat16)
    x, _ = inputs(ours.router.score.weight.detach(), torch.bfloat16)
    near = 16 * torch.finfo(torch.bfloat16).eps
    with torch.no_grad():
        y, trace = ours(x, K)
        gate, up = ours.experts.w1.chunk(2, 1)
        share = (ours.router(x).softmax(-1) * trace.decisions[0].gate).sum(-1, keepdim=True)
        assert off(y * share, y) > near
        ours.experts.w1.copy_(torch.cat([up, gate], 1))
        assert off(ours(x, K)[0], y) > near


# Whole models --------------------------------------------------------------------------------------------------------

SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
         "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}
MODELS = {"as the real one": {}, "one key for all": {"num_key_value_heads": 1}, "wide heads": {"head_dim": 6},
          "three of five": {"num_local_experts": 5, "num_experts_per_tok": 3},
          "other angles": {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
          "shared words": {"tie_word_embeddings": True}, "other norm": {"rms_norm_eps": 1e-2}}
WAYS = {"one file": {}, "shards": {"max_shard_size": "8KB"}, "stacked": {"save_original_format": False},
        "stacked shards": {"save_original_format": False, "max_shard_size": "8KB"}}


def saved(folder, dtype=torch.float32, way="one file", **changes):
    """Their model, random in all its weights, saved in `folder`; and words [B, T]."""
    torch.manual_seed(3)
    theirs = MixtralForCausalLM(MixtralConfig(**{**SIZES, **changes}))
    for p in theirs.parameters():
        torch.nn.init.normal_(p, mean=float(p.dim() == 1), std=0.3)            # norms about one
    theirs = theirs.to(dtype).eval()
    theirs.save_pretrained(folder, **WAYS[way])
    return theirs, torch.randint(40, (4, 33))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_what_transformers_saves_gives_its_logits_in_float64(tmp_path, model, way):
    with exact():
        theirs, x = saved(tmp_path, torch.float64, way, **MODELS[model])
        with torch.no_grad():
            expected = theirs(x).logits
    if way == "shards":
        assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    ours = Mixtral.from_pretrained(tmp_path)
    assert expected.std() > 0.5
    for how in ("dense", "sparse"):
        with torch.no_grad():
            y, trace = ours.execute(how)(x)
        assert y.dtype is torch.float64
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    gates = [d.gate for d in trace.decisions]
    assert all((g.flatten(0, 1).mean(0) > 0).all() for g in gates), "every expert has a part in this"


@pytest.mark.parametrize("way", WAYS)
def test_what_transformers_saves_gives_its_logits_in_float32(tmp_path, way):
    """Two blocks of 16 stored results, each off by at most eps / 2 of itself, on both sides: 32 eps, of the norm."""
    theirs, x = saved(tmp_path, torch.float32, way)
    ours = Mixtral.from_pretrained(tmp_path).execute("sparse")
    with torch.no_grad():
        assert off(ours(x)[0], theirs(x).logits) < 32 * torch.finfo(torch.float32).eps


def test_logits_of_half_precision_files_read_as_float32(tmp_path):
    """As the released files are bfloat16: nothing is rounded twice."""
    _, x = saved(tmp_path, torch.bfloat16)
    theirs = MixtralForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = Mixtral.from_pretrained(tmp_path, torch.float32)
    with torch.no_grad():
        assert off(ours(x)[0], theirs(x).logits) < 32 * torch.finfo(torch.float32).eps
    assert Mixtral.from_pretrained(tmp_path).embed.weight.dtype is torch.bfloat16


def test_both_read_the_released_form_of_config_json_alike(tmp_path):
    """rope_theta and torch_dtype stood at the top when the weights were released."""
    _, x = saved(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 300.0})
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_theta"], config["torch_dtype"] = config.pop("rope_parameters")["rope_theta"], config.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs, ours = MixtralForCausalLM.from_pretrained(tmp_path), Mixtral.from_pretrained(tmp_path)
    assert ours.look[0].base == 300.0
    with torch.no_grad():
        assert off(ours(x)[0], theirs(x).logits) < 32 * torch.finfo(torch.float32).eps
