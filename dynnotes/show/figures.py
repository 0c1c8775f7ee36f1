"""Plotly figures and how a page carries them without a kernel: JSON in the page, one shared script, a text fallback.

The map of the field is not a Plotly figure (it is `assets/js/explorer.js`, which works by keyboard); results are.
Plotly is imported inside functions: reading the bibliography must not pay for it.
"""

import json

from .tables import text

BLUE, ORANGE, GREY = "#2a7fb8", "#d9730d", "#8a8f98"  # readable on white and on near-black


def embed(figure: dict, label: str, fallback: str = "") -> str:
    """HTML that `assets/js/plotly-lazy.js` turns into a figure when it nears the screen; `fallback` is already HTML."""
    body = json.dumps(figure, separators=(",", ":")).replace("<", "\\u003c")
    height = int(figure.get("layout", {}).get("height") or 450)
    return (
        f'<div class="dyn-plotly" style="min-height:{height}px" role="figure" aria-label="{text(label)}">'
        f'<script type="application/json">{body}</script>{fallback}'
        "<noscript>This figure is drawn by JavaScript.</noscript></div>"
    )


def label_of(figure: dict) -> str:
    """What a screen reader says for a figure that a notebook made: `layout.meta.aria`, else its title and its axes."""
    layout = figure.get("layout") or {}
    meta = layout.get("meta")
    if isinstance(meta, dict) and meta.get("aria"):
        return str(meta["aria"])

    def title(part):
        value = (layout.get(part) or {}).get("title") if part else layout.get("title")
        return (value.get("text") if isinstance(value, dict) else value) or ""

    kinds = sorted({trace.get("type", "scatter") for trace in figure.get("data") or ()})
    axes = " against ".join(name for name in (title("yaxis"), title("xaxis")) if name)
    return ": ".join(part for part in (title(None) or f"Chart ({', '.join(kinds)})", axes) if part)


def tradeoff(curves, *, title: str = "", x: str = "executed MACs per input", y: str = "accuracy") -> dict:
    """Accuracy against executed MACs, as plain JSON.

    `curves` is a list of {name, x: [..], y: [..], low: [..], high: [..], dash: bool, points: bool, labels: [..]}; low,
    high and labels may be missing; points: no line joins them.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    colours = [BLUE, ORANGE, "#3a9d5d", "#a05bc0", GREY]
    for i, curve in enumerate(curves):
        error = None
        if curve.get("low") and curve.get("high"):
            error = {
                "type": "data",
                "symmetric": False,
                "array": [high - value for high, value in zip(curve["high"], curve["y"], strict=True)],
                "arrayminus": [value - low for low, value in zip(curve["low"], curve["y"], strict=True)],
                "thickness": 1.2,
                "width": 4,
            }
        figure.add_trace(
            go.Scatter(
                x=curve["x"],
                y=curve["y"],
                name=curve["name"],
                text=curve.get("labels"),
                mode="markers" if curve.get("points") else "lines+markers",
                error_y=error,
                line={"color": colours[i % len(colours)], "dash": "dot" if curve.get("dash") else "solid"},
                marker={"symbol": "circle-open" if curve.get("dash") else "circle", "size": 9},
                hovertemplate="%{text}<br>%{x:.3s} MACs<br>%{y:.1%}<extra>%{fullData.name}</extra>"
                if curve.get("labels")
                else "%{x:.3s} MACs<br>%{y:.1%}<extra>%{fullData.name}</extra>",
            )
        )
    # an interval may pass 100%, the axis does not
    reach = [value for curve in curves for part in ("y", "low", "high") for value in curve.get(part) or ()]
    figure.update_layout(
        template="none",
        title={"text": title} if title else None,
        height=380,
        margin={"l": 60, "r": 15, "t": 40 if title else 15, "b": 50},
        legend={"orientation": "h", "y": -0.22},
        xaxis={"title": {"text": x}, "tickformat": ".2s", "rangemode": "tozero"},
        yaxis={"title": {"text": y}, "tickformat": ".0%",
               "range": [max(0, min(reach) - 0.03), min(1, max(reach)) + 0.02] if reach else None},
    )
    return json.loads(figure.to_json())
