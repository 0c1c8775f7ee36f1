"""Files in and out: text whatever its line ends, and writing that leaves the old file or the new one, never half."""

import os
import shutil
import tempfile
from pathlib import Path

from .problems import Problem


def decode(data: bytes, file: str) -> tuple[str, list[Problem]]:
    """Text of a file with or without a BOM, any line ends; a Problem for anything that is not UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return "", [Problem(file, line, f"not UTF-8 (byte 0x{data[error.start]:02x})", "save the file as UTF-8")]
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        return "", [Problem(file, line, "a zero byte, as in UTF-16 or a damaged file", "save the file as UTF-8")]
    return text.replace("\r\n", "\n").replace("\r", "\n"), []


def write(path: str | os.PathLike, data: str | bytes, check=None) -> None:
    """Write a file whole or not at all; one of this name is replaced, with its permissions, and a link stays a link.

    check: called right before the old file gives way; if it raises, that stays. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OSError(f"{path} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is no ordinary file; name another")
    if not target.parent.is_dir():
        raise OSError(f"{target.parent}: no such folder; make it first")
    handle, new = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, new)
        else:
            os.chmod(new, 0o644)  # mkstemp makes it private
        if check:
            check()
        os.replace(new, target)
    except BaseException:
        os.unlink(new)
        raise

