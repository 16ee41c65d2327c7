"""Micrometres per pixel, estimated from the one ruler that every smear carries: its red cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ingest.smears.cells import Found, FoundCell, Scale
from search.schemas.items import ScaleOrigin

RED_CELL_UM = 7.5
"""Diameter of a normal red cell on a dried smear in micrometres (7 to 8)."""
ENOUGH = 8
"""Whole red cells below which there is no estimate."""
ROUND = 1.35
"""Sides longer than this against each other are no ruler: two cells, or a cell on its side."""


def whole_red_diameters(cells: Sequence[FoundCell]) -> list[float]:
    """Diameters in pixels of the red cells that are whole and about round.

    The diameter is the geometric mean of the box's sides.
    """
    sides = [cell.bbox[2:] for cell in cells if cell.kind == "red" and not cell.touches_border]
    return [float(np.sqrt(w * h)) for w, h in sides if max(w, h) <= ROUND * min(w, h)]


def estimate_scale(cells: Sequence[FoundCell]) -> Scale | None:
    """Micrometres per pixel from the median diameter of the whole red cells.

    True only as far as the red cells are of normal size: micro- or macrocytosis moves it by as
    much as it moves the cells (60 to 110 fL is 0.9 to 1.1 times the diameter).

    Returns:
        The estimate with its spread and its number of cells; `None` with fewer than `ENOUGH`.
    """
    diameters = whole_red_diameters(cells)
    if len(diameters) < ENOUGH:
        return None
    single = RED_CELL_UM / np.asarray(diameters)
    low, high = np.percentile(single, [25, 75])
    return Scale(
        um_per_px=RED_CELL_UM / float(np.median(diameters)),
        origin="estimate",
        spread=float(high - low),
        n=len(diameters),
    )


def found_at(
    cells: Sequence[FoundCell],
    size: tuple[int, int],
    finder: str,
    um_per_px: float | None,
    origin: ScaleOrigin,
    notes: Mapping[str, int] | None = None,
) -> Found:
    """Cells as found, with the scale that they imply beside the one that was given."""
    estimate = estimate_scale(cells)
    given = None if um_per_px is None else Scale(um_per_px=um_per_px, origin=origin)
    diameters = whole_red_diameters(cells)
    return Found(
        cells=tuple(cells),
        size=size,
        scale=given or estimate,
        estimate=estimate,
        red_diameter_px=float(np.median(diameters)) if diameters else None,
        finder=finder,
        notes=dict(notes or {}),
    )
