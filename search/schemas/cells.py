"""Cells found in a smear field, and a whole field judged cell by cell."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field as Bounds

from search.schemas.answers import Alignment, Exclusion, State
from search.schemas.items import DISCLAIMER, Box, Item, Record, ScaleOrigin


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
    um_per_px_spread: float | None = None
    """Of an estimate: the middle half of the single red cells' um/px."""
    finder: str
    """The finder's name."""
    left_out: int = 0
    """Cells beyond the number wanted."""
    disclaimer: str = DISCLAIMER
    """What the answer is not."""


class JudgedCell(Record):
    """One white cell of a field with the vote of its neighbours, as a search with it gives it."""

    cell: FoundCell
    state: State
    """Whether the vote is shown as one label; `reason` says why, or why not."""
    reason: str
    label: str | None
    """The label with the largest share; `None` if no neighbour carries one."""
    share: float
    """Its share of the vote."""
    probability: float | None
    """Calibrated, as in `VoteAnswer`."""
    nearest: Item | None
    """The most similar stored item."""
    score: float | None
    """Its similarity."""
    warnings: tuple[str, ...]
    """Reasons not to trust this cell's answer, as sentences."""


class CountedLabel(Record):
    """One label of the differential count of a field."""

    label: str
    cells: int
    percent: float | None
    """Of the judged leukocytes; `None` for what is no leukocyte."""


class JudgedField(Record):
    """A whole field: its cells, the vote on each white cell, and their differential count."""

    cells: tuple[JudgedCell, ...]
    """What the finder takes for white cells, by falling score of the finder."""
    counts: tuple[CountedLabel, ...]
    """Leukocytes first, by falling count; only cells whose vote is sure."""
    leukocytes: int
    """Cells with a sure vote for a leukocyte: what the percentages are of."""
    unsure: int
    """White cells without a sure vote; they are in no percentage."""
    erythroblasts: int
    """Cells with a sure vote for a nucleated red cell."""
    erythroblasts_per_100: float | None
    """For every 100 leukocytes; `None` where there are none."""
    red: int
    """Red cells that the finder sees."""
    platelets: int
    """Platelets that the finder sees."""
    left_out: int
    """White cells beyond those that were judged."""
    width: int
    """Of the field, in pixels."""
    height: int
    """Of the field, in pixels."""
    um_per_px: float | None
    """As in `FoundCells`."""
    um_per_px_origin: ScaleOrigin | None
    """As in `FoundCells`."""
    finder: str
    """The finder's name."""
    collection: str
    """Whose items voted."""
    encoder: str
    """Id of the encoder."""
    fingerprint: str
    """Fingerprint of the encoder."""
    k: int
    """Neighbours that voted on each cell."""
    patient_exclusion: Exclusion
    """As in `Answer`: the least strict among the cells."""
    alignment: Alignment | None = None
    """How most of the cells were aligned; `None` where the index aligns no sites."""
    warnings: tuple[str, ...]
    """Of the whole field, as sentences."""
    disclaimer: str = DISCLAIMER
    """What the answer is not."""
