"""Labels given by reviewers, and pages of stored items."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from search.schemas.filters import Filter
from search.schemas.items import Item, ItemId, Record, Text


class Said(Record):
    """A reviewer's label of one item."""

    item: ItemId
    label: Text | None
    """The label; `null` withdraws the reviewer's earlier one."""
    note: Annotated[str, Field(min_length=1, max_length=500)] | None = None


class ReviewsWanted(Record):
    """Reviews to be added."""

    reviews: Annotated[tuple[Said, ...], Field(min_length=1, max_length=5000)]
    reviewer: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Name or initials: a claim, kept beside the key that was used."""


class ReviewsWritten(Record):
    """What was added."""

    written: int
    unchanged: int
    """Labels that the same reviewer had given already."""


class ReviewRecord(Record):
    """One label of one reviewer."""

    label: str | None
    source_label: str | None
    caller: str
    reviewer: str | None
    at: str
    note: str | None


class ReviewedRecord(Record):
    """One item with its reviewers' labels; the source's label is never changed."""

    item: Item
    label: str | None
    """The last label; `None` where all were withdrawn."""
    disputed: bool
    """Whether two reviewers gave different labels."""
    history: tuple[ReviewRecord, ...]
    """Oldest first; nothing is ever removed."""


class ReviewedPage(Record):
    """Items that reviewers have labelled."""

    reviewed: tuple[ReviewedRecord, ...]
    """In order of id."""
    next: ItemId | None
    """Ask again after this id; `None` at the end."""


class ItemsWanted(Record):
    """Which items are listed."""

    where: Filter = Filter()
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: ItemId | None = None
    """The `next` of the page before."""


class ItemPage(Record):
    """Items in order of id."""

    items: tuple[Item, ...]
    total: int
    """How many meet the conditions, on all pages."""
    next: ItemId | None
    """`None` at the end."""
