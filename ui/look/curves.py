"""Curves as SVG: on the page in its colours by day and night, or as a file of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

SIDE = 320
EDGE = 52
"""Room for the axes, in units of the drawing."""
MOST_DOTS = 20
"""Longer curves are drawn without a dot at each point."""
INK, FAINT = "#334155", "#cbd5e1"
COLOURS = ("#0f766e", "#b45309", "#7c3aed", "#be123c")
FILE_STYLE = "".join(
    [
        f".hs-chart text{{fill:{INK};font:10px sans-serif}}.hs-axis{{stroke:{FAINT}}}",
        f".hs-diagonal{{stroke:{FAINT};stroke-dasharray:4 3}}",
        ".hs-line polyline{fill:none;stroke-width:2}",
        *(
            f".hs-line-{at} polyline{{stroke:{one}}}.hs-line-{at} circle,"
            f".hs-chart .hs-line-{at} text{{fill:{one}}}"
            for at, one in enumerate(COLOURS)
        ),
    ]
)
Points = Sequence[tuple[float, float]]


def chart(
    lines: Mapping[str, Points],
    across: str,
    up: str,
    *,
    diagonal: bool = False,
    low: float = 0.0,
    across_ends: tuple[str, str] | None = None,
) -> str:
    """Curves over axes from 0 to 1, their figures in words for screen readers.

    Args:
        lines: The points of each curve (both coordinates 0 to 1), by its name.
        across: Name of the horizontal axis.
        up: Name of the vertical axis.
        diagonal: Draw where both are equal.
        low: Where the vertical axis begins.
        across_ends: Words under both ends of the horizontal axis, in place of shares.
    """
    inner = SIDE - 2 * EDGE

    def place(x: float, y: float) -> tuple[float, float]:
        part = (min(max(y, low), 1.0) - low) / (1 - low)
        return EDGE + x * inner, SIDE - EDGE - part * inner

    parts = []
    for step in range(5):
        share = step / 4
        x, y = place(share, low + share * (1 - low))
        parts.append(
            f'<line class="hs-axis" x1="{EDGE}" x2="{SIDE - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + _text(EDGE - 8, y + 4, f"{low + share * (1 - low):.0%}", "end")
            + _text(x, SIDE - EDGE + 16, _under(step, across_ends))
        )
    if diagonal:
        (x0, y0), (x1, y1) = place(low, low), place(1, 1)
        parts.append(f'<line class="hs-diagonal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    for at, (name, points) in enumerate(lines.items()):
        places = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
        end, anchor = (SIDE - EDGE - 4, "end") if diagonal else (EDGE + 4, "start")
        parts.append(
            f'<g class="hs-line hs-line-{at}"><polyline points="{path}"/>'
            f"{dots if len(places) <= MOST_DOTS else ''}"
            f"{_text(end, SIDE - EDGE - 8 - 14 * at, name, anchor)}</g>"
        )
    words = "; ".join(
        f"{name}: "
        + ", ".join(f"{x:.0%} to {y:.0%}" for x, y in points[:: max(1, len(points) // 6)])
        for name, points in lines.items()
    )
    return (
        f'<svg class="hs-chart" viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="{escape(f"{up} against {across}. {words}")}">{"".join(parts)}'
        f"{_text(SIDE / 2, SIDE - 4, across)}"
        f'<g transform="rotate(-90 10 {SIDE / 2})">{_text(10, SIDE / 2, up)}</g></svg>'
    )


def _under(step: int, ends: tuple[str, str] | None) -> str:
    """What stands under one of the five marks of the horizontal axis."""
    if ends is None:
        return f"{step / 4:.0%}"
    return {0: ends[0], 4: ends[1]}.get(step, "")


def as_file(drawing: str) -> str:
    """A chart as an SVG file, with colours of its own on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}"'
    opened = drawing.replace("<svg", head, 1)
    ground = f'<style>{FILE_STYLE}</style><rect width="{SIDE}" height="{SIDE}" fill="#ffffff"/>'
    return opened.replace(">", f">{ground}", 1) + "\n"


def _figures(points: Points) -> str:
    few = points[:: max(1, len(points) // 6)]
    return ", ".join(f"{x:.0%} to {y:.0%}" for x, y in few)


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
