"""Two-dimensional maps of a collection, and its batch effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from search.schemas.cases import RecordedGroup
from search.schemas.items import DISCLAIMER, ItemId, NamedRecord, Record
from search.schemas.questions import About

Method = Literal["pca", "tsne", "umap"]


MOST_POINTS = 100_000
"""Items on a map; of larger collections, a part that is drawn the same way every time."""


Origin = Literal["site", "scanner", "stain", "dataset", "patient"]


class OriginShare(Record):
    """One site (or scanner, ...) and how much its items keep to themselves."""

    value: str
    items: int
    """On the map."""
    asked: int
    """Items of it whose neighbours were looked at."""
    share: float
    """Share of their neighbours that are of it."""
    expected: float
    """What that share would be if, among the items of each label, origin did not matter."""


class BatchEffects(Record):
    """How much a collection is ordered by origin, and how much by label."""

    field: Origin
    items: int
    """Compared with."""
    asked: int
    k: int
    share: float | None
    """Share of the neighbours that are of the same origin."""
    expected: float | None
    """What that share would be if, among the items of each label, origin did not matter."""
    label_share: float | None
    """Share of the labelled neighbours that carry the same label."""
    label_expected: float | None
    """What that share would be by chance."""
    robustness: float | None
    """Neighbours of the same label and another origin, against those of another label and the
    same origin: 1 is ordered by label, 0 by origin. The robustness index of PathoROB. `None`
    where it cannot be known, since no item has possible neighbours of both kinds."""
    silhouette_origin: float | None
    """Of the origins, by cosine, -1 to 1: near 0 where they lie through each other."""
    silhouette_label: float | None
    """Of the labels: the higher, the better they are kept apart."""
    origins: tuple[OriginShare, ...]
    """Most items first."""
    notes: tuple[str, ...]
    """What could not be measured, and why."""


class MapWanted(Record):
    """A map to be computed."""

    method: Method = "tsne"
    perplexity: Annotated[float, Field(ge=2, le=200, allow_inf_nan=False)] = 30
    """Of t-SNE: roughly how many neighbours count."""
    neighbours: Annotated[int, Field(ge=2, le=200)] = 15
    """Of UMAP: how many neighbours count."""
    most: Annotated[int, Field(ge=10, le=100_000)] = MOST_POINTS
    """Items on the map; of larger collections, a part."""


class MapColumn(Record):
    """What the points can be coloured by."""

    values: tuple[str, ...]
    codes: tuple[int, ...]
    """For each point the place of its value; -1 where it has none."""


class MapFacts(Record):
    """Which maps there are, and whether they are still valid."""

    method: Method
    items: int
    of: int
    made: str
    seconds: float
    stale: bool


class MapAnswer(Record):
    """A map, column by column."""

    collection: str
    version: str
    fingerprint: str
    encoder: str
    method: Method
    of: int
    """Items of the collection; more than the points where the map shows a part."""
    stale: bool
    """Whether the collection was written to since."""
    made: str
    seconds: float
    perplexity: float | None
    neighbours: int | None = None
    """Of UMAP."""
    explained: tuple[float, ...]
    """PCA: shares of the variance along the two axes."""
    ids: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    columns: dict[str, MapColumn]
    disclaimer: str = DISCLAIMER


class PlaceQuestion(Record):
    """Cells to be placed on a map."""

    method: Method = "pca"
    items: Annotated[tuple[ItemId, ...], Field(max_length=2000)] = ()
    """Ids of stored items."""
    vectors: Annotated[tuple[tuple[float, ...], ...], Field(max_length=2000)] = ()
    """Vectors; `fingerprint` must then say whose they are."""
    fingerprint: str | None = None
    about: About = About()
    """What is known of the cells: items of the same patient do not pull them."""
    k: Annotated[int, Field(ge=1, le=50)] = 10
    """Items of the map that place a cell."""


class PlacedCell(Record):
    """Where a cell lies."""

    x: float
    y: float
    nearest: tuple[str, ...]
    """Ids of its nearest items on the map."""
    score: float
    """Cosine to the nearest: low where the cell is unlike all of the map."""


class PlaceAnswer(Record):
    """Where cells lie on a map."""

    collection: str
    method: Method
    fingerprint: str
    stale: bool
    patient_known: bool
    """Whether items of the same patient could be kept from pulling."""
    cells: tuple[PlacedCell, ...]
    disclaimer: str = DISCLAIMER


Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
"""Far beyond any map, and small enough to be computed with."""
Corners = Annotated[tuple[tuple[Number, Number], ...], Field(min_length=3, max_length=2000)]
"""Corners of a gate, in the coordinates of its map."""
ItemGroup = Literal["label", "site", "stain", "scanner", "dataset", "kind", "case"]
GateGroup = ItemGroup | RecordedGroup
"""What patients are grouped by: a fact of the items, or what is recorded of their cases."""


def inside(
    corners: Sequence[tuple[float, float]], x: NDArray[np.floating], y: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Which points lie inside a polygon, by the even-odd rule (n)."""
    held = np.zeros(len(x), bool)
    ends = list(corners)
    for (x0, y0), (x1, y1) in zip(ends, [*ends[1:], ends[0]], strict=True):
        if y0 == y1:
            continue
        across = (y0 > y) != (y1 > y)
        held ^= across & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return held


class GateWanted(Record):
    """A part of a map that is to be kept."""

    method: Method
    """The map that it was drawn on."""
    corners: Corners
    note: Annotated[str, Field(max_length=500)] = ""
    """What it is, in a person's words."""


class GateRecord(GateWanted, NamedRecord):
    """A part of a map that is kept."""

    map_made: str
    """When its map was computed: on another map its outline means nothing."""
    by: str
    """The key of who kept it."""
    at: str


class GateCount(Record):
    """One group of patients, inside a gate and on the whole map."""

    value: str | None
    """`None`: the items of which the group is not known."""
    cells: int
    of: int
    """Cells of the group on the map."""
    share: float
    patients: int
    """With a cell inside; 0 where no patient is known."""
    of_patients: int


class GateFacts(Record):
    """A gate with what lies inside."""

    gate: GateRecord
    cells: int
    stale: bool
    """Whether its map was computed again since: the outline then has to be drawn anew."""
    counts: tuple[GateCount, ...]
    """Most cells first."""


class Gates(Record):
    """The gates of a collection."""

    collection: str
    by: GateGroup
    gates: tuple[GateFacts, ...]
    disclaimer: str = DISCLAIMER
