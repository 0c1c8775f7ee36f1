"""bib/taxonomy.yml: the tree of the field and the closed vocabularies. Read only when the index is rebuilt."""

import re
from dataclasses import dataclass, field

from .problems import Problem, suggestion
from .schema import FACETS
from .yamlnodes import Reader, compose

_SECTIONS = ("facets", "relations", "lists", "nodes")
_OPTIONAL = ("records",)
_NODE = ("id", "label", "zh", "about", "survey")
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)*")


@dataclass
class Taxonomy:
    """Vocabularies as {facet: {word: one line}} and nodes as a list of dicts, in display order."""

    facets: dict[str, dict[str, str]] = field(default_factory=dict)
    relations: dict[str, str] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)  # kinds of records
    nodes: list[dict] = field(default_factory=list)

    def record(self) -> dict:
        """What the index stores."""
        return {
            "facets": self.facets, "relations": self.relations, "lists": self.lists, "records": self.records,
            "nodes": self.nodes,
        }  # fmt: skip


def _survey(node, reader: Reader) -> str | None:
    """Section of the survey, or a list of sections, as one text: `2, 2.1`."""
    import yaml

    what = "'survey' of a taxonomy node"
    if not isinstance(node, yaml.SequenceNode):
        return reader.text(node, what, optional=True)
    return ", ".join(reader.text(item, what) or "" for item in node.value) or None


def read_taxonomy(text: str, file: str) -> tuple[Taxonomy | None, list[Problem]]:
    """The taxonomy of a YAML text and everything wrong with it; None where the YAML itself can't be read."""
    problems: list[Problem] = []
    reader = Reader(file, problems)
    root = compose(text, file, problems)
    if root is None:
        empty = Problem(file, 1, "empty taxonomy", f"write the sections {', '.join(_SECTIONS)}")
        return None, problems or [empty]

    top = reader.mapping(root, "the taxonomy")
    for name, (key, _) in top.items():
        if name not in _SECTIONS + _OPTIONAL:
            reader.wrong(key, f"unknown section '{name}'", suggestion(name, _SECTIONS + _OPTIONAL))
    for name in _SECTIONS:
        if name not in top:
            reader.wrong(root, f"no section '{name}'", "add it")

    found = Taxonomy()
    if "facets" in top:
        facets = reader.mapping(top["facets"][1], "facets")
        for name, (key, value) in facets.items():
            if name in FACETS:
                found.facets[name] = reader.words(value, f"facet {name}")
            else:
                reader.wrong(key, f"unknown facet '{name}'", suggestion(name, FACETS))
        for name in FACETS:
            if name not in facets:
                reader.wrong(top["facets"][0], f"no vocabulary for facet '{name}'", "list its words under facets")
    if "relations" in top:
        found.relations = reader.words(top["relations"][1], "relations")
    if "lists" in top:
        found.lists = reader.words(top["lists"][1], "lists")
    if "records" in top:
        found.records = reader.words(top["records"][1], "records")
    if "nodes" in top:
        found.nodes = _read_nodes(top["nodes"][1], reader)
    return found, problems


def _read_nodes(root, reader: Reader) -> list[dict]:
    nodes: dict[str, dict] = {}
    yaml_nodes = []
    remedy = "write `- {id: ..., label: ..., zh: ..., about: ..., survey: ...}`"
    for item in reader.items(root, "nodes", remedy):
        fields = reader.mapping(item, "a taxonomy node")
        for name, (key, _) in fields.items():
            if name not in _NODE:
                reader.wrong(key, f"unknown field '{name}' of a taxonomy node", suggestion(name, _NODE))
        values = {}
        for name in _NODE:
            if name == "survey":
                values[name] = _survey(fields[name][1], reader) if name in fields else None
            elif name in fields:
                values[name] = reader.text(fields[name][1], f"'{name}' of a taxonomy node")
            else:
                reader.wrong(item, f"a taxonomy node without '{name}'", "add it")
        id_ = values.get("id")
        if not id_:
            continue
        if not _ID.fullmatch(id_):
            reader.wrong(item, f"bad node id '{id_}'", "use lower-case words joined by '-', levels by '/'")
        elif id_ in nodes:
            reader.wrong(item, f"node '{id_}' stands twice", "remove one of the two")
        else:
            nodes[id_] = {name: values.get(name) for name in _NODE}
            yaml_nodes.append(item)
    for id_, item in zip(nodes, yaml_nodes, strict=True):
        parent = id_.rpartition("/")[0]
        if parent and parent not in nodes:
            reader.wrong(item, f"node '{id_}' has no parent '{parent}'", "add the parent as a node of its own")
    return list(nodes.values())
