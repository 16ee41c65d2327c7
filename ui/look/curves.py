"""Small charts as SVG, in the colours of the page by day and night, with their figures in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SIDE = 320
EDGE = 52
"""Room for the axes, in units of the drawing."""


@dataclass(frozen=True)
class Line:
    """A line of points between 0 and 1."""

    name: str
    points: Sequence[tuple[float, float]]
    first: bool = True
    """In the accent colour; else in grey, and dashed, so that colour is not the only sign."""


def chart(
    lines: Sequence[Line],
    across: str,
    up: str,
    *,
    diagonal: bool = False,
    low: float = 0.0,
) -> str:
    """Lines over axes from 0 to 1.

    Args:
        lines: What is drawn.
        across: Words of the axis across.
        up: Words of the axis up.
        diagonal: Draw where both are equal.
        low: Where the axis up begins.
    """
    inner = SIDE - 2 * EDGE

    def place(x: float, y: float) -> tuple[float, float]:
        part = (min(max(y, low), 1.0) - low) / (1 - low)
        return EDGE + x * inner, SIDE - EDGE - part * inner

    parts = []
    for at in range(5):
        share = at / 4
        x, _ = place(share, low)
        y = SIDE - EDGE - share * inner
        value = low + share * (1 - low)
        parts.append(
            f'<line class="hs-axis" x1="{EDGE}" x2="{SIDE - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{EDGE - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.0%}</text>'
            f'<text x="{x:.1f}" y="{SIDE - EDGE + 16}" text-anchor="middle">{share:.0%}</text>'
        )
    if diagonal:
        (x0, y0), (x1, y1) = place(low, low), place(1, 1)
        parts.append(f'<line class="hs-diagonal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    for line in lines:
        if not line.points:
            continue
        kind = "hs-line" if line.first else "hs-line hs-second"
        places = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places[:20])
        parts.append(
            f'<g class="{kind}"><title>{escape(line.name)}</title>'
            f'<polyline points="{path}"/>{dots if len(places) <= 20 else ""}</g>'
        )
    said = "; ".join(
        f"{line.name}: " + ", ".join(f"{x:.0%} to {y:.0%}" for x, y in _few(line.points))
        for line in lines
    )
    return (
        f'<svg class="hs-chart" viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="{escape(f"{up} against {across}. {said}")}">{"".join(parts)}'
        f'<text x="{SIDE / 2}" y="{SIDE - 4}" text-anchor="middle">{escape(across)}</text>'
        f'<text x="10" y="{SIDE / 2}" text-anchor="middle" '
        f'transform="rotate(-90 10 {SIDE / 2})">{escape(up)}</text></svg>'
    )


def _few(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, len(points) // 6)
    return list(points[::step])
