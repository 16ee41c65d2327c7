"""The contract of every vector store, and what all of them check alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.errors import BadItem, BadVector, WrongEncoder
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, Item

Vectors = NDArray[np.float32]
"""n x dim, rows of length 1."""
BATCH = 512
"""Points handed to an engine at once."""
ENOUGH_RECALL = 0.98
"""Recall at 10 below which an index is not fit to serve."""


def need_same_encoder(collection: str, stored: EncoderCard, came: EncoderCard) -> None:
    """Compare the encoder of vectors that came with that of a collection.

    Raises:
        WrongEncoder: they are two.
    """
    if stored.fingerprint != came.fingerprint:
        raise WrongEncoder(collection, stored.title, came.title)


def need_fingerprint(collection: str, stored: EncoderCard, came: str | None) -> None:
    """Compare the fingerprint that a question names, if any, with that of a collection.

    Raises:
        WrongEncoder: they are two.
    """
    if came is not None and came != stored.fingerprint:
        raise WrongEncoder(collection, stored.title, came)


MOST_OVERSAMPLING = 100
LOOKED_PAST = 0.4
"""Share of the points up to which engines look past what does not meet a mixed filter (their
`max_selectivity`); above it they walk as without a filter, and find too little by half of `ef`."""
MANY_POINTS = 250_000
"""From here on the usual number of links lets a search look at ever more to find as much."""


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How the search graph (HNSW, Malkov and Yashunin 2018) is built and walked."""

    m: int = 16
    """Links of each point; more find more and take more memory."""
    ef_construct: int = 128
    """Candidates looked at for each point while the graph is built."""
    ef: int = 64
    """Candidates looked at in a search; a build raises it until the recall is enough."""
    graph_from_kb: int = 10_000
    """Vectors of less than this many KiB together get no graph: all are compared."""
    scan_below_kb: int = 10_000
    """A filter that leaves less than this many KiB of vectors compares them all."""
    quantize: Literal["none", "int8"] = "none"
    """Walk the graph over bytes instead of floats, a quarter of the memory, and compare what it
    finds with the floats again (rescore)."""
    oversampling: float = 2.0
    """With `int8`: candidates for each wanted neighbour that are compared again, at least; all that
    a walk looked at (`ef`) are, where those are more (`rescored`)."""
    vectors_on_disk: bool = False
    """Leave the float vectors on the disk, for the page cache to hold what fits."""
    graph_on_disk: bool = False
    """Leave the graph on the disk too."""
    shards: int = 0
    """On a Qdrant cluster: parts of the collection; 0 for the server's own default."""
    replicas: int = 0
    """On a Qdrant cluster: copies of each part, of which more than half must take a write; 0 for
    the server's own default."""

    def __post_init__(self) -> None:
        if self.m < 2 or self.ef_construct < self.m or self.ef < 1:
            raise ValueError(
                "index settings need m >= 2, ef_construct >= m and ef >= 1, "
                f"got m {self.m}, ef_construct {self.ef_construct}, ef {self.ef}"
            )
        if self.quantize not in ("none", "int8") or not 1 <= self.oversampling <= MOST_OVERSAMPLING:
            raise ValueError(
                "index settings need quantize 'none' or 'int8' and an oversampling of 1 to 100, "
                f"got {self.quantize!r} and {self.oversampling}"
            )

    def walked(self, limit: int, mixed: bool) -> int:
        """Candidates that a walk for `limit` neighbours looks at.

        Half of `ef` where it looks past what does not meet a filter without links of its own
        (`mixed`, `looks_past`): so a walk finds as much by half.
        """
        return max(self.ef // 2 if mixed else self.ef, limit)

    def rescored(self, limit: int) -> float:
        """With `int8`: candidates for each of `limit` neighbours that are compared again.

        At 1,000,000 x 384 (m 32) two for each gave a recall of 0.948 however far the walk went,
        16 for each 0.980 at `ef` 256, in the same time.
        """
        return min(max(self.oversampling, self.ef / limit), MOST_OVERSAMPLING)

    def for_points(self, points: int) -> IndexSettings:
        """These, or with more links where they are the usual ones and the points are many.

        Args:
            points: How many the index will have.
        """
        usual = (self.m, self.ef_construct) == (IndexSettings.m, IndexSettings.ef_construct)
        return replace(self, m=32, ef_construct=256) if usual and points >= MANY_POINTS else self


@dataclass(frozen=True)
class Stored:
    """An item with its vector."""

    item: Item
    vector: Vectors
    """Length dim."""


class Near(NamedTuple):
    """A neighbour whose item was not read."""

    id: str
    score: float


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
    """The same under filters, the worse of them; equal to `recall` where no filter fits."""
    sample: int
    """Queries in the sample; 0 where the store searches exactly and recall is 1 by nature."""
    by_share: dict[float, float] = field(default_factory=dict)
    """Share of the points that each filter of the sample left, with the recall under it."""
    ef: int | None = None
    """Candidates per search at which the figures were measured; `None` where there is no graph."""


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

        Of items with one id in one call, the last counts.

        Raises:
            BadVector: a vector that does not fit; nothing of the call is stored.
            BadItem: an id that is not a UUID; nothing of the call is stored.
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

    def nearest_ids(
        self,
        vector: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Filter | None = None,
        sure: int | None = None,
    ) -> list[Near]:
        """`nearest` without the items, most of whose time goes into reading them.

        Of equal scores at the end any may come back, unless they reach into the first `sure`
        (`None`: all `k`).
        """
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
    """Rows of length 1, or a refusal; rows that have length 1 stay bit for bit as they are.

    Args:
        vectors: n x dim, any floating type.
        dim: As the collection's card says.
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
    unit = np.where(np.abs(norms - 1) <= 1e-6, 1.0, norms)  # dividing again would move last bits
    return np.asarray(wide / unit, np.float32)


def checked_items(items: Sequence[Item]) -> None:
    """Refuse items whose ids an engine cannot store.

    Raises:
        BadItem: an id that is not a UUID in its usual form.
    """
    for item in items:
        if not is_id(item.id):
            raise BadItem(f"item id {item.id!r} is not a lower-case UUID; make it with `item_id`")


def is_id(id: str) -> bool:
    """Whether an id is a UUID as `item_id` writes it: only such ids are ever stored."""
    try:
        return str(UUID(id)) == id
    except ValueError:
        return False


def checked_count(name: str, count: int) -> None:
    """Refuse a number of results below 1.

    Raises:
        ValueError: names the value.
    """
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")


def checked_cursor(cursor: str | None) -> None:
    """Refuse a cursor that no page gave.

    Raises:
        ValueError: names the value.
    """
    if cursor is not None and not is_id(cursor):
        raise ValueError(f"unknown cursor {cursor!r}; pass the one that came with a page")


def checked_field(name: str) -> None:
    """Refuse facets of anything but a keyword field.

    Raises:
        ValueError: names the fields that have facets.
    """
    if name not in KEYWORDS:
        raise ValueError(f"no facets of {name!r}; there are facets of {', '.join(KEYWORDS)}")


def mixed(where: Filter | None) -> bool:
    """Whether a filter is more than one value of one field.

    While a graph is built, every value of a field that many points share gets links among
    those points, so a walk under that value meets enough of them. A set of rare values, a range
    or two fields together have no such links: at 100,000 points a walk found 80 % of the true
    neighbours under 500 patients. Engines look past neighbours that do not meet
    such a filter, at theirs (ACORN, Patel et al. 2024): 99.9 %, in three times the time. Where
    the filter leaves few, the embedded store compares them all.
    """
    if where is None:
        return False
    values = [value for some in where.words.values() for value in some]
    alone = not (where.ids or where.ranges or where.recorded or where.nobodys)
    return not alone or len(values) > 1


def looks_past(left: int, points: int) -> bool:
    """Whether an engine looks past what does not meet a mixed filter, and half of `ef` is enough.

    Args:
        left: About how many points meet the filter.
        points: How many there are.
    """
    return left <= LOOKED_PAST * points


def exclusions(exclude: Sequence[Filter | None] | Filter | None, n: int) -> Sequence[Filter | None]:
    """One exclusion for each of `n` queries.

    Raises:
        ValueError: a sequence of another length.
    """
    if exclude is None or isinstance(exclude, Filter):
        return [exclude] * n
    if len(exclude) != n:
        raise ValueError(f"expected one exclude for each of {n} vectors, got {len(exclude)}")
    return exclude


def clamp(score: float) -> float:
    """A cosine inside -1 to 1: engines return a hair more."""
    return max(-1.0, min(1.0, float(score)))


Scored = TypeVar("Scored", Hit, Near)


def in_order(hits: Sequence[Hit]) -> list[Hit]:
    """Falling score, then rising id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.item.id))


