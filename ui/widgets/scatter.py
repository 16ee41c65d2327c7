"""A map of many points that can be moved over, and cut out of by hand: a canvas as a component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.schemas.maps import inside
from ui.widgets.mounting import mount

Polygon = tuple[tuple[float, float], ...]
"""Corners of a gate, in the coordinates of the map."""


@dataclass(frozen=True)
class Kind:
    """How the points of one value are drawn."""

    name: str
    colour: str
    shape: str = "circle"
    strong: bool = False
    """Drawn last, larger, with an outline."""
    faint: bool = False
    """Drawn first, and light."""


@dataclass(frozen=True)
class Gate:
    """A part of the map that was cut out."""

    name: str
    corners: Polygon

    def holds(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which points lie inside, by the even-odd rule (n)."""
        return inside(self.corners, x, y)


@dataclass(frozen=True)
class Drawn:
    """What was done on the map in this run."""

    lasso: Polygon | None = None
    """A part that was just cut out."""
    point: int | None = None
    """A point that was just clicked."""


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    codes: Sequence[int],
    kinds: Sequence[Kind],
    key: str,
    *,
    gates: Sequence[Gate] = (),
    placed: Sequence[tuple[float, float]] = (),
    pictured: tuple[str, Sequence[str]] = ("", ()),
) -> Drawn:
    """Draw points, and say what was done on them in the run that follows.

    Args:
        x: Of each point.
        y: Of each point.
        codes: For each point, which of `kinds` it is.
        kinds: How they are drawn, and what they are called.
        key: A name that no other component on the page has.
        gates: Outlines on the map.
        placed: Cells that are not part of the map, drawn as stars.
        pictured: The address under which the pictures of the points lie, and their ids.
    """
    data = {
        "pictures": pictured[0],
        "ids": list(pictured[1]),
        "x": list(x),
        "y": list(y),
        "codes": list(codes),
        "kinds": [vars(kind) for kind in kinds],
        "gates": [{"name": gate.name, "corners": gate.corners} for gate in gates],
        "placed": [list(place) for place in placed],
        "what": "items",  # for those who do not see them
        "tall": 760,  # CSS pixels; less where the window is lower
    }
    reports = mount("scatter", data, key, "lasso", "point")
    lasso, point = reports.get("lasso"), reports.get("point")
    corners = None if not lasso else tuple((float(a), float(b)) for a, b in lasso["corners"])
    return Drawn(corners, int(point["at"]) if point else None)
