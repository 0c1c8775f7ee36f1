"""CIFAR in both published versions, unpacked and packed; damage and malice get a sentence."""
import pickle

import numpy as np
import pytest
import torch

from dynnotes.data import real
from dynnotes.data.real import cifar

from .files import TEN, cifar10, cifar100, images, packed, python2


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("way", ["folder", "above", "tar.gz", "beside"])
def test_every_version_gives_the_same_images_and_classes(tmp_path, binary, way):
    name, archive = (("cifar-10-batches-bin", "cifar-10-binary.tar.gz") if binary else
                     ("cifar-10-batches-py", "cifar-10-python.tar.gz"))
    folder = cifar10((tmp_path / "made" if way in ("tar.gz", "beside") else tmp_path) / name, binary)
    where = {"folder": folder, "above": tmp_path}.get(way) or packed(folder, tmp_path / archive)
    data = real.read(f"cifar10:{tmp_path if way == 'beside' else where}")
    part = data.pools["test"][0]
    assert data.labels == TEN
    assert part.target.tolist() == [i % 10 for i in range(20)]
    assert np.array_equal(np.asarray(part.picture(3)), images(20, 5)[3].reshape(3, 32, 32).transpose(1, 2, 0))
    assert len(data.pools["train"][1]) == 90 and len(data.pools["validation"][1]) == 10
    assert "hold 100 images, those published 50,000" in data.about()


def test_a_pixel_is_where_the_format_says(tmp_path):
    """Byte 1024 + 32 * 2 + 7 is green, row 2, column 7."""
    folder = cifar10(tmp_path, binary=True, each=1)
    row = np.zeros(3073, np.uint8)
    row[0], row[1 + 1024 + 32 * 2 + 7] = 9, 255
    (folder / "test_batch.bin").write_bytes(row.tobytes())
    test = real.read(f"cifar10:{folder}").load("test")
    x = test.inputs[0][:1]
    assert x.shape == (1, 3, 32, 32)
    assert x.nonzero().tolist() == [[0, 1, 2, 7]] and x.max() == 1
    assert test.labels[test.target[0]] == "truck"


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100_has_fine_and_coarse_classes(tmp_path, binary):
    folder = packed(cifar100(tmp_path / "x", binary), tmp_path / "any.tar.gz")
    fine, coarse = real.read(f"cifar100:{folder}"), real.read(f"cifar100:{folder}?label=coarse")
    assert fine.pools["train"][0].target.tolist() == [5 * i for i in range(20)]
    assert coarse.pools["train"][0].target.tolist() == list(range(20))
    assert (len(fine.labels), fine.labels[7]) == (100, "fine 7")
    assert (len(coarse.labels), coarse.labels[7]) == (20, "coarse 7")
    with pytest.raises(real.DataError, match="label is fine"):
        real.read(f"cifar100:{folder}?label=rough")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_batches_that_python_3_pickled_are_read_too(tmp_path, protocol):
    folder = cifar10(tmp_path, write=lambda content: pickle.dumps(content, protocol))
    assert real.read(f"cifar10:{folder}").pools["test"][0].target.tolist() == [i % 10 for i in range(20)]


class Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [
    (eval, ("open('touched', 'w')",)), (__import__("os").system, ("touch touched",)), (getattr, (int, "real")),
    (np.array, ([1],)), (bytearray, (b"x",)), (__import__("codecs").decode, (b"cHJpbnQ=", "base64"))])
