"""Shared by every test: one thread, and `torch.empty` that cannot pass for zeros."""
import pytest


@pytest.fixture(autouse=True)
def one_thread(request):
    if "torch" in request.node.keywords or "torch" in __import__("sys").modules:
        import torch
        torch.set_num_threads(1)
        torch.manual_seed(0)
