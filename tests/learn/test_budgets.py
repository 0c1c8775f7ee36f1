"""Budget losses at values worked by hand."""
import math

import pytest
import torch

from dynnotes.learn.budgets import balance_loss, bounded_share, importance_loss, load_loss, z_loss

SPENT = [torch.tensor([30.0, 50.0]), torch.tensor([10.0, 10.0])]      # shares 0.8 and 0.1, together 100 of 300
FULL = [torch.tensor([50.0, 50.0]), torch.tensor([100.0, 100.0])]


@pytest.mark.parametrize(("tight", "bounds"), [
    (1.0, (0.8 - 0.4) ** 2 + (0.4 - 0.1) ** 2),                           # between 0.4 and 0.4
    (0.5, (0.8 - 0.7) ** 2 + (0.2 - 0.1) ** 2),                           # between 0.2 and 0.7
    (0.2, 0.0),                                                           # between 0.08 and 0.88
    (0.0, 0.0)])                                                          # between 0 and 1
def test_bounded_share(tight, bounds):
    found = bounded_share(SPENT, FULL, 0.4, tight).item()
    assert abs(found - ((1 / 3 - 0.4) ** 2 + bounds / 2)) < 1e-6


def test_bounded_share_pulls_a_block_back():
    spent = [s.clone().requires_grad_() for s in SPENT]
    bounded_share(spent, FULL, 1 / 3, 1.0).backward()                      # the network is on target, no block is
    assert (spent[0].grad > 0).all() and (spent[1].grad < 0).all()


# Experts -------------------------------------------------------------------------------------------------------------

EXPERTS = 8


def routed(spread):
    """(scores, probs, wanted) of 64 tokens whose scores favour expert 0 the more, the smaller `spread`."""
    torch.manual_seed(0)
    scores = spread * torch.randn(64, EXPERTS).double()
    scores[:, 0] += 4
    probs = scores.softmax(-1)
    return scores, probs, torch.nn.functional.one_hot(scores.argmax(-1), EXPERTS).double()


def test_importance_and_load_are_squared_coefficients_of_variation_by_hand():
    """Shazeer et al. 2017, eq. (6), (7) and (10), (11)."""
    values = torch.rand(2, 5, 3).double()
    totals = [sum(values[b, t, e].item() for b in range(2) for t in range(5)) for e in range(3)]
    mean = sum(totals) / 3
    by_hand = sum((t - mean) ** 2 for t in totals) / 3 / mean ** 2
    assert abs(importance_loss(values).item() - by_hand) < 1e-12
    assert abs(load_loss(values).item() - by_hand) < 1e-12


def test_balance_by_hand_over_groups():
    """Fedus et al. 2022, eq. (4) to (6), with k choices a token as Dai et al. 2024, eq. (12) to (14)."""
    torch.manual_seed(1)
    probs = torch.randn(3, 5, 4).double().softmax(-1)
    wanted = torch.zeros_like(probs).scatter(-1, probs.topk(2, -1).indices, 1.0)
    by_hand = []
    for p, w in zip(probs.tolist(), wanted.tolist(), strict=True):
        f = [sum(row[e] for row in w) / (2 * 5) for e in range(4)]
        mean = [sum(row[e] for row in p) / 5 for e in range(4)]
        by_hand.append(4 * sum(a * b for a, b in zip(f, mean, strict=True)))
    assert abs(balance_loss(probs, wanted).item() - sum(by_hand) / 3) < 1e-12


def test_balance_is_one_when_even_and_the_number_of_experts_at_a_collapse():
    even = torch.full((EXPERTS, EXPERTS), 1 / EXPERTS).double()
    assert abs(balance_loss(even, torch.eye(EXPERTS).double()).item() - 1) < 1e-12
    one = torch.eye(EXPERTS).double()[:1].expand(10, -1)
    assert abs(balance_loss(one, one).item() - EXPERTS) < 1e-12


def test_a_double_softmax_hides_a_collapse_and_is_refused():
    """As popular code had it (huggingface/transformers issue 45120): probabilities went through softmax once more."""
    scores, probs, wanted = routed(0.3)
    assert wanted.mean(0)[0] == 1                                    # every token to expert 0
    right, twice = balance_loss(probs, wanted), balance_loss(probs.softmax(-1), wanted)
    most = EXPERTS * math.e / (math.e + EXPERTS - 1)                 # 2.2: of what softmax made of a one-hot row
    assert twice <= most < right / 2
    with pytest.raises(ValueError, match="probabilities"):
        balance_loss(scores, wanted)

    def pull(times):
        s = scores.clone().requires_grad_()
        p = s.softmax(-1)
        balance_loss(p.softmax(-1) if times == 2 else p, wanted).backward()
        return s.grad.abs().sum().item()
    assert pull(2) < pull(1) / 2


def test_balance_pulls_towards_the_idle_and_counts_are_constants():
    scores, _, wanted = routed(0.3)
    scores.requires_grad_()
    wanted.requires_grad_()
    balance_loss(scores.softmax(-1), wanted).backward()
    assert wanted.grad is None
    assert (scores.grad[:, 0] > 0).all() and (scores.grad[:, 1:] < 0).all()


def test_z_loss_by_hand_and_what_it_takes():
    """Zoph et al. 2022, eq. (5): of scores. Of probabilities it would be nearly constant."""
    scores, probs, _ = routed(1.0)
    by_hand = [math.log(sum(math.exp(v) for v in row)) ** 2 for row in scores.tolist()]
    assert abs(z_loss(scores).item() - sum(by_hand) / len(by_hand)) < 1e-12
    low, high = math.log(EXPERTS - 1 + math.e) ** 2, (1 / EXPERTS + math.log(EXPERTS)) ** 2
    assert min(low, high) - 1e-9 <= z_loss(probs).item() <= max(low, high) + 1e-9
