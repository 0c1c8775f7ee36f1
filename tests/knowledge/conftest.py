"""A small bibliography that each test may damage."""

from pathlib import Path

import pytest

TAXONOMY = """\
facets:
  kind: {method: m, survey: s, background: b}
  adapts: {input: i, none: n}
  unit: {layer: l, exit: e, channel: c}
  decision: {gating: g, confidence: c, none: n}
  training: {gumbel-softmax: g, soft: s, none: n}
  executes: {theoretical: t, unknown: u}
  modality: {image: i, 3d: d}
  tasks: {classification: c, no: a word that YAML would turn into false}
relations: {extends: e, improves: i, compares: c, survey-of: s}
lists: {materials: m, survey-list: s}
nodes:
  - {id: sample, label: Sample-wise, zh: 样本, about: a, survey: ["2", "2.10"]}
  - {id: sample/depth, label: Depth, zh: 深度, about: a, survey: "2.1.1"}
  - {id: sample/depth/exits, label: Exits, zh: 早退, about: a, survey: 2.10}
  - {id: sample/depth/exits/cascades, label: Cascades, zh: 级联, about: a, survey: null}
  - {id: sample/depth/skips, label: Skips, zh: 跳层, about: a}
  - {id: background, label: Background, zh: 背景, about: a, survey: null}
"""


def entry(key: str, **fields: str) -> str:
    """A complete entry; a field set to None is left out."""
    values = {
        "title": f"The paper {key}", "author": "Veit, Andreas and Belongie, Serge", "booktitle": "ECCV", "year": "2018",
        "method": f"Net-{key}", "kind": "method", "taxon": "sample/depth/skips", "adapts": "input", "unit": "layer",
        "decision": "gating", "training": "soft", "executes": "theoretical", "modality": "image",
        "tasks": "classification", "tldr": "One sentence.", "status": "checked",
    }  # fmt: skip
    values |= {name.replace("_", "-"): value for name, value in fields.items()}
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in values.items() if value is not None)
    return f"@inproceedings{{{key},\n{body}\n}}\n"


class Bibliography:
    """A bib folder; `write` adds a file, `problems` are the lines of the error that reading it raises."""

    def __init__(self, root: Path):
        self.path = root / "bib"
        self.write("taxonomy.yml", TAXONOMY)

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return file

    def read(self):
        from dynnotes.knowledge.check import read_bibliography
        from dynnotes.knowledge.query import KnowledgeBase

        return KnowledgeBase(read_bibliography(self.path))

    def problems(self) -> list[str]:
        from dynnotes.knowledge.problems import BibliographyError

        with pytest.raises(BibliographyError) as caught:
            self.read()
        return str(caught.value).split("\n")[1:]


@pytest.fixture
def bib(tmp_path, monkeypatch) -> Bibliography:
    monkeypatch.setenv("DYNNOTES_CACHE", str(tmp_path / "cache"))
    return Bibliography(tmp_path)


@pytest.fixture(name="entry")
def entry_fixture():
    return entry
