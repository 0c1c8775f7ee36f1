"""Real images behind the recipes: `read("cifar10:PATH?gray=1").load("train", 1000)`.

A dataset is named `KIND:WHERE?OPTION=VALUE&...`, KIND being one of

    cifar10:PATH, cifar100:PATH    the published files, in either version, unpacked or as the .tar.gz
    imagenet:PATH                  a folder with one folder of images for each class, below train/ and val/ or not
    hf:NAME                        a dataset of the Hugging Face hub, or a folder that `save_to_disk` wrote

and the options that every kind takes

    size=32                        side of the square that images are scaled and cropped to
    gray=1                         one channel instead of three (0.299 red + 0.587 green + 0.114 blue)
    classes=10, classes=cat,dog    the first ten classes only, or those named
    train=5000, validation=, test= how many images of a split at most

Nothing is downloaded, except by the library `datasets` for a name that it has not yet stored.

**Difficulty is not known.** Nobody made these images harder or easier, so `hard` is 0 for all of them: it says nothing,
and a rank correlation with it is None, never a number. `difficulty` is empty, `box` and `informative` are None.

**Splits** share no image. A split that the dataset has stays what it is. Without a test split the validation split is
the test split (as for ImageNet, whose test images have no labels); without a validation split a tenth of the training
images is; a dataset in one piece is cut into 8 : 1 : 1. Images are shuffled once, with a fixed seed, before they are
cut or counted out, so that a smaller number of them is a part of a larger one. Images without a label are left out.

**Memory.** Images are decoded when a batch asks for them. Of each split at most MEMORY bytes stay decoded, one byte per
pixel and channel: 174,762 images of 32 x 32 in colour, 3,566 of 224 x 224. The others are decoded again in each epoch.

Pixels are in [0, 1], as in the tasks of this project: no mean is subtracted, nothing is flipped or shifted.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import torch
from torch import Tensor

from ...knowledge.problems import printable
from .. import SPLITS, Data
from .. import load as load_task

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...registry import Recipe

MEMORY = 512 * 2**20
COUNTS = {"train": 12000, "validation": 1000, "test": 2000}                  # at most; as many as the tasks have
SEED = 0                                                                     # of the shuffle before images are cut
KINDS = {"cifar10": "cifar", "cifar100": "cifar", "imagenet": "folders", "hf": "huggingface"}
OPTIONS = ("size", "gray", "classes", *SPLITS)
SIDES = (4, 1024)


class DataError(ValueError):
    """A dataset cannot be read, or does not fit a net; the message names the file and what to do."""
    def __init__(self, message: str):
        super().__init__(printable(message))


@dataclass(frozen=True)
class Part:
    """One split as its files have it: `target` [N] (-1: no label), the N-th picture, and where it stands in words."""
    target: Tensor
    picture: Callable[[int], Image]
    where: Callable[[int], str]
    remedy: str


@dataclass(frozen=True)
class Found:
    """What a reader finds: at least one split, the names of the classes, the side that all images have (or None)."""
    parts: Mapping[str, Part]
    labels: tuple[str, ...]
    side: int | None = None
    notes: tuple[str, ...] = ()


class Images:
    """Images [N, C, S, S], decoded where rows are asked for: indexing gives a tensor of floats in [0, 1]."""
    def __init__(self, part: Part, rows: Tensor, side: int, gray: bool):
        self.part, self.rows, self.device = part, rows, torch.device("cpu")
        self.shape = torch.Size((len(rows), 1 if gray else 3, side, side))
        held = min(len(rows), MEMORY // self.shape[1:].numel())
        self.kept, self.known = torch.empty(held, *self.shape[1:], dtype=torch.uint8), torch.zeros(held).bool()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows) -> Tensor:
        chosen = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows]
        found = torch.empty(chosen.numel(), *self.shape[1:], dtype=torch.uint8)
        for i, row in enumerate(chosen.flatten().tolist()):
            found[i] = self._pixels(row)
        return found.view(*chosen.shape, *self.shape[1:]).to(self.device).float() / 255

    def _pixels(self, row: int) -> Tensor:
        if row < len(self.kept) and self.known[row]:
            return self.kept[row]
        i = int(self.rows[row])
        try:
            found = pixels(self.part.picture(i), self.shape[-1], self.shape[1] == 1)
        except DataError:
            raise
        except Exception as fault:  # noqa: BLE001  a damaged image raises anything
            raise DataError(f"{self.part.where(i)}: is damaged or no image ({type(fault).__name__}: {fault}); "
                            f"{self.part.remedy}") from None
        if row < len(self.kept):
            self.kept[row], self.known[row] = found, True
        return found

    def to(self, device) -> Images:
        """The same images, the tensors of which come on `device`; decoded ones stay shared."""
        moved = object.__new__(Images)
        moved.__dict__.update(self.__dict__, device=torch.device(device))
        return moved


def pixels(picture: Image, side: int, gray: bool) -> Tensor:
    """[C, side, side], bytes: turned as its EXIF says, in colour or gray, scaled, the longer side cropped on both ends.

    What lies under transparency is shown. 16 bits become 8.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with picture:
        picture.draft(None, (2 * side, 2 * side))                            # a large JPEG is decoded smaller at once
        image = ImageOps.exif_transpose(picture)
        if image.mode.startswith("I"):                                       # `convert` would clip at 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("its pixels are floats, of unknown range")
        elif "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("L" if gray else "RGB")
        if image.size != (side, side):
            image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
        array = np.array(image).reshape(side, side, -1)
    return torch.from_numpy(array).permute(2, 0, 1)


