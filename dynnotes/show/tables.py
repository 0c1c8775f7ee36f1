"""Generated tables and lists, as HTML strings: everything that came from data goes through `text` first.

Nothing here imports torch or plotly; a page of the book, a notebook and a test can all call it.
"""

import html
import re

FACETS = ("kind", "adapts", "unit", "decision", "training", "executes", "modality", "tasks")


def text(value) -> str:
    """HTML-escape `value` as one line; its backticks become entities, so it cannot end the raw block it stands in."""
    return html.escape(re.sub(r"\s+", " ", str(value)).strip(), quote=True).replace("`", "&#96;")


def preformatted(value) -> str:
    """`text` that keeps its spaces and line breaks, for `<pre>`."""
    return html.escape(str(value), quote=True).replace("`", "&#96;")


def attribute(url) -> str:
    """A link target: web addresses and relative paths pass; any other scheme (`javascript:`) becomes `#`."""
    url = re.sub(r"[\x00-\x20]", "", str(url))  # browsers ignore control characters inside a scheme: so do we
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
    return text(url) if not scheme or scheme[1].lower() in ("http", "https") else "#"


def link(url, label, **more) -> str:
    """`<a href>` with an escaped label; keyword arguments become attributes (`rel=`, `title=`)."""
    extra = "".join(f' {name}="{text(value)}"' for name, value in more.items() if value)
    return f'<a href="{attribute(url)}"{extra}>{text(label)}</a>'


def words(paper, facet: str) -> tuple[str, ...]:
    """The words of one facet of a paper, always as a tuple."""
    value = getattr(paper, facet, ()) or ()
    return (value,) if isinstance(value, str) else tuple(value)


def authors(paper, most: int = 0) -> str:
    """'A, B and C', or 'A et al.' when there are more than `most` (0: never shortened). Not escaped."""
    names = list(paper.authors)
    if most and len(names) > most:
        return f"{names[0]} et al."
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def table(head, rows, *, caption: str = "", classes: str = "dyn-table") -> str:
    """An HTML table from cells that are already HTML; the first cell of a row is its header."""
    lines = [f'<div class="dyn-scroll" tabindex="0" role="region" aria-label="{text(caption or "table")}">']
    lines += [f'<table class="{classes}">', f"<caption>{text(caption)}</caption>" if caption else ""]
    lines.append("<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead><tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return "\n".join([line for line in lines if line] + ["</tbody></table></div>"])


def number(value, unit: str = "") -> str:
    """A figure for a reader: 1234567 -> '1.23 M'. None -> an en dash."""
    if value is None:
        return "–"
    value = float(value)
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}".strip()
    return f"{value:.3g} {unit}".strip()


def percent(value) -> str:
    """0.9312 -> '93.1 %'; None -> an en dash."""
    return "–" if value is None else f"{100 * float(value):.1f} %"
