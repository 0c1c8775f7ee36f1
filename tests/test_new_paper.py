"""The stub of a new paper: written where it belongs, working, and not mistaken for a finished paper."""
import importlib.util
import subprocess
import sys

import pytest
import torch

import dynnotes
from dynnotes.execute import measured
from dynnotes.new_paper import NotPossible, write

KB = dynnotes.load()


@pytest.fixture
def checkout(tmp_path):
    for folder in ("dynnotes", "tests"):
        (tmp_path / folder).mkdir()
    return tmp_path


def test_every_open_method_gets_a_stub_that_compiles_and_lints(checkout):
    expected = [p for p in KB if p.source is None and p.kind in ("method", "technique", "system")]
    for paper in expected:
        *_, module, test = write(KB, paper.key, checkout)
        assert module.parent == checkout / "dynnotes" / paper.taxon and test.name == f"test_{module.name}"
        compile(module.read_text(encoding="utf-8"), str(module), "exec")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,W,UP"]
    result = subprocess.run([*command, str(checkout)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_a_stub_really_skips_and_its_test_fails_until_it_is_written(checkout):
    *_, module, test = write(KB, "wang2018skipnet", checkout)
    spec = importlib.util.spec_from_file_location("dynnotes.sample.depth.skips.skipnet", module)
    stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stub)
    del dynnotes.registry._papers["wang2018skipnet"]          # it registered itself; the other tests must not see it
    torch.manual_seed(0)
    model, inputs, target = stub.SkipNet.demo()
    with torch.no_grad(), measured() as bill:
        _, trace = model.eval().execute("sparse")(*inputs)
    assert bill.macs == trace.spent.sum() and (trace.spent < trace.full).any()
    model.execute("dense").train().loss(inputs, target).backward()
    assert 'pytest.fail("compute the demo' in test.read_text(encoding="utf-8")


@pytest.mark.parametrize(("key", "why"), [("ConvNet-AIG", "implemented already"), ("han2022dynamic", "kind survey")])
def test_what_cannot_be_stubbed_says_why(checkout, key, why):
    with pytest.raises(NotPossible, match=why):
        write(KB, key, checkout)
    assert not list(checkout.rglob("*.py"))


def test_nothing_is_overwritten(checkout):
    write(KB, "SkipNet", checkout)
    with pytest.raises(NotPossible, match="there already"):
        write(KB, "SkipNet", checkout)


def test_outside_a_checkout_it_says_so(tmp_path):
    with pytest.raises(NotPossible, match="clone the repository"):
        write(KB, "SkipNet", tmp_path)


def test_an_unknown_key_gets_the_nearest(checkout):
    with pytest.raises(KeyError, match="SkipNet"):
        write(KB, "SkipNett", checkout)
