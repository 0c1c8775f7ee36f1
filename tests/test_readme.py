"""What the README promises runs as printed, and its links lead somewhere."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=["query", "run", "verb"])
def test_python_blocks_run_as_printed(code, capsys):
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


def test_local_links_exist():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), f"README.md links to {target}, which is not there"


def test_it_fits_one_screen():
    assert len(TEXT.splitlines()) < 80
