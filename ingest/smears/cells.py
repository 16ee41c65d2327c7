"""The words of cell finding: a found cell, the scale of a field, and all that was found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from search.schemas.items import ScaleOrigin

CellKind = Literal["white", "red", "platelet"]
KINDS: tuple[CellKind, ...] = ("white", "red", "platelet")
"""Every kind of cell that a finder may report."""


class FinderError(RuntimeError):
    """A finder that is not known or not installed, or a picture it cannot take."""


@dataclass(frozen=True, kw_only=True)
class FoundCell:
    """One cell of a field."""

    kind: CellKind
    """White cell, red cell or platelet."""
    bbox: tuple[int, int, int, int]
    """x, y, width, height in pixels of the field; always inside it, at least 1 x 1."""
    score: float
    """How well the picture supports it, 0 to 1; comparable within one finder only."""
    touches_border: bool
    """Whether the field cuts it, so that the box is smaller than the cell."""

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box: x, y in pixels."""
        x, y, w, h = self.bbox
        return x + w / 2, y + h / 2


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Micrometres per pixel, and how far to trust them."""

    um_per_px: float
    """Micrometres per pixel of the field."""
    origin: ScaleOrigin
    """Where it comes from; an estimate is never shown as a fact."""
    spread: float | None = None
    """Of an estimate: the middle half of the single cells' um/px (75th less 25th percentile)."""
    n: int | None = None
    """Of an estimate: the whole red cells it was read from."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that a finder found in one field."""

    cells: tuple[FoundCell, ...]
    """White cells first, then red cells, then platelets; each by falling score."""
    size: tuple[int, int]
    """Width and height of the field in pixels."""
    scale: Scale | None
    """The scale that was given; else the estimate; `None` with too few whole red cells."""
    estimate: Scale | None
    """What the red cells say, also where a scale was given: the two should agree."""
    red_diameter_px: float | None
    """Median diameter of the whole red cells in pixels, however few; `None` without any."""
    finder: str
    """The finder's name in the list of finders."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was seen and not kept: reason to count."""

    def of(self, kind: CellKind) -> tuple[FoundCell, ...]:
        """The cells of one kind."""
        return tuple(cell for cell in self.cells if cell.kind == kind)
