"""Vision transformers as they come, with fewer tokens on the way: which stay, at what price, and what is refused."""
import copy
import math
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from dynnotes.adapt import AdaptError, with_fewer_tokens
from dynnotes.execute import measured
from tests import promises

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}


def tiny(**more):
    model = VisionTransformer(**SMALL, **more)
    for block in model.blocks:                                       # trained attention is less even than drawn one
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return model


def vision():
    model = torchvision.models.VisionTransformer(image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=32,
                                                 mlp_dim=64, num_classes=5)
    nn.init.normal_(model.heads.head.weight)                         # zeros until trained
    return model


MODELS = {
    "timm": tiny,
    "torchvision": vision,
    "registers, layer scale, normalised queries": lambda: tiny(reg_tokens=4, init_values=0.1, qk_norm=True,
                                                               no_embed_class=True),
    "mean of the patches": lambda: tiny(global_pool="avg"),
    "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5),
    "deit, distilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=64, num_classes=5),
}


def size(name):
    return 64 if name in ("vit_tiny", "deit, distilled") else 32


def demo(name):
    model = with_fewer_tokens(MODELS[name](), (1, 2), 0.5)
    return model, (torch.randn(6, 3, size(name), size(name)),), torch.randint(5, (6,))


SOME = ["decisions_vary", "sparse_equals_dense", "the_bill_is_what_ran_to_the_last_mac",
        "samples_do_not_see_each_other"]
ALL = [p for p in promises.PROMISES if p != "the_bill_of_a_published_size"]


@pytest.mark.parametrize(("name", "promise"), [("timm", p) for p in ALL]
                         + [("torchvision", p) for p in ALL if p != "the_task_is_learned"]
                         + [(name, p) for name in ("vit_tiny", *list(MODELS)[2:4]) for p in SOME])
def test_fewer_tokens_keep_the_contract(name, promise):
    promises.PROMISES[promise](SimpleNamespace(key="yin2022avit", demo=lambda: demo(name)))    # of what adapts to input


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_with_all_tokens_kept_it_is_the_model_itself(name):
    """And costs what the model costs, and the class token's look at all tokens: N D products at each place."""
    model, x = MODELS[name]().double().eval(), torch.randn(3, 3, size(name), size(name)).double()
    net = with_fewer_tokens(model, (1, 3), 1.0).eval()
    with measured() as bill:
        y = model(x)
    for how in ("dense", "sparse"):
        same, trace = net.execute(how)(x)
        torch.testing.assert_close(same, y, rtol=1e-12, atol=1e-12)
        width = 192 if size(name) == 64 else 32
        patches = trace.decisions[0].gate.shape[1]
        tokens = patches + getattr(model, "num_prefix_tokens", 1)
        assert (trace.spent == trace.full).all() and trace.full[0] == bill.macs / 3 + 2 * tokens * width


def look(block, x, heads):
    """Eq. (1) of EViT in plain loops: mean over heads of the class token's attention to each token of x [n, D]."""
    n, width = x.shape
    qkv = block.attn.qkv(block.norm1(x))
    d, mean = width // heads, [0.0] * n
    for h in range(heads):
        q, k = qkv[0, h * d:(h + 1) * d], qkv[:, width + h * d:width + (h + 1) * d]
        raw = [math.exp(sum(float(q[i]) * float(k[j, i]) for i in range(d)) / math.sqrt(d)) for j in range(n)]
        mean = [m + r / sum(raw) / heads for m, r in zip(mean, raw, strict=True)]
    return mean


@torch.no_grad()
def test_what_stays_is_what_the_class_token_looks_at_most():
    """EViT, eq. (1) and its attentive token identification, one image at a time: tokens are really taken out."""
    model, images = tiny().double().eval(), torch.randn(3, 3, 32, 32).double()
    net = with_fewer_tokens(model, (1, 2), 0.55).eval()
    y, trace = net(images)
    for sample, image in enumerate(images):
        x, there = model._pos_embed(model.patch_embed(image[None]))[0], list(range(16))
        for i, block in enumerate(model.blocks):
            if i in (1, 2):
                seen = look(block, x, 2)
                most = sorted(range(1, len(x)), key=lambda j, seen=seen: -seen[j])[:math.ceil(0.55 * len(there))]
                rows = [0, *sorted(most)]
                there = [there[j - 1] for j in rows[1:]]
                assert trace.decisions[i - 1].gate[sample].nonzero().flatten().tolist() == there
            x = x + block.attn(block.norm1(x[None]))[0]
            if i in (1, 2):
                x = x[rows]
            x = x + block.mlp(block.norm2(x))
        torch.testing.assert_close(y[sample], model.head(model.norm(x)[0]), rtol=1e-9, atol=1e-9)
    assert [int(d.gate.sum(1)[0]) for d in trace.decisions] == [9, 5]


