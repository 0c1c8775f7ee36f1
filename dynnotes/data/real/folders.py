"""ImageNet, or any images in one folder for each class: `imagenet:PATH`.

    PATH/train/CLASS/*.JPEG    PATH/val/CLASS/*.JPEG    and PATH/test/CLASS/*.JPEG, if there
    PATH/CLASS/*.JPEG          without train/: one split, which is cut

Classes are the class folders of train/ in the order of their names. `valid` and `validation` are other names of val.
LOC_synset_mapping.txt (in PATH or up to three folders above, where the files of the Kaggle challenge have it) or
PATH/classes.txt gives classes better names: a line is `n01440764 tench, Tinca tinca`, the folder and what it means, of
which the first name counts; or classes.txt holds one name per class, in the order of the folders.

Files are listed at once and decoded by Pillow when a batch asks for them; their names are all that is held of images
that are not used.
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from . import DataError, Found, Part

OPTIONS: dict[str, tuple[str, ...]] = {}
ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff")
SPLITS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
REMEDY = "replace the file, or remove it and train again without --resume"
LAYOUT = "put the images of each class into a folder of its own, train/CLASS/*.JPEG and val/CLASS/*.JPEG"


def read(kind: str, where: str, options: Mapping[str, str]) -> Found:
    """All image files below PATH, by split and class."""
    path = Path(where).expanduser()
    if not path.is_dir():
        raise DataError(f"{path}: is no folder; {LAYOUT}. ImageNet (ILSVRC 2012) is given out by image-net.org after "
                        "registration; nothing is downloaded")
    found = {split: next((path / name for name in names if (path / name).is_dir()), None)
             for split, names in SPLITS.items()}
    if found["train"] is None:
        if any(found.values()):
            raise DataError(f"{path}: has no train folder; {LAYOUT}")
        found = {"train": path}
    folders = {split: _folders(folder) for split, folder in found.items() if folder is not None}
    classes = folders["train"]
    if len(classes) < 2:
        raise DataError(f"{found['train']}: has {len(classes)} class folders, at least 2 are needed; {LAYOUT}")
    notes, parts = [], {}
    for split, names in folders.items():
        if split == "test" and not names:                                    # ImageNet's own: a heap without classes
            notes.append(f"{found[split]} has no class folders, and is left out")
            continue
        if not names:
            raise DataError(f"{found[split]}: has no class folders; {LAYOUT}")
        if unknown := sorted(set(names) - set(classes)):
            raise DataError(f"{found[split] / unknown[0]}: there is no such class in {found['train']}; rename it as "
                            "there, or remove it")
        parts[split] = _part(found[split], names, classes)
    for split in {"train"} & set(parts):
        if empty := set(range(len(classes))) - set(parts[split].target.tolist()):
            raise DataError(f"{found[split] / classes[min(empty)]}: has no image; known endings: {', '.join(ENDINGS)}. "
                            "Add images, or remove the folder")
    return Found(parts, _names(path, classes), None, tuple(notes))


def _folders(folder: Path) -> list[str]:
    """Names of the class folders."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__")))
    except OSError as fault:
        raise DataError(f"{folder}: cannot be read ({fault.strerror}); allow reading it") from None


def _part(folder: Path, names: list[str], classes: list[str]) -> Part:
    def stop(fault):
        raise DataError(f"{fault.filename}: cannot be read ({fault.strerror}); allow reading it")
    files, target = [], []
    for name in names:
        inside = sorted(os.path.join(top, file) for top, _, held in os.walk(folder / name, onerror=stop)
                        for file in held if file.lower().endswith(ENDINGS) and not file.startswith("."))
        files += inside
        target += [classes.index(name)] * len(inside)

    def picture(i):
        from PIL import Image
        return Image.open(files[i])
    return Part(torch.tensor(target, dtype=torch.long), picture, lambda i: files[i], REMEDY)


def _names(path: Path, classes: list[str]) -> tuple[str, ...]:
    """What the classes are called; the names of their folders where no file says."""
    places = [path / "classes.txt", *(p / "LOC_synset_mapping.txt" for p in [path, *path.resolve().parents[:3]])]
    file = next((p for p in reversed(places) if p.is_file()), None)
    if file is None:
        return tuple(classes)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"{file}: cannot be read ({fault}); write it in UTF-8, or remove it") from None
    pairs = [line.split(maxsplit=1) for line in lines]
    meaning = {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
    if all(name in meaning for name in classes):
        names = [meaning[name] for name in classes]
        twice = Counter(names)                                               # ImageNet has two kinds of crane
        return tuple(name if twice[name] == 1 else f"{name} ({folder})" for name, folder in zip(names, classes))
    listed = file.name == "classes.txt" and not any(name in meaning for name in classes)
    if listed and len(lines) == len(classes) == len(set(lines)):
        return tuple(lines)
    if listed:
        raise DataError(f"{file}: has {len(lines)} lines for {len(classes)} class folders; write one name for each, "
                        "all different, or remove the file")
    lacks = next(name for name in classes if name not in meaning)
    raise DataError(f"{file}: has no line for the class folder {lacks}; add `{lacks} NAME`, or remove the file")
