"""Labels given by reviewers, and pages of stored items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol, TypeVar

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


class GivenLabel(Protocol):
    """What tells whether a reviewer's label stands."""

    @property
    def label(self) -> str | None:
        """`None` withdraws the reviewer's earlier one."""

    @property
    def caller(self) -> str:
        """Who was let in."""

    @property
    def reviewer(self) -> str | None:
        """The name that was given."""


Given = TypeVar("Given", bound=GivenLabel)


def standing(history: Sequence[Given]) -> tuple[Given, ...]:
    """The last label of each reviewer, where it was not withdrawn; in the order of `history`."""
    last = {(one.caller, one.reviewer): one for one in history}
    return tuple(
        one for one in history if last[one.caller, one.reviewer] is one and one.label is not None
    )


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


class ReviewerPair(Record):
    """Two reviewers, over the items that both labelled."""

    one: str
    """Name that a reviewer gave, else the id of the key."""
    other: str
    items: int
    """How many both labelled; labels that were withdrawn do not count."""
    agreed: int
    """How many of these both gave the same label."""
    kappa: float | None
    """Cohen's kappa: 1 for full agreement, 0 for that of chance; `None` where both used one and
    the same label throughout."""


class ReviewAgreement(Record):
    """How far the reviewers of a collection agree."""

    items: int
    """Items that have a reviewer's label."""
    disputed: int
    """Items to which two reviewers gave different labels."""
    pairs: tuple[ReviewerPair, ...]


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
