"""Cells found in a field, as the service tells them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.schemas.items import DISCLAIMER, Box, Record, ScaleOrigin


class FoundCell(Record):
    """One cell of a field."""

    kind: Literal["white", "red", "platelet"]
    """What the finder takes it for."""
    bbox: Box
    """The cell itself, in pixels of the field."""
    crop: Box
    """The square that an ingest would cut around it; it may hang over the border. As
    `Question.crop`, it asks with this cell as a stored one would be asked with."""
    score: Annotated[float, Field(ge=0, le=1)]
    """How well the picture supports it; comparable within one finder only."""
    touches_border: bool
    """Whether the field cuts it."""


class FoundCells(Record):
    """All cells of a field."""

    cells: tuple[FoundCell, ...]
    """White cells first, then red cells, then platelets; each by falling score."""
    width: int
    """Of the field, in pixels."""
    height: int
    """Of the field, in pixels."""
    um_per_px: float | None
    """The scale that was given, else the estimate; `None` with too few whole red cells."""
    um_per_px_origin: ScaleOrigin | None
    """Where the scale comes from; an estimate is never shown as a fact."""
    finder: str
    """The finder's name."""
    left_out: int = 0
    """Cells beyond the number asked for."""
    disclaimer: str = DISCLAIMER
    """What the answer is not."""