@torch.no_grad()
def test_what_left_never_comes_back():
    net, (x,), _ = demo("torchvision")
    for keep in (0.0, 0.3, 0.5, 0.9):
        first, second = net.eval().at(keep)(x)[1].decisions
        assert (second.gate <= first.gate).all() and (second.gate.sum(1) >= 1).all()
        assert (first.gate.sum(1) == max(1, math.ceil(16 * keep - 1e-9))).all()
        assert first.shape == (4, 4) and first.kind == "token" and first.name == "patches kept at block 1"


def test_a_share_is_not_rounded_up_by_the_computer():
    """0.55 * 100 is 55.00000000000001."""
    net = with_fewer_tokens(VisionTransformer(**SMALL | {"img_size": 80}), (1,), 0.55).eval()
    with torch.no_grad():
        assert (net(torch.randn(1, 3, 80, 80))[1].decisions[0].gate.sum(1) == 55).all()


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_it_trains_alike_in_both_forms(name):
    torch.manual_seed(0)
    net, (x,), target = demo(name)
    net, x, gradients = net.double(), x.double(), []
    for how in ("dense", "sparse"):
        net.zero_grad()
        net.train().execute(how).loss((x,), target).backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_weights_are_the_model_s_own_and_the_model_stays_as_it_was():
    model = tiny()
    before = copy.deepcopy(model)
    net = with_fewer_tokens(model, (1, 2))
    assert {id(p) for p in net.parameters()} == {id(p) for p in model.parameters()}
    assert len(net.state_dict()) == len(model.state_dict())                    # none is there twice
    assert repr(model) == repr(before)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), before.eval()(x))


@torch.no_grad()
def test_a_transformer_inside_a_model():
    class Scale(nn.Module):
        def forward(self, x):
            return x / 2

    model, x = nn.Sequential(Scale(), nn.ModuleDict({"vit": vision()})["vit"]).eval(), torch.randn(2, 3, 32, 32)
    net = with_fewer_tokens(model, (1,), 1.0).eval()
    torch.testing.assert_close(net(x)[0], model(x))


@pytest.mark.parametrize(("model", "at", "keep", "message"), [
    (lambda: torchvision.models.resnet18(), (1,), 0.7, "ResNet holds no VisionTransformer of timm or torchvision"),
    (lambda: nn.Sequential(tiny(), tiny()), (1,), 0.7, "holds 2 VisionTransformers.*; give one"),
    (lambda: tiny(class_token=False, global_pool="avg"), (1,), 0.7, "no class token.*class_token=True"),
    (lambda: tiny(global_pool="map"), (1,), 0.7, "attn_pool.*global_pool='token'"),
    (lambda: VisionTransformer(**SMALL, block_fn=ResPostBlock), (1,), 0.7, r"blocks\.0 is a ResPostBlock"),
    (lambda: VisionTransformer(**SMALL, attn_layer="diff"), (1,), 0.7, r"blocks\.0 is a Block with DiffAttention"),
    (tiny, (), 0.7, "from 0 to 3, not "),
    (tiny, (1, 1), 0.7, "different blocks"),
    (tiny, (4,), 0.7, "from 0 to 3, not"),
    (tiny, (-1,), 0.7, "from 0 to 3, not"),
    (tiny, (1,), 1.5, "a share between 0 and 1"),
])
def test_what_cannot_be_done_is_said(model, at, keep, message):
    with pytest.raises(AdaptError, match=message):
        with_fewer_tokens(model(), at, keep)


def test_a_share_out_of_range_is_refused_later_too():
    with pytest.raises(ValueError, match="keep is between 0 and 1"):
        with_fewer_tokens(tiny(), (1,)).at(2)
