"""Collections: facts, facets, and items written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from search.schemas.items import Item, ItemId, Record


class CollectionFacts(Record):
    """One collection."""

    name: str
    items: int
    encoder: str
    fingerprint: str
    dim: int
    default: bool
    """Whether it is searched when none is named."""


class Facets(Record):
    """Values of a field with their counts, most frequent first."""

    field: str
    values: dict[str, int]


class Ids(Record):
    """Ids to look up."""

    ids: Annotated[tuple[ItemId, ...], Field(max_length=20_000)]


class Known(Record):
    """Payload digests of the ids that are stored."""

    known: dict[str, str]


class Items(Record):
    """Items whose metadata is to be replaced."""

    items: Annotated[tuple[Item, ...], Field(max_length=20_000)]


class Written(Record):
    """What a write changed."""

    stored: int
    updated: int
    unchanged: int


class Built(Record):
    """What a build of the index measured."""

    points: int
    seconds: float
    recall: float
    filtered_recall: float
    sample: int
