"""What every real dataset keeps: options, honest difficulty, nets that fit, results that replace none."""
import json

import pytest
import torch

from dynnotes import cli, data
from dynnotes.data import real
from dynnotes.learn import evidence, recipes, shipped

from .files import TEN, cifar10, cifar100

KEY = "teerapittayanon2016branchynet"


@pytest.fixture
def ten(tmp_path):
    return cifar10(tmp_path / "small", each=30)


@pytest.mark.parametrize(("spec", "message"), [
    ("cifr10:x", "did you mean 'cifar10'"), ("cifar10", "as in cifar10:PATH"), ("cifar10:", "cifar10:PATH"),
    ("x?grey=1", "no option 'grey'; did you mean 'gray'"), ("x?gray=2", "gray is a whole number from 0 to 1"),
    ("x?size=0", "size is a whole number from 4 to 1024"), ("x?size=8&size=8", "size is given twice"),
    ("x?size", "size has no value"), ("x?train=-1", "train is a whole number"), ("x?label=fine", "no option 'label'"),
    ("x?size=" + "9" * 5000, "size is a whole"), ("x?classes=1", "classes is from 2 to 10"),
    ("x?classes=11", "classes is from 2 to 10"), ("x?classes=cat,dgo", "no class 'dgo'; did you mean 'dog'"),
    ("x?classes=cat", "at least two classes")])
def test_wrong_names_and_options_say_what_is_right(ten, spec, message):
    with pytest.raises(real.DataError, match=message):
        real.read(spec.replace("x?", f"cifar10:{ten}?"))


def test_difficulty_is_unknown_and_correlates_with_nothing(ten):
    found = real.read(f"cifar10:{ten}").load("test")
    assert len(found.hard.unique()) == 1 and not found.difficulty
    assert evidence.spearman([float(i) for i in range(len(found))], found.hard.tolist()) is None
    assert not evidence.difficulty_is_known(found.task)
    assert all(map(evidence.difficulty_is_known, data.tasks()))


def test_classes_are_chosen_by_number_or_name_and_numbered_anew(ten):
    some = real.read(f"cifar10:{ten}?classes=dog,cat&test=2")
    assert some.labels == ("dog", "cat")
    part, rows = some.pools["test"]
    original = real.read(f"cifar10:{ten}").pools["test"][0].target
    assert len(rows) == 6
    assert [TEN[i] for i in original[rows]] == [some.labels[i] for i in part.target[rows]]
    assert len(some.load("test")) == 2
    assert real.read(f"cifar10:{ten}?classes=3").labels == TEN[:3]


def test_images_are_tensors_where_rows_are_asked_for(ten):
    found = real.read(f"cifar10:{ten}?gray=1&size=16").load("train", 9)
    x = found.inputs[0]
    whole = x[:]
    assert whole.shape == x.shape == (9, 1, 16, 16) and whole.dtype == torch.float32
    assert torch.equal(x[torch.tensor([4, 0])], whole[[4, 0]])
    assert torch.equal(x[2], whole[2])
    assert torch.equal(x[torch.arange(9) > 6], whole[7:])
    assert torch.equal(found[1:3].inputs[0], whole[1:3])
    assert whole.min() >= 0 and whole.max() <= 1


def recipe(key=KEY):
    return recipes.recipes_of(key)[0]


def test_what_a_net_does_not_take_is_refused_with_the_option_that_mends_it(ten, tmp_path):
    with pytest.raises(real.DataError, match="3x32x32 pixels and 10 classes, the net takes 1x32x32 and 10; add gray=1"):
        real.read(f"cifar10:{ten}").for_recipe(recipe())
    with pytest.raises(real.DataError, match="add gray=1&size=32 to"):
        real.read(f"cifar10:{ten}?size=20").for_recipe(recipe("yin2022avit"))
    hundred = cifar100(tmp_path / "hundred")
    with pytest.raises(real.DataError, match="add classes=10 to"):
        real.read(f"cifar100:{hundred}?gray=1&label=coarse").for_recipe(recipe())
    assert real.read(f"cifar100:{hundred}?gray=1&label=coarse&classes=10").for_recipe(recipe()).side == 32
    for other in ("graves2016adaptive", "campos2018skip", "ghodrati2021frameexit"):
        with pytest.raises(real.DataError, match="holds images with one class each"):
            real.read(f"cifar10:{ten}").for_recipe(recipe(other))


def test_no_batch_holds_a_single_image(ten):
    """129 images in batches of 128 would leave one, which a batch norm cannot train on."""
    made = real.read(f"cifar10:{ten}?gray=1").for_recipe(recipe())
    assert made.batches == (128,)
    assert len(made.load("train", 129)) == 128
    assert len(made.load("test", 129)) == 30
    assert len(made.load("train", 130)) == 130


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(evidence, "folder", lambda: tmp_path / "results")
    monkeypatch.setattr(shipped, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(recipes, "timing_receipts", lambda *_, **__: [])
    return tmp_path


def test_the_command_trains_on_real_images_and_replaces_no_result(elsewhere, ten, capsys):
    spec = f"cifar10:{ten}?gray=1"
    command = ["train", KEY, "--data", spec, "--epochs", "1", "--out", str(elsewhere / "runs")]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert "not known" in out and "all cost the same" not in out
    assert "How hard each of these inputs is, is not known." in out
    assert "train 135, validation 15, test 30 images of 1x32x32, 10 classes" in err
    held = evidence.load_result(elsewhere / "runs" / f"{KEY}.cifar10" / "result.json")
    assert held["task"] == spec and f"--data '{spec}'" in held["command"]
    assert held["static"] is None and held["recipe"]["samples"] == 135
    assert all(run["hard_correlation"] is None for run in held["runs"])
    assert not evidence.is_stale(held)
    assert not (elsewhere / "results").exists() and not (elsewhere / "checkpoints").exists()
    assert cli.main([*command, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == held["runs"]


@pytest.mark.parametrize("spec", ["cifar10:/no/such", "cifar10:TEN", "cifar10:TEN?gray=1&classes=frog,horse&train=1"])
def test_the_command_stops_with_a_sentence(elsewhere, ten, capsys, spec):
    assert cli.main(["train", KEY, "--quick", "--data", spec.replace("TEN", str(ten))]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dynnotes: ") and "Traceback" not in err and err.count("\n") == 1


def test_a_folder_of_papers_is_refused_before_anything_is_trained(elsewhere, ten, capsys, monkeypatch):
    monkeypatch.setattr(recipes, "train", lambda *_, **__: pytest.fail("trained"))
    assert cli.main(["train", "sample/depth", "--quick", "--data", f"cifar10:{ten}?gray=1"]) == 2
    assert "graves2016adaptive: cifar10:" in capsys.readouterr().err
