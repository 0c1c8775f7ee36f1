"""Feed-forward networks as mixtures of experts: the same network where it should be, its price, what is refused."""
import copy
import math
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from timm.layers import GluMlp, Mlp
from torch import nn

from dynnotes.adapt import AdaptError, with_copied_experts, with_split_experts
from dynnotes.adapt.experts import balanced_groups
from dynnotes.execute import measured
from tests import promises


def plain():
    return nn.Sequential(nn.Linear(12, 16), nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1),
                                                          nn.Linear(32, 16)), nn.Linear(16, 4))


def vision():
    model = torchvision.models.VisionTransformer(image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=32,
                                                 mlp_dim=64, num_classes=4)
    nn.init.normal_(model.heads.head.weight)                         # zeros until trained
    return model


MODELS = {
    "plain": (plain, ["1"], (12,)),
    "torchvision": (vision, ["encoder.layers.encoder_layer_1.mlp", "encoder.layers.encoder_layer_2.mlp"], (3, 32, 32)),
    "timm": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=4),
             ["blocks.3.mlp", "blocks.11.mlp"], (3, 32, 32)),
    "timm, channels last": (lambda: timm.create_model("convnext_atto", num_classes=4, conv_mlp=False, dims=[8] * 4,
                                                      depths=[1] * 4), ["stages.1.blocks.0.mlp"], (3, 32, 32)),
}
MAKERS = {"split": with_split_experts, "copied": with_copied_experts}


def demo(kind, name):
    make, ffns, shape = MODELS[name]
    return MAKERS[kind](make(), ffns, 4, 2), (torch.randn(10, *shape),), torch.randint(4, (10,))


SOME = ["decisions_vary", "sparse_equals_dense", "the_bill_is_what_ran_to_the_last_mac",
        "samples_do_not_see_each_other"]
ALL = [p for p in promises.PROMISES if p != "the_bill_of_a_published_size"]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("name", "promise"), [("plain", p) for p in ALL]
                         + [("torchvision", p) for p in [*SOME, "every_parameter_learns", "no_samples_at_all"]]
                         + [(name, p) for name in ("timm", "timm, channels last") for p in SOME])
def test_experts_keep_the_contract(kind, name, promise):
    promises.PROMISES[promise](SimpleNamespace(key="shazeer2017outrageously", demo=lambda: demo(kind, name)))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_all_groups_together_are_the_network(name):
    make, ffns, shape = MODELS[name]
    model, x = make().double().eval(), torch.randn(3, *shape).double()
    y, trace = with_split_experts(model, ffns, 8, 8).eval()(x)
    torch.testing.assert_close(y, model(x), rtol=1e-12, atol=1e-12)
    assert (trace.spent == trace.full).all()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_equal_copies_are_the_network_however_many_a_token_computes(name):
    make, ffns, shape = MODELS[name]
    model, x = make().double().eval(), torch.randn(3, *shape).double()
    net = with_copied_experts(model, ffns, 4, 1).eval()
    for k in (1, 2, 4):
        torch.testing.assert_close(net.at(k)(x)[0], model(x), rtol=1e-12, atol=1e-12)


def neurons_of(layer, first):
    """Which rows of the given network's first layer each expert holds."""
    return [[next(i for i, row in enumerate(first.weight) if torch.equal(row, own)) for own in expert[0].weight]
            for expert in layer.experts]


