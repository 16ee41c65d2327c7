"""How much of the exact answer an index finds, with and without filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log, nextafter
from time import perf_counter
from uuid import UUID

import numpy as np

from search.index.contract import ENOUGH_RECALL, BuildReport, Store, Vectors
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS

SHARES = (0.1, 0.01)
"""Shares of the points that the filters aim to leave: where a graph breaks first."""
MOST_VALUES = 1000
"""Values of a field that are looked at for a filter."""
WIDEST_EF = 1024
"""A build gives up raising `ef` here."""
NARROWINGS = 2
"""Times that a raised `ef` is tried halfway back: time grows with it, and doubling overshoots."""
HEADROOM = 0.004
"""Recall above the bar that a narrower search has to keep: other queries find less by as much."""
TIE = 1e-6
"""Scores closer than this are equal: float32 cosines are no more exact."""


@dataclass(frozen=True)
class Probe:
    """Stored vectors as queries, filters, and what exact search answers to them."""

    vectors: Vectors
    """Queries x dim."""
    ids: tuple[str, ...]
    """Whose vectors they are; no item counts as a neighbour of itself."""
    filters: dict[float, Filter | None]
    """Share of the points that each leaves; 1.0 without a filter."""
    truth: dict[float, list[list[Hit]]]
    """The exact neighbours, by share."""
    k: int

    @classmethod
    def take(cls, store: Store, queries: int = 100, k: int = 10, seed: int = 0) -> Probe:
        """Draw queries from what is stored, the same ones for the same content."""
        rng = np.random.default_rng(seed)
        starts = [str(UUID(bytes=rng.bytes(16))) for _ in range(queries)]
        drawn: dict[str, Vectors] = {}
        for start in starts:
            page = store.scroll(limit=1, cursor=start).items or store.scroll(limit=1).items
            drawn |= {stored.item.id: stored.vector for stored in page}
        ids = tuple(drawn)
        vectors = np.array(list(drawn.values()), np.float32).reshape(-1, store.card.dim)
        filters: dict[float, Filter | None] = {1.0: None}
        of_one = [filter_of_share(store, share) for share in SHARES]
        for found in (*of_one, filter_of_share(store, SHARES[0], several=True)):
            if found is not None and found[1] not in filters.values():
                share = found[0]
                while share in filters:  # two filters that leave as much keep both their figures
                    share = nextafter(share, 1)
                filters[share] = found[1]
        truth = {
            share: _others(store.nearest_batch(vectors, k + 1, where, exact=True), ids, k)
            for share, where in filters.items()
        }
        return cls(vectors, ids, filters, truth, k)

    def recall(self, store: Store) -> dict[float, float]:
        """Share of the exact neighbours that the index finds, by share of the points."""
        recalls = {}
        for share, where in self.filters.items():
            found = _others(store.nearest_batch(self.vectors, self.k + 1, where), self.ids, self.k)
            recalls[share] = agreement(self.truth[share], found)
        return recalls


def gauge(store: Store, ef: int, widen: Callable[[int], None], began: float) -> BuildReport:
    """Measure a graph, and widen the search until its recall is enough.

    Args:
        store: With a graph.
        ef: Candidates that a search looks at now.
        widen: Makes searches look at so many candidates from now on.
        began: `perf_counter` at the start of the build.
    """
    probe = Probe.take(store)
    found = probe.recall(store)
    low = ef
    while min(found.values()) < ENOUGH_RECALL and ef < WIDEST_EF:
        low, ef = ef, 2 * ef
        widen(ef)
        found = probe.recall(store)
    ef, found = _narrowed(probe, store, widen, low, ef, found)
    filtered = {share: recall for share, recall in found.items() if share < 1}
    return BuildReport(
        points=store.count(),
        seconds=perf_counter() - began,
        recall=found[1.0],
        filtered_recall=min(filtered.values(), default=found[1.0]),
        sample=len(probe.vectors),
        by_share=filtered,
        ef=ef,
    )


def _narrowed(
    probe: Probe,
    store: Store,
    widen: Callable[[int], None],
    low: int,
    ef: int,
    found: dict[float, float],
) -> tuple[int, dict[float, float]]:
    """The least `ef` above `low` that is tried and has recall to spare, and what it finds."""
    if min(found.values()) < ENOUGH_RECALL:
        return ef, found
    for _ in range(NARROWINGS):
        middle = (low + ef) // 2
        if not low < middle < ef:
            break
        widen(middle)
        tried = probe.recall(store)
        if min(tried.values()) >= ENOUGH_RECALL + HEADROOM:
            ef, found = middle, tried
        else:
            low = middle
            widen(ef)
    return ef, found


def agreement(truth: Sequence[Sequence[Hit]], found: Sequence[Sequence[Hit]]) -> float:
    """Share of the true neighbours that were found; one as near as the last true one counts."""
    right = total = 0
    for true, hits in zip(truth, found, strict=True):
        if true:
            ids, last = {hit.item.id for hit in true}, true[-1].score - TIE
            right += min(sum(hit.item.id in ids or hit.score >= last for hit in hits), len(true))
            total += len(true)
    return right / total if total else 1.0


def filter_of_share(
    store: Store, share: float, *, several: bool = False
) -> tuple[float, Filter] | None:
    """The filter on one keyword field that leaves nearest to a share of the points.

    One value where there is one: that is the most frequent filter. Else a set of rare values, which
    is harder for a graph and says little about the common question.

    Args:
        store: With what is to be filtered.
        share: Of the points, above 0 and below 1.
        several: Only a set of values will do.

    Returns:
        The share it leaves and the filter; `None` where no field comes within a factor of 3.
    """
    total = store.count()
    options = [
        (len(values) > 1, distance, part, name, values)
        for name in KEYWORDS
        for part, values in _value_sets(store, name, share, total)
        if part < 1 and (distance := abs(log(part / share))) <= log(3)
        if len(values) > 1 or not several
    ]
    if not options:
        return None
    _, _, part, name, values = min(options)
    return part, Filter.model_validate({name: values})


def _value_sets(
    store: Store, field: str, share: float, total: int
) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Each frequent value alone, and the rare ones joined until they reach the share."""
    counts = store.facet(field, limit=MOST_VALUES)
    for value, count in counts.items():
        yield count / total, (value,)
    joined: list[str] = []
    reached = 0.0
    for value, count in reversed(counts.items()):
        if reached >= share:
            break
        joined.append(value)
        reached += count / total
    if joined:
        yield reached, tuple(joined)


def _others(found: Sequence[Sequence[Hit]], ids: Sequence[str], k: int) -> list[list[Hit]]:
    return [
        [hit for hit in hits if hit.item.id != id][:k] for hits, id in zip(found, ids, strict=True)
    ]
