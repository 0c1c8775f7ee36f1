"""Counts: parameters and MACs of the sizes that papers print, against what they print."""
import pytest
import torch

from dynnotes.registry import papers

SIZES = [pytest.param(p, id=f"{key}: {p.name}") for key, cls in papers().items() if hasattr(cls, "published")
         for p in cls.published()]


@pytest.mark.parametrize("published", SIZES)
def test_parameters_and_macs_are_as_printed(published):
    with torch.device("meta"):
        model = published.make()
    params = sum(p.numel() for p in model.parameters())
    if published.params is not None:
        assert abs(params - published.params) <= published.tolerance * published.params, published.where
    if published.macs is not None:
        assert params < 100e6, "print MACs for a size that fits in memory"
        with torch.no_grad():
            _, trace = published.make().eval()(*published.inputs())
        macs = getattr(trace, published.counts)[0].item()
        assert abs(macs - published.macs) <= published.tolerance * published.macs, published.where
