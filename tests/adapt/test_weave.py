"""Models as they come, cut at named submodules: same answers, same MACs, clear errors."""
import pytest
import timm
import torch
import torchvision
from torch import nn

from dynnotes.adapt.weave import AdaptError, Woven, chain
from dynnotes.execute import Dynamic, measured, run


class Same(Dynamic):
    """Runs what it stands for."""
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return run(self.module, x)


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.outer = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x):
        return self.outer[0](x) if x.sum() > 0 else x


MODELS = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), ["layer1.0", "layer1.1", "layer2.0", "layer3.1"]),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), ["features.3"]),
    "swin_t": (lambda: torchvision.models.swin_t(num_classes=10), ["features.1.0"]),
    "timm resnet10t": (lambda: timm.create_model("resnet10t", num_classes=10), ["layer1.0"]),
    "timm convnext_atto": (lambda: timm.create_model("convnext_atto", num_classes=10), ["stages.1.blocks.0"]),
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10), ["blocks"]),
    "timm vit, inside": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10),
                         ["blocks.3", "blocks.7.mlp"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_woven_of_its_own_modules_answers_and_costs_the_same(name):
    make, names = MODELS[name]
    model, x = make().eval(), torch.randn(2, 3, 64, 64)
    inside = dict(model.named_modules())
    woven = Woven(model, {n: Same(inside[n]) for n in names}).eval()
    with torch.no_grad():
        with measured() as plain:
            y = model(x)
        with measured() as bill:
            same, trace = woven(x)
    assert torch.equal(y, same)
    assert plain.macs == bill.macs == float(trace.spent.sum())
    assert sum(p.numel() for p in woven.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_woven_model_keeps_its_weights_in_its_state():
    models = [torchvision.models.resnet18(num_classes=3) for _ in range(2)]
    a, b = (Woven(model, {"layer1.0": Same(model.layer1[0])}).eval() for model in models)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(a(x)[0], b(x)[0])
        b.load_state_dict(a.state_dict())
        assert torch.equal(a(x)[0], b(x)[0])


def test_a_chain_is_the_model():
    for model, names, size in ((torchvision.models.resnet18(num_classes=10), ["layer1", "layer2", "layer3"], 32),
                               (timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10),
                                ["blocks.3", "blocks.7"], 32)):
        x = torch.randn(2, 3, size, size)
        with torch.no_grad():
            value = x
            for _, part in chain(model.eval(), names):
                value, = part(value)
            assert torch.equal(value, model(x))


def test_a_model_that_comes_in_training_mode_is_taken_as_it_infers():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = nn.functional.dropout(self.first(x), 0.5, self.training)
            return (self.second(y), y) if self.training else self.second(y)
    model, x = Dropping().train(), torch.randn(2, 4)
    model.first.eval()
    woven = Woven(model, {"first": Same(model.first)})
    assert [model.training, model.first.training, model.second.training] == [True, False, True]
    assert torch.equal(woven.eval()(x)[0], model.eval()(x))


def test_a_module_that_is_given_more_than_one_value_is_not_replaced():
    class Adding(nn.Module):
        def forward(self, x, y=None):
            return x if y is None else x + y

    class Calling(nn.Module):
        def __init__(self, both):
            super().__init__()
            self.a, self.b, self.both = nn.Linear(4, 4), Adding(), both

        def forward(self, x):
            return self.b(self.a(x), self.a.bias) if self.both else self.b(x=self.a(x), y=None)
    with pytest.raises(AdaptError, match=r"'b' is called with more than one value \(x, y\)"):
        Woven(Calling(True), {"b": Same(nn.Identity())})
    model, x = Calling(False), torch.randn(2, 4)
    assert torch.equal(Woven(model, {"b": Same(model.b)})(x)[0], model(x))


def test_unused_inputs_do_not_shift_the_others():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, unused, x, shift=None, *, scale=2.0):
            return self.layer(x) * scale + (0 if shift is None else shift)
    model, x = Three(), torch.randn(2, 4)
    assert torch.equal(Woven(model, {"layer": Same(model.layer)})(torch.zeros(2, 1), x)[0], model(None, x))


@pytest.mark.parametrize(("model", "names", "message"), [
    (torchvision.models.resnet18(), ["layer9"], "no module 'layer9'; did you mean 'layer4'"),
    (torchvision.models.resnet18(), [""], "no module ''"),
    (torchvision.models.resnet18(), [3], "no module 3"),
    (Reused(), ["layer"], "called 2 times, not once"),
    (Reused(), ["spare"], "called 0 times, not once"),
    (Branching(), ["outer.0"], "cannot be traced"),
])
def test_what_cannot_be_woven_is_said(model, names, message):
    with pytest.raises(AdaptError, match=message):
        Woven(model, {name: Same(nn.Identity()) for name in names})


def test_a_chain_refuses_to_cut_across_a_shortcut():
    with pytest.raises(AdaptError, match=r"more than one value passes.*cut it where the model is sequential"):
        chain(torchvision.models.resnet18(), ["layer1.0.conv1"])


def test_a_model_with_two_results_is_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x), x

    with pytest.raises(AdaptError, match="returns tuple, not one tensor"):
        Woven(Two(), {"layer": Same(nn.Identity())})
