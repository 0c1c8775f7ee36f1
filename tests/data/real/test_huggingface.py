"""Datasets made with the library `datasets` itself and saved to a folder."""
import numpy as np
import pytest
import torch
from PIL import Image

from dynnotes.data import real

datasets = pytest.importorskip("datasets")


def rows(count, labels, image="img", label="label", **columns):
    """Image i has all its pixels at 10 * i."""
    return {image: [Image.fromarray(np.full((8, 8), 10 * i, np.uint8)) for i in range(count)],
            label: [labels[i % len(labels)] for i in range(count)],
            **{name: list(value)[:count] for name, value in columns.items()}}


def made(content, classes=("cat", "dog"), image="img", label="label"):
    features = {image: datasets.Image(), label: datasets.ClassLabel(names=list(classes)) if classes else None}
    found = datasets.Dataset.from_dict(content)
    for name, feature in features.items():
        found = found if feature is None else found.cast_column(name, feature)
    return found


def saved(tmp_path, held):
    held = datasets.DatasetDict(held) if isinstance(held, dict) else held
    held.save_to_disk(tmp_path / "saved")
    return f"hf:{tmp_path / 'saved'}"


def test_splits_columns_and_names_are_the_datasets_own(tmp_path):
    spec = saved(tmp_path, {"train": made(rows(20, (0, 1))), "valid": made(rows(5, (0, 1))),
                            "test": made(rows(6, (1, 0)))})
    data = real.read(f"{spec}?size=8&gray=1")
    assert data.labels == ("cat", "dog")
    assert [len(data.load(s)) for s in ("train", "validation", "test")] == [20, 5, 6]
    test = data.load("test")
    value = (255 * test.inputs[0][:].mean((1, 2, 3))).round().long() // 10
    assert sorted(value.tolist()) == list(range(6))
    assert torch.equal(test.target, (value + 1) % 2)


def test_one_split_is_cut_and_split_chooses_one(tmp_path):
    spec = saved(tmp_path, {"train": made(rows(20, (0, 1))), "test": made(rows(10, (0, 1)))})
    assert [len(real.read(f"{spec}?size=8&split=test").load(s)) for s in real.SPLITS] == [8, 1, 1]
    with pytest.raises(real.DataError, match="no split 'tset'; it has train, test"):
        real.read(f"{spec}?split=tset")


def test_a_saved_dataset_without_splits_and_unlabelled_images(tmp_path):
    spec = saved(tmp_path, made(rows(20, (0, 1, -1, -1))))
    data = real.read(f"{spec}?size=8")
    assert [len(data.load(s)) for s in real.SPLITS] == [8, 1, 1]
    assert all(int(data.load(s).target.min()) >= 0 for s in real.SPLITS)


def test_an_unlabelled_test_split_is_none(tmp_path):
    spec = saved(tmp_path, {"train": made(rows(20, (0, 1))), "validation": made(rows(4, (0, 1))),
                            "test": made(rows(6, (-1,)))})
    data = real.read(f"{spec}?size=8")
    assert [len(data.load(s)) for s in real.SPLITS] == [18, 2, 4]
    assert "the validation split is tested on" in data.about()


@pytest.mark.parametrize(("labels", "names"), [((30, 4), ("4", "30")), (("b", "a"), ("a", "b"))])
def test_values_without_names_are_the_classes(tmp_path, labels, names):
    spec = saved(tmp_path, made(rows(20, labels), classes=None))
    data = real.read(f"{spec}?size=8")
    assert data.labels == names
    where = data.pools["train"][0]
    assert names[where.target[0]] == str(labels[0])


def test_columns_that_are_not_clear_are_asked_for(tmp_path):
    content = rows(20, (0, 1), label="fine") | {"coarse": [0] * 10 + [1] * 10, "depth": [0.5] * 20}
    both = made(content, label="fine").cast_column("coarse", datasets.ClassLabel(names=["x", "y"]))
    spec = saved(tmp_path, both)
    with pytest.raises(real.DataError, match="several columns could be the label; name one of fine, coarse with"):
        real.read(spec)
    assert real.read(f"{spec}?label=coarse").labels == ("x", "y")
    with pytest.raises(real.DataError, match="no column 'colour'; it has img, fine, coarse, depth"):
        real.read(f"{spec}?label=colour")
    with pytest.raises(real.DataError, match="column depth holds neither whole numbers nor words"):
        real.read(f"{spec}?label=depth")
    with pytest.raises(real.DataError, match="column fine holds no images"):
        real.read(f"{spec}?label=fine&image=fine")


def test_a_damaged_image_is_named(tmp_path):
    content = rows(10, (0, 1))
    content["img"] = [{"bytes": b"no image", "path": None}] * 10
    spec = saved(tmp_path, made(content))
    with pytest.raises(real.DataError, match=r"saved, train: image \d: is damaged or no image"):
        real.read(f"{spec}?size=8").load("train").inputs[0][0]


def test_what_the_library_cannot_find_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: (_ for _ in ()).throw(ConnectionError("no way\nout")))
    with pytest.raises(real.DataError, match=r"who/what: cannot be read \(ConnectionError: no way\); check the name"):
        real.read("hf:who/what")
    spec = saved(tmp_path, made(rows(4, (0, 1))))
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"")
    with pytest.raises(real.DataError, match="write it again with save_to_disk"):
        real.read(spec)


def test_a_name_is_handed_to_the_library_with_its_configuration(monkeypatch):
    asked = []
    held = datasets.DatasetDict({"train": made(rows(20, (0, 1)))})
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or held)
    assert real.read("hf:who/what?config=small&size=8").slug == "hf-what"
    assert asked == [("who/what", "small")]


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(real.DataError, match=r'pip install "dynnotes\[data\]"'):
        real.read("hf:mnist")
