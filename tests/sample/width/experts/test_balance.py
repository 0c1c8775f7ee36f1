"""No layer of experts forgets its balance; popular code did, where nobody asked for the router's scores."""
import inspect
import sys
from functools import partial

import pytest
import torch

from dynnotes.learn import budgets
from dynnotes.registry import papers

LOSSES = ("balance_loss", "importance_loss", "load_loss")
BALANCED = {key: paper for key, paper in papers().items()
            if any(getattr(sys.modules[paper.__module__], name, None) is getattr(budgets, name) for name in LOSSES)}


def test_the_papers_that_balance_by_a_loss_are_found():
    assert {"shazeer2017outrageously", "fedus2022switch", "lepikhin2021gshard", "zoph2022stmoe",
            "dai2024deepseekmoe"} <= set(BALANCED)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("key", BALANCED)
def test_the_objective_has_more_than_the_task_in_it(key, training, monkeypatch):
    """As in huggingface/transformers issue 44242: the loss of balance must not hang on a flag, nor on the mode."""
    torch.manual_seed(0)
    model, inputs, target = BALANCED[key].demo()
    module, counted = sys.modules[BALANCED[key].__module__], []

    def noted(real, *args):
        counted.append(real(*args))
        return counted[-1]
    for name in set(LOSSES) & set(vars(module)):
        monkeypatch.setattr(module, name, partial(noted, getattr(module, name)))
    torch.manual_seed(1)
    model.train(training).loss(inputs, target)
    assert counted, f"{inspect.getsourcefile(BALANCED[key])}: the objective has no loss of balance"
    assert all(value.item() >= 0 for value in counted)


@pytest.mark.parametrize("key", BALANCED)
def test_each_layer_of_experts_is_balanced_by_itself(key):
    """The router of every layer gets a gradient from the balance alone (popular code mixed the layers up: 28255)."""
    torch.manual_seed(0)
    model, inputs, target = BALANCED[key].demo()
    model.train().task = lambda y, target: 0.0 * y.sum()             # nothing but the balance is left
    model.loss(inputs, target).backward()
    routers = [(n, p) for n, p in model.named_parameters() if n.endswith("score.weight")]
    assert routers
    for name, weight in routers:
        assert weight.grad.abs().max() > 0, f"{name}: no balance reaches it"
