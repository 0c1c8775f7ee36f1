"""Fidelity of HydraNet: its components in plain loops, the partition of sec. 3.1 as a worked example, its limits."""
import math

import pytest
import torch
from torch import nn

from dynnotes.execute import price
from dynnotes.sample.width.experts.hydranet import ALIKE, HydraNet, hydra_resnet, nearest, partition


def net():
    torch.manual_seed(0)
    model, (x,), target = HydraNet.demo()
    nn.init.normal_(model.bias)
    model, x = model.double(), x.double()
    model(x)                                                                  # in training once: norms that do a thing
    return model.eval(), x, target


def soft(model):
    """As in training, where all branches run, but with the norms as they are afterwards."""
    model.train()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    return model


def linear(weight, x):
    return [sum(w * v for w, v in zip(row, x, strict=True)) for row in weight.tolist()]


def parts(model, x):
    """For every sample: the shares of all branches and their features, softmax and products by hand."""
    shared = model.stem(x)
    seen, found = model.gate(shared), []
    features = [branch(shared) for branch, _ in model.branches]
    for b in range(len(x)):
        powers = [math.exp(v) for v in linear(model.router.score.weight, seen[b].tolist())]
        found.append(([v / sum(powers) for v in powers], [f[b].tolist() for f in features]))
    return found


def answer(model, p, f, chosen):
    """b + sum of p_i W_i f_i over the chosen branches."""
    y = model.bias.tolist()
    for i in chosen:
        y = [a + p[i] * w for a, w in zip(y, linear(model.branches[i][1].weight, f[i]), strict=True)]
    return y


@pytest.mark.parametrize("k", [1, 2, 4])
def test_equation_the_best_k_branches_by_their_share(k):
    """Sec. 3: the gate chooses by the stem's features, the chosen branches alone make the prediction."""
    model, x, _ = net()
    with torch.no_grad():
        y, trace = model.at(k)(x)
        for b, (p, f) in enumerate(parts(model, x)):
            top = sorted(range(5), key=lambda i: -p[i])[:k]
            assert trace.decisions[0].gate[b].tolist() == [float(i in top) for i in range(5)]
            torch.testing.assert_close(y[b].tolist(), answer(model, p, f, top), rtol=1e-10, atol=1e-10)


def test_equation_the_soft_gate_and_the_loss_in_training():
    """Abstract: a soft gate in training, every branch by its share; the loss of the task and of the gate, by hand."""
    model, x, target = net()
    soft(model)
    with torch.no_grad():
        y, trace = model(x)
        assert (trace.decisions[0].gate == 1).all()
        by_hand = 0.0
        for b, (p, f) in enumerate(parts(model, x)):
            mine = answer(model, p, f, range(5))
            torch.testing.assert_close(y[b].tolist(), mine, rtol=1e-10, atol=1e-10)
            by_hand -= math.log(math.exp(mine[target[b]]) / sum(math.exp(v) for v in mine))
            by_hand -= math.log(p[int(target[b]) % 5])                        # the demo's groups
        assert abs(model.loss((x,), target).item() - by_hand / len(x)) < 1e-9


def test_equation_the_combiner_is_one_layer_on_all_features_side_by_side():
    """The columns of branches that do not run meet zeros, so that they need not be computed."""
    model, x, _ = net()
    with torch.no_grad():
        y, trace = model.at(2)(x)
        whole = nn.Linear(5 * 8, 10).double()
        whole.weight.copy_(torch.cat([last.weight for _, last in model.branches], 1))
        whole.bias.copy_(model.bias)
        weight, shared = trace.decisions[0].weight, model.stem(x)
        wide = [weight[:, i:i + 1] * branch(shared) for i, (branch, _) in enumerate(model.branches)]
        torch.testing.assert_close(whole(torch.cat(wide, 1)), y)
        assert (weight[trace.decisions[0].gate == 0] == 0).all()


def test_limit_all_branches_are_the_soft_gate_of_training():
    model, x, _ = net()
    with torch.no_grad():
        y, trace = model.at(5)(x)
        assert (trace.spent == trace.full).all()
        torch.testing.assert_close(soft(model).at(1)(x)[0], y)


def test_limit_a_gate_that_is_sure_leaves_one_branch():
    model, x, _ = net()
    with torch.no_grad():
        model.router.score.weight.zero_()
        model.gate[-1] = nn.Sequential(model.gate[-1], nn.Tanh())             # features below 1
        model.router.score.weight[3] = 1e4
        one, few = model.at(1)(x)[0], model.at(4)(x)[0]
        sure = model.gate(model.stem(x)).sum(1) > 0.1                         # the score of branch 3 is 1e4 times that
        assert sure.any()
        branch, last = model.branches[3]
        torch.testing.assert_close(one[sure], (last(branch(model.stem(x))) + model.bias)[sure])
        torch.testing.assert_close(few[sure], one[sure])


def test_conservation_every_branch_more_costs_as_much():
    model, x, _ = net()
    with torch.no_grad():
        shared = model.stem(x)
        base = price(model.stem, x).macs + price(model.gate, shared).macs + model.router.score.weight.numel()
        each = price(model.branches[0], shared).macs
        for k in range(1, 6):
            _, trace = model.at(k)(x)
            assert (trace.decisions[0].gate.sum(1) == k).all()
            assert (trace.spent == base + k * each).all()


def test_worked_example_classes_that_look_alike_share_a_branch():
    """Sec. 3.1: six classes, three pairs of near features."""
    features = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.3, 0.1], [9.2, 0.1], [0.1, 9.4]])
    branch = partition(features, 3)
    assert branch[0] == branch[3] and branch[1] == branch[4] and branch[2] == branch[5]
    assert sorted(branch) == [0, 0, 1, 1, 2, 2]


def test_worked_example_a_centroid_takes_its_nearest_and_no_more():
    """Sec. 3.1, on a line: centroid 0 at 0 takes the two nearest, though four are nearer to it than to the other."""
    features = torch.tensor([[0.0], [3.0], [1.0], [2.0]])
    assert nearest(features, torch.tensor([[0.0], [10.0]])) == [0, 1, 0, 1]
    assert nearest(torch.arange(5.0)[:, None], torch.tensor([[4.0], [0.0]])) == [1, 1, 0, 0, 0]


def test_a_partition_needs_a_class_for_every_branch():
    with pytest.raises(ValueError, match="3 classes cannot be shared out to 4"):
        partition(torch.randn(3, 2), 4)


def test_the_digits_are_shared_out_evenly():
    assert sorted(ALIKE) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(hydra_resnet(channels=1, widths=(2, 2, 2), groups=ALIKE).branches) == 5