def test_a_pickle_runs_no_code(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    folder = cifar10(tmp_path / "x")
    hostile = {b"data": Evil(call), b"labels": [0]}
    (folder / "data_batch_2").write_bytes(pickle.dumps(hostile, 2))
    with pytest.raises(real.DataError, match=r"data_batch_2 is damaged or not of cifar10 \(asks for"):
        real.read("cifar10:x")
    assert not (tmp_path / "touched").exists()


def test_arrays_of_anything_but_bytes_are_refused():
    for array in (np.zeros((2, 3072), np.float32), np.array([[{}]], object)):
        with pytest.raises(ValueError, match="not of bytes"):
            cifar.unpickled(python2({b"data": array}))
    by_columns = np.asfortranarray(images(3))
    assert np.array_equal(cifar.unpickled(python2({b"data": by_columns}))["data"], images(3))


def broken(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.mark.parametrize(("binary", "damage", "message"), [
    (False, lambda folder: (folder / "data_batch_3").unlink(), "data_batch_3: cannot be read .No such file"),
    (False, lambda folder: (folder / "batches.meta").unlink(), "batches.meta: cannot be read"),
    (False, broken("data_batch_1", lambda b: b[:1000]), "data_batch_1 is damaged"),
    (False, broken("test_batch", lambda b: b"<html>"), "test_batch is damaged"),
    (False, broken("test_batch", lambda b: python2([1])), "holds a list instead of a dictionary"),
    (False, broken("test_batch", lambda b: python2({b"data": images(2), b"labels": [0]})), "1 labels for 2 images"),
    (False, broken("test_batch", lambda b: python2({b"data": images(1), b"labels": [10]})), "a class is 10"),
    (False, broken("test_batch", lambda b: python2({b"data": images(1), b"labels": [-1]})), "a class is -1"),
    (False, broken("test_batch", lambda b: python2({b"data": images(1), b"labels": ["x"]})), "list of whole numbers"),
    (False, broken("test_batch", lambda b: python2({b"data": images(2)[:, :5], b"labels": [1, 1]})), "3,072 bytes"),
    (False, broken("test_batch", lambda b: python2({b"data": images(2), b"fine_labels": [1, 1]})), "has no labels"),
    (False, broken("batches.meta", lambda b: python2({b"label_names": [b"x"]})), "name 10 classes, not 1"),
    (True, broken("data_batch_5.bin", lambda b: b[:-1]), "61,459 bytes are not whole records of 3,073"),
    (True, broken("data_batch_5.bin", lambda b: b""), "0 bytes"),
    (True, broken("test_batch.bin", lambda b: b"\x0a" + b[1:]), "a class is 10, they go from 0 to 9"),
])
def test_damage_names_the_file_and_where_to_get_it(tmp_path, binary, damage, message):
    folder = cifar10(tmp_path, binary)
    damage(folder)
    with pytest.raises(real.DataError, match=message) as stopped:
        real.read(f"cifar10:{folder}")
    assert str(folder) in str(stopped.value)
    assert "cifar-10-python.tar.gz" in str(stopped.value)


def test_archives_that_are_none(tmp_path):
    archive = packed(cifar10(tmp_path / "x"), tmp_path / "cifar.tar.gz")
    whole = archive.read_bytes()
    for content, message in ((whole[:len(whole) // 2], "damaged or no tar"), (b"hello", "damaged or no tar")):
        archive.write_bytes(content)
        with pytest.raises(real.DataError, match=message):
            real.read(f"cifar10:{archive}")
    (tmp_path / "x" / "test_batch").unlink()
    with pytest.raises(real.DataError, match="has no test_batch"):
        real.read(f"cifar10:{packed(tmp_path / 'x', archive)}")
    with pytest.raises(real.DataError, match="it is not cifar100"):
        real.read(f"cifar100:{archive}")
    with pytest.raises(real.DataError, match=r"is not there.*nothing is downloaded"):
        real.read("cifar10:/no/such/place")
    (tmp_path / "empty").mkdir()
    with pytest.raises(real.DataError, match=r"holds neither data_batch_1 nor data_batch_1\.bin"):
        real.read(f"cifar10:{tmp_path / 'empty'}")


def test_what_is_too_large_is_not_read(tmp_path, monkeypatch):
    folder = cifar10(tmp_path / "x")
    archive = packed(folder, tmp_path / "cifar.tar.gz")
    monkeypatch.setattr(cifar, "LARGEST", 1000)
    for where in (folder, archive):
        with pytest.raises(real.DataError, match="larger than any file of the dataset"):
            real.read(f"cifar10:{where}")


def test_gray_is_the_weighted_sum(tmp_path):
    data = images(20, 5).reshape(20, 3, 32, 32).astype(float)
    wanted = (0.299 * data[:, 0] + 0.587 * data[:, 1] + 0.114 * data[:, 2]) / 255
    x = real.read(f"cifar10:{cifar10(tmp_path)}?gray=1")
    rows = x.pools["test"][1]
    assert torch.allclose(x.load("test").inputs[0][:][:, 0].double(), torch.from_numpy(wanted)[rows], atol=1.01 / 255)
