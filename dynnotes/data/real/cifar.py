"""CIFAR-10 and CIFAR-100 as they are published: `cifar10:PATH`, `cifar100:PATH?label=coarse`.

PATH is the unpacked folder, the folder above it, or the .tar.gz, of the Python version or of the binary version:

    CIFAR-10, Python     data_batch_1 to data_batch_5, test_batch, batches.meta: pickles of `data` [N, 3072], `labels`
    CIFAR-10, binary     the same with .bin: records of 1 + 3072 bytes, class and pixels; names in batches.meta.txt
    CIFAR-100, Python    train, test, meta: pickles of `data`, `fine_labels` (100 classes), `coarse_labels` (20)
    CIFAR-100, binary    train.bin, test.bin: records of 2 + 3072 bytes, coarse, fine, pixels; *_label_names.txt

An image is 1024 bytes of red, 1024 of green and 1024 of blue, row by row. label=coarse asks for the 20 classes.
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), and its page of the datasets.

A pickle can run any code. These are read by an unpickler that knows dictionaries, lists, numbers, text and arrays of
bytes, and refuses everything else.
"""
from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch

from . import DataError, Found, Part

OPTIONS = {"cifar100": ("label",)}
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
LARGEST = 256 * 2**20                                                        # the largest published file has 155 MB
PIXELS = 3 * 32 * 32


class Version(NamedTuple):
    """The files of one published version."""
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, *self.names)


BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
VERSIONS = {
    "cifar10": (Version("cifar-10-batches-py", "cifar-10-python.tar.gz", BATCHES, "test_batch", ("batches.meta",)),
                Version("cifar-10-batches-bin", "cifar-10-binary.tar.gz", tuple(f"{b}.bin" for b in BATCHES),
                        "test_batch.bin", ("batches.meta.txt",))),
    "cifar100": (Version("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", ("meta",)),
                 Version("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin",
                         ("fine_label_names.txt", "coarse_label_names.txt"))),
}
PUBLISHED = {"train": 50000, "test": 10000}


def read(kind: str, where: str, options: Mapping[str, str]) -> Found:
    """All images of the training and the test files."""
    label = options.get("label", "fine")
    if label not in ("fine", "coarse"):
        raise DataError(f"label is fine (100 classes) or coarse (20), not {label!r}")
    fetch = f"get {VERSIONS[kind][0].archive} or {VERSIONS[kind][1].archive} from {PAGE}"
    place, version, files = _files(kind, Path(where).expanduser(), fetch)
    classes = 10 if kind == "cifar10" else 100 if label == "fine" else 20
    binary = version.test.endswith(".bin")
    try:
        labels = _names(kind, label, version, files)
    except Exception as fault:  # noqa: BLE001  a damaged pickle raises anything
        raise DataError(f"{place}: {version.names[0]} is damaged ({fault}); {fetch}") from None
    if len(labels) != classes:
        raise DataError(f"{place}: {' and '.join(version.names)} should name {classes} classes, not {len(labels)}; "
                        f"{fetch}")
    parts, notes = {}, []
    for split, names in (("train", version.train), ("test", (version.test,))):
        target, data = [], []
        for name in names:
            try:
                t, d = (_records if binary else _batch)(kind, label, files[name])
                if len(t) and not 0 <= min(t) <= max(t) < classes:
                    raise ValueError(f"a class is {min(t) if min(t) < 0 else max(t)}, they go from 0 to {classes - 1}")
            except Exception as fault:  # noqa: BLE001  a damaged pickle raises anything
                raise DataError(f"{place}: {name} is damaged or not of {kind} ({fault}); {fetch}") from None
            target.append(torch.tensor(t, dtype=torch.long))
            data.append(d)
        parts[split] = _part(torch.cat(target), np.concatenate(data), place, ", ".join(names), fetch)
        if (count := len(parts[split].target)) != PUBLISHED[split]:
            notes.append(f"{split} files hold {count:,} images, those published {PUBLISHED[split]:,}")
    return Found(parts, labels, 32, tuple(notes))


def _part(target, data, place, names, fetch) -> Part:
    def picture(i):
        from PIL import Image
        return Image.fromarray(np.ascontiguousarray(data[i].reshape(3, 32, 32).transpose(1, 2, 0)))
    return Part(target, picture, lambda i: f"{place}: image {i} of {names}", fetch)


# Where the files are --------------------------------------------------------------------------------------------------

def _files(kind: str, path: Path, fetch: str) -> tuple[Path, Version, dict[str, bytes]]:
    """The place, the version that is there, and its files."""
    if path.is_dir():
        places = [(path / folder, version) for version in VERSIONS[kind] for folder in ("", version.folder)]
        for place, version in places:
            if any((place / name).is_file() for name in (*version.train, version.test)):
                return place, version, _of_folder(place, version, fetch)
        for version in VERSIONS[kind]:
            if (path / version.archive).is_file():
                return _of_archive(kind, path / version.archive, fetch)
    elif path.exists():
        return _of_archive(kind, path, fetch)
    else:
        raise DataError(f"{path}: is not there; give the folder or archive of {kind}: {fetch}; nothing is downloaded")
    raise DataError(f"{path}: holds neither {VERSIONS[kind][0].train[0]} nor {VERSIONS[kind][1].train[0]}, so no "
                    f"{kind}; {fetch}; nothing is downloaded")


