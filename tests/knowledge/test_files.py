"""Files in and out."""

import pytest

from dynnotes.knowledge import files


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    file, link = tmp_path / "a.csv", tmp_path / "link.csv"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    files.write(link, "é")
    assert (file.read_bytes(), link.is_symlink(), file.stat().st_mode & 0o777) == ("é".encode(), True, 0o640)
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write(file, b"new")
    assert file.read_bytes() == "é".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "link.csv"]
    for wrong, why in ((tmp_path, "is a folder"), ("/dev/null", "no ordinary file"), (tmp_path / "no/a", "no such")):
        with pytest.raises(OSError, match=why):
            files.write(wrong, "x")
