"""bib/taxonomy.yml: the tree of the field and the closed vocabularies. Read only when the index is rebuilt."""

import re
from dataclasses import dataclass, field

from .problems import Problem, suggestion
from .schema import FACETS

_SECTIONS = ("facets", "relations", "lists", "nodes")
_NODE = ("id", "label", "zh", "about", "survey")
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)*")


@dataclass
class Taxonomy:
    """Vocabularies as {facet: {word: one line}} and nodes as a list of dicts, in display order."""

    facets: dict[str, dict[str, str]] = field(default_factory=dict)
    relations: dict[str, str] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)
    nodes: list[dict] = field(default_factory=list)

    def record(self) -> dict:
        """What the index stores."""
        return {"facets": self.facets, "relations": self.relations, "lists": self.lists, "nodes": self.nodes}


class _Reader:
    """Walks YAML *nodes* rather than values: each knows its line, and `no`, `3d` or `2.10` stay the words they are."""

    def __init__(self, file: str, problems: list[Problem]):
        self.file, self.problems = file, problems

    def wrong(self, node, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, what, remedy))

    def mapping(self, node, what: str) -> dict:
        """{key: (key node, value node)} of a YAML mapping; reports anything else and doubled keys."""
        import yaml

        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} is not a mapping", "write `word: value` lines")
            return {}
        found = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong(key, f"a key of {what} is not a word", "write `word: value` lines")
            elif key.value in found:
                self.wrong(key, f"'{key.value}' stands twice in {what}", "remove one of the two")
            else:
                found[key.value] = (key, value)
        return found

    def text(self, node, what: str, optional: bool = False) -> str | None:
        """A scalar as written, on one line; None where YAML says null."""
        import yaml

        if isinstance(node, yaml.ScalarNode):
            if node.tag != "tag:yaml.org,2002:null" and node.value.strip():
                return " ".join(node.value.split())
            if optional:
                return None
        self.wrong(node, f"{what} has no text", "write one line that explains it")
        return None

    def survey(self, node) -> str | None:
        """Section of the survey, or a list of sections, as one text: `2, 2.1`."""
        import yaml

        if not isinstance(node, yaml.SequenceNode):
            return self.text(node, "'survey' of a taxonomy node", optional=True)
        return ", ".join(self.text(item, "'survey' of a taxonomy node") or "" for item in node.value) or None

    def words(self, node, what: str) -> dict[str, str]:
        """A vocabulary: {word: one line}."""
        return {
            word: self.text(value, f"'{word}' in {what}") or "" for word, (_, value) in self.mapping(node, what).items()
        }


def read_taxonomy(text: str, file: str) -> tuple[Taxonomy | None, list[Problem]]:
    """The taxonomy of a YAML text and everything wrong with it; None where the YAML itself can't be read."""
    import yaml

    problems: list[Problem] = []
    reader = _Reader(file, problems)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        line = mark.line + 1 if mark else 1
        return None, [Problem(file, line, f"not YAML ({what})", "mend the line (quotes, indentation)")]
    if root is None:
        return None, [Problem(file, 1, "empty taxonomy", f"write the sections {', '.join(_SECTIONS)}")]

    top = reader.mapping(root, "the taxonomy")
    for name, (key, _) in top.items():
        if name not in _SECTIONS:
            reader.wrong(key, f"unknown section '{name}'", suggestion(name, _SECTIONS))
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
    if "nodes" in top:
        found.nodes = _read_nodes(top["nodes"][1], reader)
    return found, problems


def _read_nodes(root, reader: _Reader) -> list[dict]:
    import yaml

    if not isinstance(root, yaml.SequenceNode):
        reader.wrong(root, "nodes is not a list", "write `- {id: ..., label: ..., zh: ..., about: ..., survey: ...}`")
        return []
    nodes: dict[str, dict] = {}
    yaml_nodes = []
    for item in root.value:
        fields = reader.mapping(item, "a taxonomy node")
        for name, (key, _) in fields.items():
            if name not in _NODE:
                reader.wrong(key, f"unknown field '{name}' of a taxonomy node", suggestion(name, _NODE))
        values = {}
        for name in _NODE:
            if name == "survey":
                values[name] = reader.survey(fields[name][1]) if name in fields else None
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
