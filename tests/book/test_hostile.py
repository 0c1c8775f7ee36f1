"""A bibliography written by an enemy: everything in it is shown as text, in every place where the book shows it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import ROOT, serve

import dynnotes

TITLE = "<script>window.owned=1</script> {{ 7*7 }} `code` **bold** [x](javascript:owned) :::{note} |sub| _em_ <b>& #42"
ENTRY = r"""
@article{evil2024hostile,
  title = {%s}, author = {<img src=x onerror="window.owned=1">, Eve},
  journal = {</script><script>window.owned=1</script>},
  year = {2024}, eprint = {2401.00001}, archiveprefix = {arXiv},
  method = {"><script>window.owned=1</script>}, aka = {``` {raw} html}, taxon = {sample/depth/skips},
  kind = {method}, adapts = {input}, unit = {layer}, decision = {gating}, training = {soft}, executes = {theoretical},
  tasks = {classification}, modality = {image},
  tldr = {````{raw} html <script>window.owned=1</script> {{ owned }} --- '"},
  headline = {</p><iframe src="x"></iframe>},
  status = {unconfirmed: <script>window.owned=1</script>} }
"""
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The address of a small book whose bibliography is hostile, built as the real one is: warnings are errors."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("_config.yml", "assets", "bib/taxonomy.yml"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(exist_ok=True, parents=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.rmtree(folder / "assets" / "traces", ignore_errors=True)
    (folder / "bib" / "evil.bib").write_text(ENTRY % TITLE, encoding="utf-8")
    (folder / "book").mkdir()
    shutil.copy(ROOT / "book" / "map.md", folder / "book")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/map\n")
    command = [Path(sys.executable).parent / "jupyter-book", "build", ".", "-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with serve(folder / "_build" / "html") as address:
        yield address, dynnotes.load(folder / "bib")["evil2024hostile"]


def test_hostile_entry_is_only_text(hostile, watched):
    address, paper = hostile
    one = watched(address)
    page = one.open("papers/evil2024hostile.html")
    assert page.evaluate("window.owned") is None
    assert page.locator("article.bd-article h1").inner_text().rstrip("#\n ") == paper.title
    assert paper.title in page.title()
    article = page.locator("article.bd-article")
    for shown in (paper.tldr, paper.headline, paper.method, paper.authors[0], paper.venue, paper.aka[0]):
        assert shown in article.inner_text()
    assert article.locator("iframe, img, strong b, b, [onerror]").count() == 0
    assert "owned" not in "".join(article.locator("script").all_text_contents())
    assert not [a for a in page.locator("a").all() if (a.get_attribute("href") or "").startswith("javascript:")]
    assert paper.bibtex().strip() in page.locator(".dyn-bibtex pre").inner_text()

    page = one.open("book/map.html")
    page.get_by_role("searchbox", name="Search", exact=True).fill("owned")
    page.locator(".dyn-open").click()
    table = page.locator(".dyn-papers")
    for shown in (paper.title, paper.method, paper.authors[0], paper.venue, paper.tldr):
        assert shown in table.inner_text()
    assert table.locator("script, img, iframe, b, [onerror]").count() == 0
    assert page.evaluate("window.owned") is None

    page = one.open("search.html?q=bold")
    page.locator('#search-results a[href*="evil2024hostile"]').first.wait_for()
    assert page.evaluate("window.owned") is None
