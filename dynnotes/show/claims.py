"""What a paper claims and what became of it here, as the card on its page.

The claim stands in the docstring of the paper's module (`Claim: ... Smallest setting: ...`, and `Left out: ...`); what
became of it is computed by `evidence.verdict` from the result files, in three rules that are the same for all papers.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dynnotes.learn import evidence

from .tables import link, percent, text

RECEIPT = "../book/receipt.html"
JUDGED = f"{RECEIPT}#how-a-claim-is-judged"
VERDICT = {  # the word of `evidence.verdict`: (as a reader sees it, tone of the badge)
    "reproduced": ("reproduced", "dyn-yes"),
    "partly": ("partly reproduced", "dyn-doubt"),
    "not": ("not reproduced", "dyn-doubt"),
    "open": ("not judged", ""),
}
RULE = {  # a name in `evidence.RULES`, as a reader sees it
    "cheaper": "Cheaper than static nets of the same accuracy",
    "harder": "More spent on harder inputs",
    "realised": "Saved MACs are saved time",
    "sooner": "Same answers in less time",
}


class Said(NamedTuple):
    """What the docstring of a paper's module says of its claim; a part that it lacks is empty."""

    claim: str
    setting: str
    left_out: str


def said(docstring: str) -> Said:
    """The parts of a docstring: its claim, the smallest setting where that should show, what was left out."""
    claim, _, setting = _paragraph(docstring, "Claim").partition("Smallest setting: ")
    left_out = re.split(r"(?:^|(?<=[.:;] ))(?:Different|Added): ", _paragraph(docstring, "Left out"))[0]
    return Said(claim.strip(), setting.strip(), left_out.strip())


def said_by(source) -> Said:
    """`said` of the file of a paper's module (`registry.Source`)."""
    return said(ast.get_docstring(ast.parse(Path(source.file).read_text(encoding="utf-8"))) or "")


def without_claim(docstring: str) -> str:
    """The docstring as "How it works" shows it: its claim stands on the card."""
    return "\n\n".join(part for part in docstring.split("\n\n") if not part.startswith("Claim: "))


def _paragraph(docstring: str, name: str) -> str:
    """The paragraph that begins with `name: `, as one line without these words."""
    for part in docstring.split("\n\n"):
        if part.startswith(f"{name}: "):
            return " ".join(part.split()).removeprefix(f"{name}: ")
    return ""


def prose(words: str) -> str:
    """A docstring's sentences as HTML: code in backticks, formulas between dollars as Sphinx marks them."""
    safe = html.escape(" ".join(words.split()), quote=True)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe).replace("`", "&#96;")
    return re.sub(r"\$([^$]+)\$", r'<span class="math notranslate nohighlight">\(\1\)</span>', safe)


def card(words: Said) -> str:
    """The first half of the card: what the paper claims, where that should show, what is not here."""
    parts = [("The paper claims", words.claim), ("Smallest setting", words.setting), ("Left out", words.left_out)]
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{prose(body[:1].upper() + body[1:])}</dd></div>" for name, body in parts if body
    )
    return f'<dl class="dyn-claim">{rows}</dl>' if rows else ""


def judgement(result: Mapping, found: Mapping, stale: bool) -> str:
    """The second half, once per task: verdict, our figures, and each rule with how it came out and why.

    found: what `evidence.verdict` made of `result`.
    """
    name, tone = VERDICT[found["verdict"]]
    badges = f'<span class="dyn-badge {tone}">{name}</span>'
    if stale:
        badges += ' <span class="dyn-badge dyn-doubt">stale: the code changed since this was measured</span>'
    rules = "".join(_rule(claim) for claim in found["claims"])
    more = f'{link(JUDGED, "How a claim is judged")} · {link(RECEIPT, "What a receipt says")}'
    return (
        f'<div class="dyn-judged"><p class="dyn-badges">{badges}</p><p>{text(figures(result))}</p>'
        f'<ul class="dyn-rules">{rules}</ul><p class="dyn-small">{more}</p></div>'
    )


def outcome(claim: evidence.Claim) -> str:
    """How a rule came out, in words."""
    if claim.holds is None:
        return "cannot be told" if claim.applies else "does not apply"
    return "holds" if claim.holds else "does not hold"


