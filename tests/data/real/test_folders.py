"""Folders of images in many modes, with names and damage as they occur."""
import numpy as np
import pytest
import torch
from PIL import Image

from dynnotes.data import real


def flat(size, colour, mode="RGB"):
    return Image.new("RGB", size, colour).convert(mode)


@pytest.fixture
def imagenet(tmp_path):
    """Two classes, 12 training images each in several modes and sizes, 3 for validation."""
    for split, count in (("train", 12), ("val", 3)):
        for name, colour in (("n02", (0, 0, 250)), ("n01", (250, 0, 0))):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                mode, ending = (("RGB", "JPEG"), ("L", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("P", "png"))[i % 5]
                flat((40 + i, 30), colour, mode).save(folder / f"{i}.{ending}")
    return tmp_path


def test_classes_are_sorted_folders_and_every_mode_becomes_rgb(imagenet):
    data = real.read(f"imagenet:{imagenet}?size=16")
    assert data.labels == ("n01", "n02")
    assert "the validation split is tested on" in data.about()
    sizes = {split: len(data.load(split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 22, "validation": 2, "test": 6}
    test = data.load("test")
    x = test.inputs[0][:]
    assert x.shape == (6, 3, 16, 16)
    red, blue = x[:, 0].mean((1, 2)), x[:, 2].mean((1, 2))
    coloured = (red - blue).abs() > 0.5                                      # those saved in gray are neither
    assert int(coloured.sum()) == 4
    assert torch.equal((blue > red)[coloured], (test.target == 1)[coloured])


def test_splits_share_no_image_and_are_the_same_every_time(imagenet):
    one, two = (real.read(f"imagenet:{imagenet}?size=8") for _ in range(2))
    rows = [{one.pools[s][0].where(int(i)) for i in one.pools[s][1]} for s in ("train", "validation", "test")]
    assert sum(map(len, rows)) == len(set().union(*rows)) == 30
    assert torch.equal(one.pools["train"][1], two.pools["train"][1])
    small = real.read(f"imagenet:{imagenet}?size=8&train=5")
    assert torch.equal(small.load("train").target, one.load("train").target[:5])


def test_a_folder_without_train_is_cut(imagenet):
    data = real.read(f"imagenet:{imagenet / 'train'}?size=8")
    assert [len(data.load(s)) for s in ("train", "validation", "test")] == [20, 2, 2]
    assert "cut 8 : 1 : 1" in data.about()


def test_a_heap_of_test_images_is_left_out(imagenet):
    (imagenet / "test").mkdir()
    flat((8, 8), "red").save(imagenet / "test" / "a.png")
    data = real.read(f"imagenet:{imagenet}?size=8")
    assert len(data.load("test")) == 6
    assert "test has no class folders, and is left out" in data.about()


@pytest.mark.parametrize(("file", "text", "labels"), [
    ("LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 goldfish\nn03 shark\n", ("tench", "goldfish")),
    ("LOC_synset_mapping.txt", "n01 crane\nn02 crane\n", ("crane (n01)", "crane (n02)")),
    ("classes.txt", "n02 goldfish\nn01 great white shark\n", ("great white shark", "goldfish")),
    ("classes.txt", "\ufefftench\ngold fish\n", ("tench", "gold fish"))])
def test_classes_have_the_names_that_a_file_gives(imagenet, file, text, labels):
    (imagenet / file).write_text(text, encoding="utf-8")
    assert real.read(f"imagenet:{imagenet}?size=8").labels == labels
    if file.startswith("LOC"):
        (imagenet / "ILSVRC").mkdir()
        (imagenet / "train").rename(imagenet / "ILSVRC" / "train")
        assert real.read(f"imagenet:{imagenet / 'ILSVRC'}?size=8").labels == labels


def one_image(tmp_path, image, name="a.png", **how):
    for c in "ab":
        (tmp_path / c).mkdir(exist_ok=True)
        for i in range(10):
            image.save(tmp_path / c / f"{i}{name}", **how)
    return real.read(f"imagenet:{tmp_path}?size=4&gray=1").load("test").inputs[0][0][0]


def test_the_camera_is_turned_upright(tmp_path):
    """Orientation 6: the stored left side is the top."""
    array = np.zeros((64, 64), np.uint8)
    array[:, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    x = one_image(tmp_path, Image.fromarray(array), "a.jpg", exif=exif, quality=95)
    assert x[0].mean() > 0.9
    assert x[-1].mean() < 0.1


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    x = one_image(tmp_path, Image.fromarray(np.full((8, 8), 0x8000, np.uint16)))
    assert torch.allclose(x, torch.tensor(0x80 / 255))


def test_the_longer_side_is_cropped_on_both_ends(tmp_path):
    array = np.zeros((8, 24), np.uint8)
    array[:, 8:16] = 255
    assert (one_image(tmp_path, Image.fromarray(array)) > 0.9).all()


def test_a_damaged_image_is_named_when_its_turn_comes(imagenet):
    victim = imagenet / "val" / "n01" / "0.JPEG"
    for content in (victim.read_bytes()[:-40], b"no image", b""):
        victim.write_bytes(content)
        data = real.read(f"imagenet:{imagenet}?size=16").load("test")
        with pytest.raises(real.DataError, match=r"n01/0\.JPEG: is damaged or no image.*replace the file"):
            data.inputs[0][:]
    Image.fromarray(np.zeros((4, 4), np.float32)).save(imagenet / "val" / "n01" / "0.tiff")
    victim.unlink()
    with pytest.raises(real.DataError, match=r"0\.tiff: .*floats, of unknown range"):
        real.read(f"imagenet:{imagenet}?size=16").load("test").inputs[0][:]


def test_layouts_that_cannot_be_meant(imagenet, tmp_path):
    with pytest.raises(real.DataError, match=r"is no folder; put the images of each class"):
        real.read(f"imagenet:{tmp_path / 'nothing'}")
    (imagenet / "val" / "n09").mkdir()
    with pytest.raises(real.DataError, match=r"n09: there is no such class in .*train"):
        real.read(f"imagenet:{imagenet}")
    (imagenet / "val" / "n09").rmdir()
    (imagenet / "train" / "n03").mkdir()
    (imagenet / "train" / "n03" / "Thumbs.db").write_bytes(b"")
    with pytest.raises(real.DataError, match=r"n03: has no image"):
        real.read(f"imagenet:{imagenet}")
    (imagenet / "classes.txt").write_text("n01 a\nn02 b\nn07 c\n")
    flat((4, 4), "red").save(imagenet / "train" / "n03" / "a.png")
    with pytest.raises(real.DataError, match=r"classes\.txt: has no line for the class folder n03"):
        real.read(f"imagenet:{imagenet}")
    (imagenet / "classes.txt").write_text("a\nb\nb\n")
    with pytest.raises(real.DataError, match=r"classes\.txt: has 3 lines for 3 class folders; write one name for each"):
        real.read(f"imagenet:{imagenet}")
    (imagenet / "train").rename(imagenet / "elsewhere")
    with pytest.raises(real.DataError, match="has no train folder"):
        real.read(f"imagenet:{imagenet}")
    with pytest.raises(real.DataError, match="has 0 class folders, at least 2"):
        real.read(f"imagenet:{imagenet / 'elsewhere' / 'n01'}")


def test_an_escape_sequence_in_a_name_does_not_reach_the_terminal(imagenet):
    (imagenet / "val" / "\x1b[31mred").mkdir()
    with pytest.raises(real.DataError) as stopped:
        real.read(f"imagenet:{imagenet}")
    assert "\x1b" not in str(stopped.value)


def test_only_so_many_images_stay_decoded(imagenet, monkeypatch):
    monkeypatch.setattr(real, "MEMORY", 10 * 3 * 16 * 16)
    dataset = real.read(f"imagenet:{imagenet}?size=16")
    assert "train 22 (10 stay decoded)" in dataset.about()
    data, read = dataset.load("train"), []
    part = data.inputs[0].part
    data.inputs[0].part = real.Part(part.target, lambda i: read.append(i) or part.picture(i), part.where, part.remedy)
    order = torch.randperm(22)
    first = torch.cat([x for (x,), _ in data.batches(8, order)])
    assert len(read) == 22
    again = torch.cat([x for (x,), _ in data.to("cpu").batches(8, order)])
    assert len(read) == 22 + 12
    assert torch.equal(first, again)
    assert data.inputs[0].kept.numel() == 10 * 3 * 16 * 16
