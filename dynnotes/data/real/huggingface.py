"""Datasets of Hugging Face: `hf:NAME`, and folders that `save_to_disk` wrote: `hf:PATH`.

    config=NAME            the configuration, where a dataset has several
    split=NAME             this split alone, which is then cut
    image=COLUMN           the column of images, where there are several
    label=COLUMN           the column of classes, where it is not clear which one is

The library `datasets` (pip install "dynnotes[data]") finds, downloads and stores a dataset by its name; with
HF_HUB_OFFLINE=1 it takes what is stored. Splits called valid, val or dev are validation splits. Classes are called what
the dataset calls them; a column of numbers or words without names has its different values as classes.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from . import DataError, Found, Part

OPTIONS = {"hf": ("config", "split", "image", "label")}
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
          "dev": "validation", "test": "test"}
LABELS = ("label", "labels", "class", "target")


def read(kind: str, where: str, options: Mapping[str, str]) -> Found:
    """The splits of a dataset, one column of images and one of classes."""
    try:
        import datasets
    except ImportError:
        raise DataError('hf: needs the library datasets; install it with: pip install "dynnotes[data]"') from None
    return adapt(where, _loaded(datasets, where, options.get("config")), datasets.Image, datasets.ClassLabel, options)


def _loaded(datasets, where: str, config: str | None) -> Mapping:
    """{split: dataset}."""
    path = Path(where).expanduser()
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json", "state.json"))
    try:
        found = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(where, config)
    except Exception as fault:  # noqa: BLE001  the library raises its own, those of its formats and of the network
        said = (str(fault).splitlines() or [""])[0]
        remedy = "write it again with save_to_disk" if saved else \
            "check the name on huggingface.co/datasets and the connection, or give a folder written by save_to_disk"
        raise DataError(f"hf:{where}: cannot be read ({type(fault).__name__}: {said}); {remedy}") from None
    return found if isinstance(found, Mapping) else {"train": found}


def adapt(where: str, held: Mapping, image_type: type, class_type: type, options: Mapping[str, str]) -> Found:
    """What a reader gives, from {split: dataset} and the library's types of the columns."""
    if wanted := options.get("split"):
        if wanted not in held:
            raise DataError(f"hf:{where}: no split {wanted!r}; it has {', '.join(held)}")
        held = {"train": held[wanted]}
    elif len(held) == 1:
        held = {"train": next(iter(held.values()))}
    else:
        named = {name: held[name] for name in held if name in SPLITS}
        if len({SPLITS[name] for name in named}) < len(named) or not named:
            raise DataError(f"hf:{where}: has the splits {', '.join(held)}; choose one with split=")
        held = {SPLITS[name]: dataset for name, dataset in named.items()}
    held = {split: dataset.with_format(None) for split, dataset in held.items()}
    features = next(iter(held.values())).features
    image = _column(where, "image", options.get("image"), features,
                    [name for name, kind in features.items() if isinstance(kind, image_type)])
    sure = [name for name, kind in features.items() if isinstance(kind, class_type)]
    label = _column(where, "label", options.get("label"), features,
                    sure or [name for name in LABELS if name in features])
    if not isinstance(features[image], image_type):
        raise DataError(f"hf:{where}: the column {image} holds no images; name another with image=")
    values = {split: dataset.select_columns([label])[:][label] for split, dataset in held.items()}
    labels, index = _classes(where, label, features[label], class_type, values)
    parts = {split: _part(f"hf:{where}, {split}", dataset.select_columns([image]), image,
                          torch.tensor([index.get(v, -1) for v in values[split]], dtype=torch.long))
             for split, dataset in held.items()}
    return Found(parts, labels)


def _column(where: str, what: str, asked: str | None, features: Mapping, fitting: list[str]) -> str:
    if asked is not None and asked not in features:
        raise DataError(f"hf:{where}: no column {asked!r}; it has {', '.join(features)}")
    if asked is None and len(fitting) != 1:
        some = f"several columns could be the {what}" if fitting else f"no column is clearly the {what}"
        raise DataError(f"hf:{where}: {some}; name one of {', '.join(fitting or features)} with {what}=")
    return fitting[0] if asked is None else asked


def _classes(where: str, column: str, feature, class_type: type, values: Mapping) -> tuple[tuple[str, ...], dict]:
    """The names of the classes, and {value in the column: class}."""
    if isinstance(feature, class_type):
        return tuple(feature.names), {i: i for i in range(len(feature.names))}
    found = {v for column_values in values.values() for v in column_values if v is not None}
    if len({type(v) for v in found}) != 1 or not isinstance(next(iter(found)), (int, str)):
        raise DataError(f"hf:{where}: the column {column} holds neither whole numbers nor words; name another with "
                        "label=")
    ordered = sorted(found - {-1})                                           # -1 is how the hub says: no label
    return tuple(map(str, ordered)), {v: i for i, v in enumerate(ordered)}


def _part(name: str, dataset, image: str, target: torch.Tensor) -> Part:
    def picture(i):
        found = dataset[i][image]
        if found is None:
            raise ValueError("it is empty")
        return found
    return Part(target, picture, lambda i: f"{name}: image {i}",
                "load the dataset again, or leave that class out with classes=")
