"""Cells found in a smear field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field as Bounds

from search.schemas.items import DISCLAIMER, Box, Record, ScaleOrigin


class Field(Record):
    """What is known of a field; sent beside the picture as `question`."""

    um_per_px: Annotated[float, Bounds(gt=0, le=1000, allow_inf_nan=False)] | None = None
    """Micrometres per pixel, where they are known."""


class FoundCell(Record):
    """One cell of a field."""

    kind: Literal["white", "red", "platelet"]
    """What the finder takes it for."""
    bbox: Box
    """The cell itself, in pixels of the field."""
    crop: Box
    """The square that an ingest would cut around it; it may hang over the border. As
    `Question.crop`, it queries with this cell as with a stored one."""
    score: Annotated[float, Bounds(ge=0, le=1)]
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
    """Cells beyond the number wanted."""
    disclaimer: str = DISCLAIMER
    """What the answer is not."""