@dataclass(frozen=True)
class Dataset:
    """A real dataset, cut into train, validation and test: `load(split, size)` gives Data."""
    name: str
    labels: tuple[str, ...]
    pools: Mapping[str, tuple[Part, Tensor]]                                 # of each split: the part and its rows
    side: int                                                                # 0: neither given nor the dataset's own
    gray: bool = False
    counts: Mapping[str, int] = field(default_factory=lambda: dict(COUNTS))
    batches: tuple[int, ...] = ()                                            # that training will ask for
    notes: tuple[str, ...] = ()

    def load(self, split: str, size: int | None = None) -> Data:
        """At most `size` images of a split, as few as there are. Raises DataError when there is none."""
        if split not in SPLITS:
            raise DataError(f"no split {split!r}; known: {', '.join(SPLITS)}")
        if not self.side:
            raise DataError(f"{self.name}: its images have no size of their own; add size=32, say, to the options")
        part, rows = self.pools[split]
        count = min(len(rows), self.counts[split], self.counts[split] if size is None else size)
        while split == "train" and any(count % batch == 1 for batch in self.batches):
            count -= 1                                                       # a batch norm cannot train on one image
        if not count:
            raise DataError(f"{self.name}: too few images for a {split} split")
        rows = rows[:count]
        return Data(self.name, split, (Images(part, rows, self.side, self.gray),), part.target[rows],
                    torch.zeros(count), labels=self.labels)

    def for_recipe(self, recipe: Recipe) -> Dataset:
        """This dataset as the net of a recipe takes it. Raises DataError, with the option to add, if it cannot."""
        like = load_task(recipe.task, "test", 1)
        if like.kind != "image" or len(like.inputs) != 1 or like.target.dim() != 1:
            raise DataError(f"{self.name}: holds images with one class each, and the recipe for {recipe.task} learns "
                            "something else; choose a paper with a recipe for images: "
                            "`dynnotes find --implemented --modality image`")
        channels, side = like.inputs[0].shape[1], like.inputs[0].shape[-1]
        made = replace(self, side=self.side or side, batches=tuple({stage.batch for stage in recipe.stages}))
        sample = made.load("train", 2)
        (x,), target = next(sample.batches(2))
        known = len(like.labels)
        fault = None
        try:
            model = recipe.net()
            with torch.no_grad():
                if len(target) == 2:
                    model.train().loss((x,), target.clamp(max=known - 1))
                known = model.eval()(x)[0].shape[-1]
        except Exception as stopped:  # noqa: BLE001  a net refuses a shape in its own way
            fault = f"{type(stopped).__name__}: {str(stopped).splitlines()[0] if str(stopped) else ''}"
        if fault is None and known >= len(self.labels):
            return made
        options = [f"gray={2 - channels}"] if channels != x.shape[1] else []
        options += [f"size={side}"] if side != made.side else []
        options += [f"classes={known}"] if known < len(self.labels) else []
        given = "x".join(map(str, x.shape[1:]))
        takes = "x".join(map(str, like.inputs[0].shape[1:]))
        remedy = f"add {'&'.join(options)} to the options" if options else f"the net says: {fault}"
        raise DataError(f"{self.name}: gives {given} pixels and {len(self.labels)} classes, the net takes {takes} and "
                        f"{known}; {remedy}")

    def about(self) -> str:
        """What `load` gives, for people: numbers, sizes, splits, memory."""
        parts = []
        for split in SPLITS:
            data = self.load(split)
            images = data.inputs[0]
            held = "" if len(images.kept) == len(images) else f" ({len(images.kept):,} stay decoded)"
            parts.append(f"{split} {len(data):,}{held}")
        shape = f"{1 if self.gray else 3}x{self.side}x{self.side}"
        first = f"{self.name}: {', '.join(parts)} images of {shape}, {len(self.labels)} classes"
        return "; ".join([first, *self.notes])

    @property
    def slug(self) -> str:
        """A name for a folder: `cifar10`, `imagenet-tiny`, `hf-mnist`."""
        kind, _, where = self.name.partition("?")[0].partition(":")
        last = "" if kind.startswith("cifar") else Path(where).name
        return "-".join([kind, *"".join(c if c.isalnum() else " " for c in last).split()])


