"""The contract of every vector store, and what all of them check alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.records import Filter, Hit, Item

Vectors = NDArray[np.float32]
"""n x dim, rows of length 1."""
BATCH = 512
"""Points handed to an engine at once."""


class StoreError(RuntimeError):
    """A store that cannot do what was asked, and what to do about it."""


class WrongEncoder(StoreError):
    """Vectors of one encoder met a collection of another."""

    def __init__(self, collection: str, held: str, came: str) -> None:
        super().__init__(
            f"collection {collection!r} holds vectors of encoder {held}, not of {came}; "
            "vectors of two encoders cannot be compared. "
            "Use the first encoder, or ingest into a new collection"
        )


class NoSuchCollection(StoreError):
    """A collection that does not exist."""

    def __init__(self, collection: str, known: Sequence[str] = ()) -> None:
        have = f"There are: {', '.join(known)}" if known else "There is none yet"
        super().__init__(f"no collection {collection!r}. {have}; `hemaseek ingest PATH` makes one")


class CollectionExists(StoreError):
    """A collection that was to be made is already there."""


class StoreBusy(StoreError):
    """Another process holds the store."""


class StoreDown(StoreError):
    """The server behind the store does not answer."""


class BadVector(ValueError):
    """A vector that cannot be stored or searched with."""


@dataclass(frozen=True)
class Stored:
    """An item with its vector."""

    item: Item
    vector: Vectors
    """Length dim."""


@dataclass(frozen=True)
class Page:
    """One page of a scroll, in order of id."""

    items: list[Stored]
    cursor: str | None
    """Pass it on for the next page; `None` after the last."""


@dataclass(frozen=True)
class BuildReport:
    """What a build of the index did, and how true its answers are."""

    points: int
    seconds: float
    recall: float
    """Share of the exact top 10 that the index finds, over a sample of stored vectors."""
    filtered_recall: float
    """The same under filters of low selectivity, where a wrong index order shows first."""
    sample: int
    """Queries in the sample; 0 where the store searches exactly and recall is 1 by nature."""


class Store(Protocol):
    """One collection of one encoder's vectors.

    Scores are cosine similarities. Results come in order of falling score, equal scores in
    order of id. Every method that takes vectors refuses NaN, infinity, zero and the wrong
    length with `BadVector`, and normalises the rest to length 1.
    """

    name: str
    card: EncoderCard

    def upsert(self, items: Sequence[Item], vectors: Vectors) -> None:
        """Store items under their ids, replacing what was there; done when it returns.

        Raises:
            BadVector: nothing of the call is stored.
        """
        ...

    def nearest(
        self,
        vector: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Filter | None = None,
        *,
        exact: bool = False,
    ) -> list[Hit]:
        """The `k` items nearest to a vector that meet `where` and are not in `exclude`.

        The filter is applied inside the search: fewer than `k` come back only if fewer meet
        it. `exact` compares with every item instead of walking the graph.
        """
        ...

    def nearest_batch(
        self,
        vectors: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Sequence[Filter | None] | Filter | None = None,
        *,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """`nearest` for many vectors (n x dim); `exclude` is one for all, or one for each."""
        ...

    def get(self, ids: Sequence[str]) -> list[Stored]:
        """The items that exist among `ids`, in the order of `ids`."""
        ...

    def scroll(
        self, where: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """Items in order of id, a page at a time."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """How many items meet `where`, exactly."""
        ...

    def facet(self, field: str, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """Values of a keyword field with their counts, most frequent first, ties by value."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items; returns how many existed."""
        ...

    def build(self) -> BuildReport:
        """Build the search graph over everything stored, and measure its recall."""
        ...

    def flush(self) -> None:
        """Make everything acknowledged durable."""
        ...

    def close(self) -> None:
        """Release the store; safe to call twice."""
        ...


def checked_vectors(vectors: NDArray[np.floating], dim: int, n: int | None = None) -> Vectors:
    """Rows of length 1, or a refusal.

    Args:
        vectors: n x dim, any floating type.
        dim: What the collection's card says.
        n: How many rows are expected; `None` for any.

    Raises:
        BadVector: names the shape or the row, what was expected and what came.
    """
    rows = np.asarray(vectors)
    if rows.ndim != 2 or rows.shape[1] != dim or (n is not None and len(rows) != n):
        wanted = f"({'n' if n is None else n}, {dim})"
        raise BadVector(f"expected vectors of shape {wanted}, got {rows.shape}")
    wide = rows.astype(np.float64)
    bad = ~np.isfinite(wide).all(axis=1)
    if bad.any():
        raise BadVector(f"vector {int(bad.argmax())} has NaN or infinity; embed the image again")
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    if (norms < 1e-12).any():
        raise BadVector(f"vector {int((norms < 1e-12).argmax())} is zero; it has no direction")
    return np.asarray(wide / norms, np.float32)


def clamp(score: float) -> float:
    """A cosine inside -1 to 1: engines return a hair more."""
    return max(-1.0, min(1.0, float(score)))


def in_order(hits: Sequence[Hit]) -> list[Hit]:
    """Falling score, then rising id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.item.id))


def scroll_all(store: Store, where: Filter | None = None, limit: int = 1000) -> Iterator[Stored]:
    """Every item that meets `where`, page by page."""
    cursor: str | None = None
    while True:
        page = store.scroll(where, limit, cursor)
        yield from page.items
        if page.cursor is None:
            return
        cursor = page.cursor
