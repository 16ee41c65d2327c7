"""Gates as a part of an address: their names and corners, short enough to be passed on."""

from __future__ import annotations

from collections.abc import Sequence

from ui.widgets.scatter import Gate, Polygon

CORNERS = 32
"""A gate has no more corners than this: what was drawn is as exact as the hand was."""
DIGITS = 4


def simplified(corners: Polygon) -> Polygon:
    """A polygon with at most `CORNERS` corners, rounded, so that a link has the same one."""
    kept = [corners[at * len(corners) // CORNERS] for at in range(CORNERS)]
    chosen = corners if len(corners) <= CORNERS else kept
    return tuple((_round(x), _round(y)) for x, y in chosen)


def written(gates: Sequence[Gate]) -> str:
    """Gates as a text that `read` reads."""
    return "|".join(
        f"{gate.name.replace('|', ' ').replace(':', ' ')}:"
        + ";".join(f"{x:.{DIGITS}g},{y:.{DIGITS}g}" for x, y in gate.corners)
        for gate in gates
    )


def read(text: str) -> list[Gate]:
    """The gates that a text names; one that is damaged or is no area is left out."""
    found = []
    for part in text.split("|"):
        name, _, corners = part.partition(":")
        try:
            pairs = [tuple(map(float, pair.split(","))) for pair in corners.split(";")]
            polygon = tuple((x, y) for x, y in pairs)
        except ValueError:
            continue
        if name and 3 <= len(polygon) <= CORNERS:
            found.append(Gate(name[:40], polygon))
    return found


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