def _of_folder(place: Path, version: Version, fetch: str) -> dict[str, bytes]:
    files = {}
    for name in version.files:
        file = place / name
        try:
            if file.stat().st_size > LARGEST:
                raise DataError(f"{file}: is larger than any file of the dataset; {fetch}")
            files[name] = file.read_bytes()
        except OSError as fault:
            raise DataError(f"{file}: cannot be read ({fault.strerror}); {fetch}") from None
    return files


def _of_archive(kind: str, path: Path, fetch: str) -> tuple[Path, Version, dict[str, bytes]]:
    """The files of a tar, by their names, in one pass: nothing is unpacked to the disk."""
    wanted = {name for version in VERSIONS[kind] for name in version.files}
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in wanted:
                    if member.size > LARGEST:
                        raise DataError(f"{path}: {name} is larger than any file of the dataset; {fetch}")
                    files[name] = tar.extractfile(member).read()
    except DataError:
        raise
    except Exception as fault:  # noqa: BLE001  a damaged archive raises what tar, gzip or zlib raise
        raise DataError(f"{path}: is damaged or no tar archive ({fault}); {fetch}") from None
    for version in VERSIONS[kind]:
        if any(name in files for name in (*version.train, version.test)):
            if missing := [name for name in version.files if name not in files]:
                raise DataError(f"{path}: has no {missing[0]}; {fetch}")
            return path, version, files
    raise DataError(f"{path}: holds no {VERSIONS[kind][0].train[0]}, so it is not {kind}; {fetch}")


# What the files hold --------------------------------------------------------------------------------------------------

def _names(kind: str, label: str, version: Version, files: Mapping[str, bytes]) -> tuple[str, ...]:
    if version.test.endswith(".bin"):
        file = version.names[0] if kind == "cifar10" or label == "fine" else version.names[1]
        return tuple(line.strip() for line in files[file].decode("utf-8").splitlines() if line.strip())
    names = unpickled(files[version.names[0]])["label_names" if kind == "cifar10" else f"{label}_label_names"]
    return tuple(_text(name) for name in names)


def _records(kind: str, label: str, content: bytes) -> tuple[list[int], np.ndarray]:
    """Classes and pixels of a binary file."""
    head = 1 if kind == "cifar10" else 2
    if not content or len(content) % (head + PIXELS):
        raise ValueError(f"{len(content):,} bytes are not whole records of {head + PIXELS:,}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, head + PIXELS)
    return rows[:, 0 if kind == "cifar10" or label == "coarse" else 1].tolist(), rows[:, head:]


def _batch(kind: str, label: str, content: bytes) -> tuple[list[int], np.ndarray]:
    """Classes and pixels of a pickled file."""
    held = unpickled(content)
    name = "labels" if kind == "cifar10" else f"{label}_labels"
    if missing := [key for key in ("data", name) if key not in held]:
        raise ValueError(f"has no {missing[0]}")
    data, target = held["data"], held[name]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS:
        raise ValueError(f"data should be an array of rows of {PIXELS:,} bytes")
    if not isinstance(target, list) or not all(type(t) is int for t in target):
        raise ValueError(f"{name} should be a list of whole numbers")
    if len(target) != len(data) or not target:
        raise ValueError(f"{len(target):,} {name} for {len(data):,} images")
    return target, data


def unpickled(content: bytes) -> dict:
    """The dictionary in a pickle, its keys as text. Raises whatever a damaged or hostile one makes it raise."""
    held = _Plain(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(held, dict):
        raise ValueError(f"holds a {type(held).__name__} instead of a dictionary")
    return {_text(key): value.value if isinstance(value, _Array) else value for key, value in held.items()}


def _text(word) -> str:
    return word.decode("utf-8") if isinstance(word, bytes) else str(word)


class _Type:
    """Stands for numpy.dtype while a pickle is read."""
    def __init__(self, code, *_):
        self.code = _text(code)

    def __setstate__(self, state):
        pass                                                                 # the byte order, which bytes do not have


class _Array:
    """Stands for numpy.ndarray while a pickle is read; `value` is an array of bytes."""
    value = None

    def __setstate__(self, state):
        _, shape, kind, by_columns, raw = state
        if not isinstance(kind, _Type) or kind.code not in ("u1", "uint8") or not isinstance(raw, bytes):
            raise ValueError("an array is not of bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _array(*_):
    return _Array()


def _latin1(text, *_):
    return text.encode("latin1")                                             # how Python 3 writes bytes for Python 2


_KNOWN = {("numpy.core.multiarray", "_reconstruct"): _array, ("numpy._core.multiarray", "_reconstruct"): _array,
          ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type, ("_codecs", "encode"): _latin1}


class _Plain(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which this dataset does not hold")
        return _KNOWN[module, name]
