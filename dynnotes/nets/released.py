"""Released weights as the Hugging Face hub holds them: config.json beside model.safetensors, or beside its shards."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Checkpoint:
    """What lies in `folder`; only its lists are read at first. config: its config.json, which is the file `told`;
    files: which file holds each tensor, as the file `listing` says.

    Raises FileNotFoundError for a file that is missing, ValueError for one that is damaged; messages name the file.
    """
    def __init__(self, folder: Path):
        self.told = folder / "config.json"
        self.config = _json(self.told)
        self.listing, self.files = _files(folder)

    def expect(self, names: Iterable[str], spare: Callable[[str], bool]) -> None:
        """Raises ValueError unless all `names` are there and nothing else, `spare` tensors apart."""
        names = dict.fromkeys(names)
        if missing := [name for name in names if name not in self.files]:
            raise ValueError(f"{self.listing}: lacks {missing[0]}, and {len(missing) - 1} more of the {len(names)} "
                             f"tensors that {self.told.name} asks for")
        if unknown := [name for name in self.files if name not in names and not spare(name)]:
            raise ValueError(f"{self.listing}: has {unknown[0]}, and {len(unknown) - 1} more that {self.told.name} "
                             "leaves no place for")

    def dtype(self, name: str) -> torch.dtype:
        """That of a tensor."""
        with _opened(self.files[name]) as file:
            return self._tensor(file, name).dtype

    def fill(self, places: Iterable[tuple[str, Tensor]]) -> None:
        """Copies tensors to where they belong, one at a time; a name may have several places.

        Raises ValueError for one of another shape, and for one that is not in the file that `listing` names.
        """
        wanted: dict[Path, dict[str, list[Tensor]]] = {}
        for name, place in places:
            wanted.setdefault(self.files[name], {}).setdefault(name, []).append(place.detach())
        for path, names in wanted.items():
            with _opened(path) as file:
                for name, copies in names.items():
                    found = self._tensor(file, name)
                    for place in copies:
                        if found.shape != place.shape:
                            raise ValueError(f"{path}: {name} is {list(found.shape)}; {self.told.name} asks for "
                                             f"{list(place.shape)}")
                        place.copy_(found)

    def _tensor(self, file, name: str) -> Tensor:
        from safetensors import SafetensorError

        try:
            return file.get_tensor(name)
        except SafetensorError:
            raise ValueError(f"{self.files[name]}: lacks {name}, which {self.listing.name} says is there") from None


def _files(folder: Path) -> tuple[Path, dict[str, Path]]:
    """(the file that lists all tensors, which file holds each of them)."""
    if (path := folder / SINGLE).is_file():
        with _opened(path) as file:
            return path, dict.fromkeys(file.keys(), path)
    if not (path := folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder}: has neither {SINGLE} nor {INDEX}")
    shards = _json(path).get("weight_map")
    if not isinstance(shards, Mapping) or any(Path(str(shard)).name != shard for shard in shards.values()):
        raise ValueError(f"{path}: has no weight_map from tensors to files beside it")
    return path, {name: folder / shard for name, shard in shards.items()}


def _json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise ValueError(f"{path}: is damaged, or no JSON ({fault})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: is no JSON object")
    return found


def _opened(path: Path):
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        return safe_open(path, "pt")
    except SafetensorError as fault:
        raise ValueError(f"{path}: is damaged or cut short, or no safetensors ({fault})") from None
