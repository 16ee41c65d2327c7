"""Two-dimensional maps of a collection, and its batch effects."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.schemas.items import DISCLAIMER, ItemId, Record
from search.schemas.questions import About

Method = Literal["pca", "tsne"]


MOST_POINTS = 20_000
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
    """Share of the neighbours that carry the same label."""
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