def _rule(claim: evidence.Claim) -> str:
    tone = {True: " dyn-yes", False: " dyn-doubt", None: ""}[claim.holds]
    return (
        f'<li><strong>{RULE[claim.rule]}</strong> <span class="dyn-badge{tone}">{outcome(claim)}</span>'
        f"<br>{text(claim.text)}</li>"
    )


def figures(result: Mapping) -> str:
    """Our figures in a sentence or two: accuracy and share of all MACs of the trained net, time of the timing net."""
    points, full = evidence.summary(result), result["full"]
    seeds = len({run["seed"] for run in result["runs"]})
    accuracy = _range([p.accuracy.mean for p in points])
    share = _range([p.macs.mean / full for p in points])
    many = f"{len(points)} budget{'s' * (len(points) != 1)}, " if result["budget"] else ""
    words = [f"Here, on {result['task']}: {accuracy} accuracy with {share} of all MACs "
             f"({many}{seeds} seed{'s' * (seeds != 1)})."]  # fmt: skip
    receipts = [r for r in map(evidence.Receipt.of, result["receipts"]) if r.saving_macs > 0 and not r.void]
    if receipts:
        times = ", ".join(f"{percent(r.time_ratio)} of the time at batch {r.batch}" for r in receipts)
        part = percent(receipts[0].executed / receipts[0].full)
        words.append(f"A larger net for timing takes {times} with {part} of its MACs; the trained net is small, its "
                     "time is not judged.")  # fmt: skip
    return " ".join(words)


def _range(values: list[float]) -> str:
    low, high = percent(min(values)), percent(max(values))
    return low if low == high else f"{low} to {high}"


# The command `dynnotes verdict` -------------------------------------------------------------------------------------


def records(kb, sources: Mapping, folder: Path, key: str | None = None) -> list[dict]:
    """One record per implemented paper and task, in the order of the taxonomy; `key`: of one paper.

    A paper without a result has one record whose task and verdict are None. Raises evidence.ResultError.
    """
    found = []
    for own in sorted(sources if key is None else [key], key=lambda k: (kb[k].node, k)):
        paper, words = kb[own], said_by(sources[own])
        head = {"key": own, "method": paper.method, "claim": words.claim, "setting": words.setting}
        paths = [path for path in (folder / f"{own}.json", *sorted(folder.glob(f"{own}.*.json"))) if path.is_file()]
        for path in paths:
            result = evidence.load_result(path)
            judged = evidence.verdict(result, evidence.load_static(result, folder))
            rules = [{"rule": c.rule, "outcome": outcome(c), "holds": c.holds, "applies": c.applies, "why": c.text}
                     for c in judged["claims"]]  # fmt: skip
            found.append(head | {"task": result["task"], "verdict": judged["verdict"],
                                 "stale": evidence.is_stale(result), "rules": rules})  # fmt: skip
        if not paths:
            found.append(head | {"task": None, "verdict": None, "stale": None, "rules": []})
    return found


def listed(rows: list[dict]) -> list[str]:
    """The records as lines of a table; the third rule of a system is its own, `sooner`."""
    head = ["paper", "task", "verdict", "cheaper", "harder", "realised"]
    cells = [
        [row["method"], row["task"] or "-", _verdict(row), *(_short(rule) for rule in row["rules"] or [None] * 3)]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *cells]
    ]
    return [*lines, "", "yes: the rule holds; no: it does not; ?: it cannot be told; -: it does not apply; "
            "sooner: of a system"]  # fmt: skip


def _verdict(row: dict) -> str:
    return "not measured" if row["verdict"] is None else VERDICT[row["verdict"]][0] + ", stale" * row["stale"]


def _short(rule: dict | None) -> str:
    if rule is None:
        return "-"
    mark = {True: "yes", False: "no", None: "?" if rule["applies"] else "-"}[rule["holds"]]
    return f"{mark} (sooner)" if rule["rule"] == "sooner" else mark


def told(rows: list[dict]) -> list[str]:
    """All that is known of one paper's claim, as lines."""
    lines = []
    for name, part in (("claim", rows[0]["claim"]), ("smallest setting", rows[0]["setting"])):
        lines += [f"{name}: {part}"] if part else []
    for row in rows:
        lines += ["", f"{row['method']} on {row['task']}: {_verdict(row)}" if row["task"] else _verdict(row)]
        lines += [f"  {RULE[rule['rule']]}: {rule['outcome']}. {rule['why']}" for rule in row["rules"]]
    return lines