def near_in_order(found: Sequence[Near]) -> list[Near]:
    """Falling score, then rising id."""
    return sorted(found, key=lambda one: (-one.score, one.id))


def first_in_order(
    hits: Sequence[Scored],
    k: int,
    fetch: Callable[[int], Sequence[Scored]],
    order: Callable[[Sequence[Scored]], list[Scored]],
    sure: int | None = None,
) -> list[Scored]:
    """The first `k` in order, where equal scores may reach over the k-th place.

    An engine takes any of the equal ones; all of them are fetched, and the id decides.

    Args:
        hits: What the engine returned for a limit of `k + 1`.
        k: How many are wanted.
        fetch: Queries the engine again with another limit.
        order: `in_order` or `near_in_order`.
        sure: Equal scores that do not reach into so many first ones are left; `None` for `k`.
    """
    limit, last = k + 1, min(sure or k, k) - 1
    while len(hits) == limit and hits[last].score == hits[-1].score:
        limit *= 4
        hits = fetch(limit)
    return order(hits)[:k]


def scroll_all(store: Store, where: Filter | None = None, limit: int = 1000) -> Iterator[Stored]:
    """Every item that meets `where`, page by page."""
    cursor: str | None = None
    while True:
        page = store.scroll(where, limit, cursor)
        yield from page.items
        if page.cursor is None:
            return
        cursor = page.cursor
