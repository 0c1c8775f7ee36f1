"""The index: the checked bibliography as one JSON file, so that a question costs neither BibTeX nor YAML.

A wheel carries `index.json`. In a checkout, or for a bibliography of your own, it lives in the user's cache and is
rebuilt when a .bib file, a .yml file beside them or one of this package's readers changes. The cache is a convenience:
unwritable, truncated or shared with another process, it never stops a query.
"""

import json
import os
import time
import zlib
from pathlib import Path

from .query import KnowledgeBase

FORMAT = "dynnotes.index/1"
HERE = Path(__file__).parent
BUNDLED = HERE / "index.json"
CHECKOUT = HERE.parent.parent / "bib"
_READERS = (
    "bibtex.py", "check.py", "index.py", "latex.py", "lists.py", "names.py", "problems.py", "records.py", "schema.py",
    "taxonomy.py", "yamlnodes.py",
)  # fmt: skip
_SHAPE = {"papers": list, "records": list, "lists": list, "taxonomy": dict, "stamps": list, "digest": str, "read": int}
_SETTLED = 2_000_000_000  # ns; a file changed less than this before it was read may change again within one tick


def bibliography() -> Path | None:
    """The checkout's bib folder, or None where the package is installed."""
    return CHECKOUT if (CHECKOUT / "taxonomy.yml").is_file() else None


def cache_dir() -> Path | None:
    """DYNNOTES_CACHE, else dynnotes in XDG_CACHE_HOME, else ~/.cache/dynnotes; None for a user without a home."""
    if own := os.environ.get("DYNNOTES_CACHE"):
        return Path(own)
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return base / "dynnotes" if base.is_absolute() else None


def stamp(bib: Path) -> list[list]:
    """[name, size, mtime in ns] of everything the index depends on, in a fixed order."""
    sources = sorted(p for p in bib.rglob("*") if p.suffix in (".bib", ".yml"))
    files = [("bib/" + p.relative_to(bib).as_posix(), p) for p in sources]
    files += [*(("reader/" + name, HERE / name) for name in _READERS)]
    found = []
    for name, path in files:
        info = path.stat()
        found.append([name, info.st_size, info.st_mtime_ns])
    return found


def _digest(bib: Path, stamps: list[list]) -> str:
    """Hash of the contents of the stamped files, so that a fresh checkout or a `touch` rebuilds nothing."""
    import hashlib  # 3 ms, and only needed when something changed

    total = hashlib.sha256()
    for name, _, _ in stamps:
        folder, _, rest = name.partition("/")
        data = ((bib if folder == "bib" else HERE) / rest).read_bytes()
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()


def build(bib: Path) -> dict:
    """The index of a bibliography, read and checked afresh. Raises BibliographyError."""
    from .check import read_bibliography

    read = time.time_ns()
    stamps = stamp(bib)
    digest = _digest(bib, stamps)  # before the reading: a file that changes meanwhile makes it stale
    return {"format": FORMAT, "read": read, "stamps": stamps, "digest": digest} | read_bibliography(bib)


def knowledge_base(bib: Path | None) -> KnowledgeBase:
    """The literature of a folder, or (None) of the index in the wheel; cached where the user's cache can be written.

    Raises BibliographyError for a bibliography with problems, FileNotFoundError where there is none.
    """
    if bib is None:
        if found := _read(BUNDLED):
            return found[1]
        raise FileNotFoundError(f"{BUNDLED} is missing or damaged; install dynnotes again")
    if not (bib / "taxonomy.yml").is_file():
        raise FileNotFoundError(f"{bib / 'taxonomy.yml'}: no such file; a bibliography needs one beside its .bib files")
    path = _cache_path(bib)
    if path and (found := _read(path)):
        index, kb = found
        stamps, now = stamp(bib), time.time_ns()
        settled = all(changed < index["read"] - _SETTLED for _, _, changed in stamps)
        if stamps == index["stamps"] and settled:
            return kb
        if [s[0] for s in stamps] == [s[0] for s in index["stamps"]] and _digest(bib, stamps) == index["digest"]:
            _write(path, index | {"stamps": stamps, "read": now})
            return kb
    index = build(bib)
    if path:
        _write(path, index)
    return KnowledgeBase(index)


def _cache_path(bib: Path) -> Path | None:
    folder = cache_dir()
    if folder is None:
        return None
    return folder / f"index-{zlib.crc32(os.fsencode(bib)):08x}-{bib.parent.name}.json"


def _read(path: Path) -> tuple[dict, KnowledgeBase] | None:
    """An index file, or None where it is missing, truncated, of another format or otherwise not one of ours."""
    try:
        index = json.loads(path.read_bytes())
        if index["format"] != FORMAT or not all(isinstance(index[k], t) for k, t in _SHAPE.items()):
            return None
        return index, KnowledgeBase(index)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # whatever is in the file, the .bib files say it again


def write_index(path: Path, index: dict) -> None:
    """Write an index whole or not at all: readers see the old file or the new one. Raises OSError."""
    from . import files  # loads what is only needed when something changed

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(index, ensure_ascii=False, separators=(",", ":")))


def _write(path: Path, index: dict) -> None:
    try:
        write_index(path, index)
    except OSError:
        return  # no cache: the next process reads the .bib files again, and nothing else is lost


def bundle(bib: Path, path: Path) -> None:
    """The index for a wheel: no times and no machine's paths, so the same bibliography gives the same bytes."""
    index = build(bib) | {"read": 0, "stamps": [], "chapters": chapters(bib.parent)}
    write_index(path, index)


def chapters(root: Path) -> list[str]:
    """Pages of the book's hand-written chapters, relative to its root: `notebooks/03-early-exits.html`."""
    found = [*sorted(root.glob("book/**/*.md")), *sorted(root.glob("notebooks/*.ipynb"))]
    return [p.relative_to(root).with_suffix(".html").as_posix() for p in found]
