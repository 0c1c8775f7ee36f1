"""Small datasets in the published formats, for the tests."""
import io
import pickle
import struct
import tarfile

import numpy as np

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and arrays as numpy 1 did: what the published files hold."""
    def save_string(self, word):
        self.write(b"T" + struct.pack("<i", len(word)) + word)
        self.memoize(word)

    dispatch = pickle._Pickler.dispatch | {bytes: save_string}


def python2(content) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar10(folder, binary=False, each=20, write=python2, classes=None):
    """Five batches and a test batch; the class of image i of every batch is i % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for b, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data, labels = images(each, b), [i % 10 for i in range(each)] if classes is None else list(classes)
        if binary:
            rows = np.concatenate([np.array(labels, np.uint8)[:, None], data], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            (folder / name).write_bytes(write({b"batch_label": b"one", b"labels": labels, b"data": data,
                                               b"filenames": [b"%d.png" % i for i in range(each)]}))
    if binary:
        (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    else:
        (folder / "batches.meta").write_bytes(write({b"num_cases_per_batch": 10000, b"num_vis": 3072,
                                                     b"label_names": [name.encode() for name in TEN]}))
    return folder


def cifar100(folder, binary=False, each=20):
    """The fine class of image i is 5 i, the coarse one i % 20."""
    folder.mkdir(parents=True, exist_ok=True)
    fine, coarse = [5 * i for i in range(each)], [i % 20 for i in range(each)]
    for b, name in enumerate(("train", "test")):
        if binary:
            rows = np.concatenate([np.array([coarse, fine], np.uint8).T, images(each, b)], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            (folder / name).write_bytes(python2({b"fine_labels": fine, b"coarse_labels": coarse,
                                                 b"data": images(each, b), b"batch_label": b"one"}))
    names = {"fine": [f"fine {i}" for i in range(100)], "coarse": [f"coarse {i}" for i in range(20)]}
    if binary:
        for kind, words in names.items():
            (folder / f"{kind}_label_names.txt").write_text("\n".join(words) + "\n")
    else:
        (folder / "meta").write_bytes(python2({f"{kind}_label_names".encode(): [w.encode() for w in words]
                                               for kind, words in names.items()}))
    return folder


def packed(folder, archive):
    """The folder as a .tar.gz."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive
