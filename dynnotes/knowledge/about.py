"""Version and public addresses. They stand in pyproject.toml alone; an installed package has them as metadata."""

import functools
from pathlib import Path

_PROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


@functools.cache
def project() -> dict:
    """{"version": ..., "urls": {name: address}}; empty address book where the package was merely copied somewhere."""
    if _PROJECT.is_file():
        import tomllib

        table = tomllib.loads(_PROJECT.read_text(encoding="utf-8")).get("project", {})
        if table.get("name") == "dynnotes":
            return {"version": table["version"], "urls": dict(table.get("urls", {}))}
    from importlib import metadata

    try:
        found = metadata.metadata("dynnotes")
    except metadata.PackageNotFoundError:
        return {"version": "0+unknown", "urls": {}}
    pairs = (value.split(", ", 1) for value in found.get_all("Project-URL") or ())
    return {"version": found["Version"], "urls": dict(pairs)}


def url(name: str) -> str:
    """The project's address called `name` (Repository, Book), without a slash at its end; empty where unknown."""
    return project()["urls"].get(name, "").rstrip("/")
