"""The default finder: nuclei by colour, red cells by their outlines; offline, no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from encoder.contract import RGB
from ingest.smears.cells import KINDS, CellKind, FinderError, Found, FoundCell
from ingest.smears.density import Background, Planes, resized
from ingest.smears.diameter import usual_diameter
from ingest.smears.nuclei import NuclearRule, Rectangle, stained_cells
from ingest.smears.redcells import RedRule, red_cells
from ingest.smears.scale import RED_CELL_UM, found_at, whole_red_diameters
from search.schemas.items import ScaleOrigin

WORK_PX = 24.0
"""Pixels per red-cell diameter at which a field is worked on."""
BLOCK_PX = 1024
"""Side of the part of a field, in working pixels, that is in memory at once."""
OVERLAP = 2.5
"""By how many red-cell diameters such parts reach into each other."""
COARSEST = 6.0
"""Pixels per red-cell diameter below which no outline is left."""

Sketch = tuple[CellKind, Rectangle, float]
"""A cell before it is placed in the field: kind, box in working pixels, score."""


@dataclass(frozen=True, kw_only=True)
class Classical:
    """Finds cells by optical density; the same rules for every camera and stain."""

    id: str = "classical"
    """Its name in the list of finders."""
    nuclei: NuclearRule = field(default_factory=NuclearRule)
    """What is a white cell and what a platelet."""
    reds: RedRule = field(default_factory=RedRule)
    """What is a red cell."""

    def find(
        self, image: RGB, um_per_px: float | None = None, origin: ScaleOrigin = "manifest"
    ) -> Found:
        """Find the cells of a field.

        Args:
            image: Height x width x 3, uint8, RGB, any size.
            um_per_px: The field's scale where it is known; else the size of the red cells is
                read from the picture.
            origin: Where `um_per_px` comes from.

        Raises:
            FinderError: a scale at which red cells are smaller than `COARSEST` pixels.
        """
        background = Background.of(image)
        diameter = _given(um_per_px) if um_per_px else usual_diameter(image, background)
        size = (image.shape[1], image.shape[0])
        if diameter is None:
            return found_at((), size, self.id, um_per_px, origin)
        cells, notes = self._at(image, background, diameter)
        measured = whole_red_diameters(cells)
        if um_per_px is None and len(measured) >= 3:
            real = float(np.median(measured))
            if not 0.77 < real / diameter < 1.3:  # the first look misjudged: work at the real size
                cells, notes = self._at(image, background, real)
        return found_at(cells, size, self.id, um_per_px, origin, notes)

    def _at(
        self, image: RGB, background: Background, diameter: float
    ) -> tuple[list[FoundCell], Counter[str]]:
        """The cells of a field whose red cells are about `diameter` pixels wide."""
        scale = min(2.0 if diameter < WORK_PX / 2 else 1.0, WORK_PX / diameter)
        cells: list[FoundCell] = []
        notes: Counter[str] = Counter()
        for part, core in _blocks(image.shape[1], image.shape[0], scale, diameter):
            left, top, right, bottom = part
            small = resized(image[top:bottom, left:right], scale)
            height, width = image.shape[:2]
            window = (left / width, top / height, right / width, bottom / height)
            planes = background.planes(small, max(0.7, 0.03 * diameter * scale), window)
            if planes is None:
                continue
            zoom = ((right - left) / small.shape[1], (bottom - top) / small.shape[0])
            for cell in self._in(planes, diameter * scale, notes):
                whole = _in_field(cell, (left, top), zoom, (width, height))
                x, y = whole.centre
                if core[0] <= x < core[2] and core[1] <= y < core[3]:
                    cells.append(whole)
        cells.sort(key=lambda cell: (KINDS.index(cell.kind), -cell.score, cell.bbox))
        return cells, notes

    def _in(self, planes: Planes, diameter: float, notes: Counter[str]) -> Iterator[Sketch]:
        """Kind, box and score of every cell of one part."""
        stained, specks = stained_cells(planes, diameter, self.nuclei)
        reds, weak = red_cells(planes, [cell.box for cell in stained], diameter, self.reds)
        notes["stained specks smaller than a platelet"] += specks
        notes["outlines too weak for a red cell"] += weak
        for cell in stained:
            yield cell.kind, cell.box, cell.score
        for red in reds:
            yield "red", red.box, red.score


def _given(um_per_px: float) -> float:
    """Red-cell diameter in pixels at a known scale."""
    diameter = RED_CELL_UM / um_per_px
    if diameter < COARSEST:
        raise FinderError(
            f"at {um_per_px:g} um per pixel a red cell is {diameter:.1f} pixels wide; at least "
            f"{COARSEST:g} are needed: check the scale, or use a picture of higher power"
        )
    return diameter


def _blocks(
    width: int, height: int, scale: float, diameter: float
) -> Iterator[tuple[tuple[int, int, int, int], tuple[float, float, float, float]]]:
    """Overlapping parts of a field, and the core of each: cores cover the plane once."""
    reach = int(np.ceil(OVERLAP * diameter))
    step = max(int(BLOCK_PX / scale) - 2 * reach, 2 * reach)
    columns, rows = _cuts(width, step, reach), _cuts(height, step, reach)
    for y0, y1 in pairwise(rows):
        for x0, x1 in pairwise(columns):
            part = (
                max(0, x0 - reach),
                max(0, y0 - reach),
                min(width, x1 + reach),
                min(height, y1 + reach),
            )
            yield part, (x0, y0, x1 + (x1 == width), y1 + (y1 == height))


def _cuts(length: int, step: int, reach: int) -> list[int]:
    """Where cores begin and end along one side; a short rest is not cut off."""
    parts = max(1, round((length - 2 * reach) / step))
    return [round(length * at / parts) for at in range(parts + 1)]


def _in_field(
    cell: Sketch,
    corner: tuple[int, int],
    zoom: tuple[float, float],
    size: tuple[int, int],
) -> FoundCell:
    """A cell of a part, in whole pixels of the field."""
    kind, box, score = cell
    ends = []
    for axis in (0, 1):
        low = corner[axis] + box[axis] * zoom[axis]
        high = corner[axis] + box[axis + 2] * zoom[axis]
        low_px = int(np.clip(round(low), 0, size[axis] - 1))
        high_px = int(np.clip(round(high), low_px + 1, size[axis]))
        slack = zoom[axis]
        ends.append((low_px, high_px, low <= slack or high >= size[axis] - slack))
    (x0, x1, cut_x), (y0, y1, cut_y) = ends
    return FoundCell(
        kind=kind,
        bbox=(x0, y0, x1 - x0, y1 - y0),
        score=round(score, 4),
        touches_border=bool(cut_x or cut_y),
    )