def read(spec: str) -> Dataset:
    """The dataset that `KIND:WHERE?OPTIONS` names, images not yet decoded. Raises DataError."""
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in KINDS:
        raise DataError(f"no dataset {spec!r}; {_nearest(kind, KINDS)}as in cifar10:PATH, cifar100:PATH, "
                        "imagenet:PATH or hf:NAME")
    where, _, words = rest.partition("?")
    if not where:
        raise DataError(f"{kind}: give the place behind the colon, as in {kind}:{'NAME' if kind == 'hf' else 'PATH'}")
    reader = importlib.import_module(f"{__name__}.{KINDS[kind]}")
    options = _options(spec, words, (*OPTIONS, *reader.OPTIONS.get(kind, ())))
    number = {name: _number(name, options, *limits) for name, limits in
              {"size": SIDES, "gray": (0, 1), **dict.fromkeys(SPLITS, (1, 10 ** 9))}.items()}
    found = reader.read(kind, where, options)
    parts, labels = _chosen(spec, found, options.get("classes"))
    pools, note = _cut(spec, parts)
    counts = {split: number[split] or COUNTS[split] for split in SPLITS}
    name = spec.encode("utf-8", "backslashreplace").decode()                 # a file name may hold what JSON cannot
    return Dataset(name, labels, pools, number["size"] or found.side or 0, bool(number["gray"]),
                   counts, (), (*found.notes, *note))


def module_of(spec: str) -> str:
    """The module that reads a dataset: results depend on it as they do on the paper's."""
    return f"{__name__}.{KINDS[spec.partition(':')[0]]}"


def _nearest(word: str, known) -> str:
    close = get_close_matches(word, list(known), 1, 0.5)
    return f"did you mean {close[0]!r}? " if close else ""


def _options(spec: str, words: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words.split("&") if words else ():
        name, _, value = (unquote(part) for part in word.partition("="))
        if name not in known:
            raise DataError(f"{spec}: no option {name!r}; {_nearest(name, known)}known: {', '.join(known)}")
        if name in found or not value:
            raise DataError(f"{spec}: {name} is given twice" if name in found else f"{spec}: {name} has no value")
        found[name] = value
    return found


def _number(name: str, options: Mapping[str, str], low: int, high: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and low <= int(text[:12]) <= high):
        raise DataError(f"{name} is a whole number from {low} to {high}, not {text!r}")
    return int(text)


def _chosen(spec: str, found: Found, classes: str | None) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The parts and labels with the classes asked for only, in the order asked for."""
    if classes is None:
        return dict(found.parts), found.labels
    if classes.isascii() and classes.isdecimal():
        if not 2 <= int(classes[:12]) <= len(found.labels):
            raise DataError(f"{spec}: classes is from 2 to {len(found.labels)}, not {classes}")
        keep = list(range(int(classes)))
    else:
        wanted = [name.strip() for name in classes.split(",")]
        for name in wanted:
            if name not in found.labels:
                raise DataError(f"{spec}: no class {name!r}; {_nearest(name, found.labels)}the first of "
                                f"{len(found.labels)}: {', '.join(found.labels[:10])}")
        keep = list(dict.fromkeys(map(found.labels.index, wanted)))
        if len(keep) < 2:
            raise DataError(f"{spec}: name at least two classes")
    new = torch.full((len(found.labels) + 1,), -1)                           # the last entry is for -1, no label
    new[keep] = torch.arange(len(keep))
    parts = {split: replace(part, target=new[part.target]) for split, part in found.parts.items()}
    return parts, tuple(found.labels[i] for i in keep)


def _cut(spec: str, parts: dict[str, Part]) -> tuple[dict[str, tuple[Part, Tensor]], list[str]]:
    """Rows for train, validation and test, and what was done to get them."""
    pools = {}
    for split, part in parts.items():
        labelled = (part.target >= 0).nonzero().squeeze(1)
        if len(labelled):
            order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(SEED))
            pools[split] = (part, labelled[order])
    if len(pools) == 1:
        (part, rows), = pools.values()
        tenth = len(rows) // 10 or 1
        pools = {"train": (part, rows[2 * tenth:]), "validation": (part, rows[:tenth]),
                 "test": (part, rows[tenth:2 * tenth])}
        return pools, [f"one labelled split, cut 8 : 1 : 1 with seed {SEED}"]
    if "train" not in pools:
        raise DataError(f"{spec}: no labelled image to train on; it has {', '.join(pools) or 'no labelled image'}")
    notes = []
    if "test" not in pools:
        pools["test"] = pools.pop("validation")
        notes.append("no labelled test split: the validation split is tested on")
    if "validation" not in pools:
        part, rows = pools["train"]
        tenth = len(rows) // 10 or 1
        pools["validation"], pools["train"] = (part, rows[:tenth]), (part, rows[tenth:])
        notes.append(f"no validation split of its own: a tenth of the training images, with seed {SEED}")
    return pools, notes
