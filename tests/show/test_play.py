"""`dynnotes run`: the trained models that ship, played on test inputs and on pictures, good and bad."""
import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

import dynnotes
from dynnotes import data
from dynnotes.registry import sources
from dynnotes.show import play, traces


def run(capsys, key="veit2018convolutional", **options):
    code = play.run_command(Namespace(key=key, **options))
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize("key", sources())
def test_every_trained_model_plays_and_its_receipt_adds_up(key, capsys):
    code, out, _ = run(capsys, key, json=True)
    facts = json.loads(out)
    assert code == 0 and facts["executed"] == facts["needed"] == sum(i["spent"] for i in facts["inputs"])
    code, out, _ = run(capsys, key, json=True, execute="dense")
    dense = json.loads(out)
    assert dense["executed"] == dense["full"] > facts["executed"]
    assert [i["predicted"] for i in dense["inputs"]] == [i["predicted"] for i in facts["inputs"]]


@pytest.mark.parametrize("key", sources())
def test_the_shipped_weights_know_their_task(key):
    """Ten classes: a checkpoint that was not trained answers a tenth of them."""
    samples = data.load(dynnotes.load_model(key).recipe().task, "test", 300)
    played = play.play(dynnotes.load_model(key), samples.inputs)
    assert (played.answers == samples.target).float().mean() > 0.5


def test_the_text_shows_prediction_and_receipt(capsys):
    code, out, _ = run(capsys, input=3, budget=0.5)
    assert code == 0 and "threshold = 0.5" in out and "needed" in out and "to the last one" in out and "■" in out


def test_a_budget_outside_its_range_is_refused(capsys):
    code, _, err = run(capsys, budget=7.0)
    assert code == 2 and "between 0 and 1" in err


def test_an_input_that_is_not_there_is_refused(capsys):
    code, _, err = run(capsys, input=10_000)
    assert code == 2 and "0 to 399" in err


def test_pictures_of_any_size_and_polarity(tmp_path, capsys):
    digit = data.load("canvas-digits", "test", 400)
    easy = digit.inputs[0][digit.hard.argmin(), 0]
    grey = (255 * easy.clamp(0, 1)).byte().numpy()
    Image.fromarray(grey).resize((200, 200)).save(tmp_path / "white.png")
    Image.fromarray(255 - grey).convert("RGB").save(tmp_path / "black.jpg", quality=95)
    np.save(tmp_path / "array.npy", grey)
    files = [str(tmp_path / name) for name in ("white.png", "black.jpg", "array.npy")]
    code, out, _ = run(capsys, images=files, json=True)
    answers = {i["predicted"] for i in json.loads(out)["inputs"]}
    assert code == 0 and answers == {digit.labels[digit.target[digit.hard.argmin()]]}


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_picture_is_named(tmp_path, capsys, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    code, out, err = run(capsys, images=[str(path)])
    assert code == 2 and str(path) in err and not out and "Traceback" not in err


@pytest.mark.parametrize("array", [np.zeros((0, 4)), np.full((4, 4), np.nan), np.zeros(5), np.zeros((2, 2, 2, 2))])
def test_a_broken_array_is_named(tmp_path, capsys, array):
    np.save(tmp_path / "broken.npy", array)
    code, _, err = run(capsys, images=[str(tmp_path / "broken.npy")])
    assert code == 2 and "broken.npy" in err


def test_a_recording_is_a_valid_trace_file_of_every_budget(tmp_path, capsys):
    code, _, _ = run(capsys, "teerapittayanon2016branchynet", trace=str(tmp_path / "t.json"))
    trace = traces.load(tmp_path / "t.json")
    assert code == 0 and [b["value"] for b in trace["budgets"]] == list(
        dynnotes.load_model("teerapittayanon2016branchynet").budget.values)


def test_spread_goes_from_the_easiest_to_the_hardest():
    samples = data.load("canvas-digits", "test", 100)
    chosen = play.spread(samples, 5).hard
    assert chosen[0] == samples.hard.min() and chosen[-1] == samples.hard.max()
    assert torch.equal(chosen, chosen.sort().values) and len(play.spread(samples[:3], 5)) == 3