@torch.no_grad()
def test_a_token_runs_the_groups_most_like_it():
    """MoEfication in plain loops: similarity selection by the cosine to the mean of a group's rows at unit length."""
    model, x = plain().double().eval(), torch.randn(9, 12).double()
    net = with_split_experts(model, ["1"], 4, 2).eval()
    y, trace = net(x)
    first, _, _, second = model[1]
    groups = neurons_of(net._layers()[0], first)
    assert sorted(n for g in groups for n in g) == list(range(32)) and {len(g) for g in groups} == {8}
    for sample, h in enumerate(model[0](x)):
        alike = []
        for group in groups:
            centre = [sum(float(first.weight[n, i] / first.weight[n].norm()) for n in group) / 8 for i in range(16)]
            length = math.sqrt(sum(c * c for c in centre)) * math.sqrt(sum(float(v) ** 2 for v in h))
            alike.append(sum(c * float(v) for c, v in zip(centre, h, strict=True)) / length)
        chosen = sorted(range(4), key=lambda e: -alike[e])[:2]
        assert trace.decisions[0].gate[sample].nonzero().flatten().tolist() == sorted(chosen)
        out = second.bias.clone()
        for e in chosen:
            for n in groups[e]:
                out += second.weight[:, n] * max(0.0, float(first.weight[n] @ h + first.bias[n]))
        torch.testing.assert_close(y[sample], model[2](out), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_while_training_the_truly_most_active_groups_run():
    """MoEfication's groundtruth selection: by the sum of a group's positive activations."""
    model, x = plain().double(), torch.randn(30, 12).double()
    nn.init.normal_(model[1][0].bias)                                          # what similarity cannot know
    net = with_split_experts(model, ["1"], 4, 1)
    assert not torch.equal(net.eval()(x)[1].decisions[0].gate, net.train()(x)[1].decisions[0].gate)
    trace = net(x)[1]
    groups = neurons_of(net._layers()[0], model[1][0])
    for sample, h in enumerate(model[0](x)):
        rises = [sum(max(0.0, float(model[1][0].weight[n] @ h + model[1][0].bias[n])) for n in g) for g in groups]
        assert trace.decisions[0].gate[sample].argmax() == rises.index(max(rises))


def test_a_router_learns_which_groups_matter():
    """It starts as similarity, and comes to find more of what is active; the loss of routing moves nothing else."""
    torch.manual_seed(0)
    model = plain()
    nn.init.normal_(model[1][0].bias)                                          # what similarity cannot know
    net, x = with_split_experts(model, ["1"], 8, 2), torch.randn(512, 12)
    layer, = net._layers()

    def found():
        """The share of the positive activations of the best groups that the router's groups have."""
        with torch.no_grad():
            truth = layer._truth(model[0](x))
            gate = net.eval()(x)[1].decisions[0].gate
        return float((truth * gate).sum() / truth.topk(2, -1).values.sum())

    before = found()
    optimizer = torch.optim.Adam(layer.router.parameters(), lr=0.01)
    target = torch.randint(4, (512,))
    for _ in range(60):
        net.train().zero_grad()
        net.loss((x,), target).backward()
        optimizer.step()
    assert found() > before + 0.05
    d = net.train()(x)[1].decisions[0]
    net.zero_grad()
    nn.functional.binary_cross_entropy(d.weight, d.gate).backward()
    assert all(p.grad is None for name, p in net.named_parameters() if "router" not in name)


def test_groups_are_equal_and_find_directions_that_belong_together():
    torch.manual_seed(0)
    centres = torch.eye(4, 10)
    rows = nn.functional.normalize(centres.repeat_interleave(6, 0) + 0.05 * torch.randn(24, 10), dim=1)
    shuffled = torch.randperm(24)
    groups = balanced_groups(rows[shuffled], 4)
    assert sorted(sorted((shuffled[g] // 6).tolist()) for g in groups) == [[i] * 6 for i in range(4)]
    alike = balanced_groups(torch.ones(12, 3) / 3 ** 0.5, 3)                   # nothing to tell them apart
    assert sorted(alike.flatten().tolist()) == list(range(12)) and alike.shape == (3, 4)


@torch.no_grad()
def test_weights_of_the_chosen_copies_add_up_to_one():
    """Sparse upcycling, app. B.7, its own example: 0.3, 0.2 and 0.1 become 0.5, 0.333... and 0.1666..."""
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 2)), nn.Linear(2, 3)).double().eval()
    net = with_copied_experts(model, ["0"], 11, 3).eval()
    layer, = net._layers()
    layer.router.weight[:, 0] = torch.tensor([0.3, 0.2, 0.1] + [0.05] * 8).double().log()
    for e, expert in enumerate(layer.experts):                                 # experts that differ
        expert[2].bias += e
    x = torch.tensor([[1.0, 0.0]]).double()
    y, trace = net(x)
    torch.testing.assert_close(trace.decisions[0].weight[0, :3], torch.tensor([1 / 2, 1 / 3, 1 / 6]).double())
    mixed = sum(w * layer.experts[e](x) for e, w in enumerate([1 / 2, 1 / 3, 1 / 6]))
    torch.testing.assert_close(y, model[1](mixed))
    assert torch.equal(net.at(1)(x)[1].decisions[0].weight[0], torch.eye(11).double()[0])


@torch.no_grad()
def test_the_price_of_experts():
    """Split: k / E of the network and its router; copied: k times the network and its router. D = 16, 32 neurons."""
    model, x = plain().eval(), torch.randn(5, 12)
    with measured() as bill:
        model(x)
    whole = bill.macs / 5
    split, copied = with_split_experts(model, ["1"], 4, 1).eval(), with_copied_experts(model, ["1"], 4, 3).eval()
    assert (split(x)[1].spent == whole - 1024 * 3 / 4 + 16 * 4 + 4 * 4).all()
    assert (copied(x)[1].spent == whole + 1024 * 2 + 16 * 4).all()
    assert split.budget.values == (1, 2, 3, 4)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_model_stays_as_it_was_and_shares_what_is_not_an_expert(kind):
    model = plain()
    before = copy.deepcopy(model)
    net = MAKERS[kind](model, ["1"], 4, 2)
    own, theirs = ({id(p) for p in m.parameters()} for m in (net, model))
    assert {id(p) for p in (*model[0].parameters(), *model[2].parameters())} <= own
    assert not own & {id(p) for p in model[1].parameters()} and len(theirs) == 8
    for p in net.parameters():
        p.data.add_(1.0)
    assert repr(model) == repr(before)
    assert all(torch.equal(a, b) for a, b in zip(model[1].parameters(), before[1].parameters(), strict=True))


class Holder(nn.Module):
    def __init__(self, ffn):
        super().__init__()
        self.ffn = ffn

    def forward(self, x):
        return self.ffn(x)


def of(*parts):
    return Holder(nn.Sequential(*parts))


A, B = nn.Linear(4, 12), nn.Linear(12, 4)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("model", "message"), [
    (Holder(nn.Conv2d(3, 3, 1)), "'ffn' is a Conv2d.*experts are made from a timm Mlp"),
    (Holder(GluMlp(4, 12)), "'ffn' is a GluMlp"),
    (Holder(Mlp(4, 12, norm_layer=nn.LayerNorm)), "'ffn' is a Mlp of Linear, GELU, Dropout, LayerNorm"),
    (Holder(Mlp(4, 12, use_conv=True)), "'ffn' is a Mlp of Conv2d"),
    (of(A, nn.Softmax(-1), B), "Linear, Softmax, Linear"),
    (of(A, nn.PReLU(), B), "Linear, PReLU, Linear"),
    (of(A, nn.GLU(), nn.Linear(6, 4)), "Linear, GLU, Linear"),
    (of(nn.Dropout(), A, nn.ReLU(), B), "Dropout, Linear, ReLU, Linear"),
    (of(A, nn.ReLU(), B, nn.ReLU()), "Linear, ReLU, Linear, ReLU"),
])
def test_a_network_that_is_none_is_refused(kind, model, message):
    with pytest.raises(AdaptError, match=message):
        MAKERS[kind](model, ["ffn"], 2, 1)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("ffns", "experts", "k", "message"), [
    (["mlp"], 4, 2, "no module 'mlp'"),
    ("ffn", 4, 2, "in a list, not 'ffn'"),
    ([], 4, 2, "at least one in a list"),
    (["ffn"], 4, 5, "not 5 of 4"),
    (["ffn"], 4, 0, "not 0 of 4"),
    (["ffn"], 2.5, 1, "whole numbers both"),
])
def test_a_call_that_makes_no_sense_is_refused(kind, ffns, experts, k, message):
    with pytest.raises(AdaptError, match=message):
        MAKERS[kind](of(A, nn.ReLU(), B), ffns, experts, k)


def test_neurons_that_cannot_be_shared_out_evenly():
    with pytest.raises(AdaptError, match="12 neurons cannot be split into 5 equal groups; 3, 4, 6 would do"):
        with_split_experts(of(A, nn.ReLU(), B), ["ffn"], 5, 2)


@pytest.mark.parametrize("ffn", [of(A, nn.SiLU(), nn.Dropout(), B, nn.Dropout()), Holder(Mlp(4, 12, drop=0.1)),
                                 of(nn.Linear(4, 12, bias=False), nn.Tanh(), nn.Linear(12, 7, bias=False))])
@torch.no_grad()
def test_networks_with_dropout_and_without_biases(ffn):
    x = torch.randn(3, 5, 4)
    for make in MAKERS.values():
        torch.testing.assert_close(make(ffn, ["ffn"], 3, 3).eval()(x)[0], ffn.eval()(x))
