"""YAML read as *nodes* rather than values: each knows its line, and `no`, `3d` or `2.10` stay the words they are."""

from .problems import Problem


def compose(text: str, file: str, problems: list[Problem]):
    """The root node of a YAML text; None where it is empty, or can't be read, which is then among the problems."""
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        line = mark.line + 1 if mark else 1
        problems.append(Problem(file, line, f"not YAML ({what})", "mend the line (quotes, indentation)"))
    except RecursionError:
        problems.append(Problem(file, 1, "nested too deeply to be read", "remove brackets, or some of the levels"))
    return None


class Reader:
    """Takes nodes of one file apart; what has another shape goes to the problems with its line."""

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

    def items(self, node, what: str, remedy: str) -> list:
        """The nodes of a YAML list; reports anything else."""
        import yaml

        if isinstance(node, yaml.SequenceNode):
            return node.value
        self.wrong(node, f"{what} is not a list", remedy)
        return []

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

    def words(self, node, what: str) -> dict[str, str]:
        """A vocabulary: {word: one line}."""
        return {
            word: self.text(value, f"'{word}' in {what}") or "" for word, (_, value) in self.mapping(node, what).items()
        }
