"""The search under one question: what may be found, with near-duplicates left out on the way."""

from __future__ import annotations

from collections.abc import Callable

from search.index.contract import Store
from search.neighbours.ranks import DEEP, fused
from search.schemas.answers import Hit
from search.schemas.filters import Filter

Rank = Callable[[int, Filter | None, Filter | None], list[Hit]]
"""The first n that meet `where` and are not in `exclude`, best first."""
ANYTHING = Filter()
SPARE = 4
"""More hits than wanted are fetched, so that a few near-duplicates need no second search."""


class Searcher:
    """Ranked items that meet `where` and are not in `exclude`.

    Everything that is made of hits (groups, balance, diversity) asks here, so the conditions
    are part of every search, and no hit can be of an excluded source, case or patient.

    Args:
        store: Where is searched.
        rank: How it is searched.
        where: Conditions that every hit meets.
        exclude: No hit has any of these values.
        is_duplicate: Whether a hit shows the query's own picture; called at most once for each
            item.
    """

    def __init__(
        self,
        store: Store,
        rank: Rank,
        where: Filter = ANYTHING,
        exclude: Filter = ANYTHING,
        is_duplicate: Callable[[Hit], bool] | None = None,
    ) -> None:
        self.store = store
        self.where = where
        self.exclude = exclude
        self._rank = rank
        self._is_duplicate = is_duplicate
        self._judged: dict[str, bool] = {}

    def beside(self, other: Searcher, exclude: Filter) -> Searcher:
        """This search, in the order of its ranks and those of another one fused.

        Args:
            other: A search of another store that holds the same items.
            exclude: What no hit may be either: groups that the query has there and not here.
        """
        rank = FusedRanks(self.store, self._rank, other._rank, other.store)
        whole = self.exclude.either(exclude)
        return Searcher(self.store, rank, self.where, whole, self._is_duplicate)

    @property
    def missing(self) -> int:
        """Items that another store found and this one lacks, where ranks are fused."""
        return len(self._rank.missing) if isinstance(self._rank, FusedRanks) else 0

    @property
    def left_out(self) -> tuple[str, ...]:
        """Ids of the near-duplicates that were met and left out."""
        return tuple(sorted(id for id, duplicate in self._judged.items() if duplicate))

    def nearest(self, k: int, only: Filter = ANYTHING, without: Filter = ANYTHING) -> list[Hit]:
        """The best `k`, all of which also meet `only` and are not in `without`.

        Fewer come back only if fewer exist: for every near-duplicate that is left out, the
        next one takes its place.
        """
        where = self.where.both(only)
        if where is None:
            return []
        limit = k if self._is_duplicate is None else k + SPARE
        while True:
            exclude = self.exclude.either(without).either(Filter(ids=self.left_out))
            hits = self._rank(limit, _or_none(where), _or_none(exclude))
            kept: list[Hit] = []
            for hit in hits:
                if not self._duplicate(hit):
                    kept.append(hit)
                    if len(kept) == k:
                        return kept
            if len(hits) < limit:
                return kept
            limit *= 2

    def _duplicate(self, hit: Hit) -> bool:
        if self._is_duplicate is None:
            return False
        id = hit.item.id
        if id not in self._judged:
            self._judged[id] = self._is_duplicate(hit)
        return self._judged[id]


class FusedRanks:
    """Ranks the items of a store by their places in its own ranking and in another store's.

    Hits are the items of the first store, with its cosines. What the other store found is looked up
    in the first under the same conditions, so that no item comes in that a search of the first
    alone would have refused; and what the other store knows to be excluded is no hit, although the
    first may not know its patient.

    Args:
        store: Whose items are hits.
        own: Its ranking.
        other: That of another store, of the same items.
        beside: The other store.
    """

    def __init__(self, store: Store, own: Rank, other: Rank, beside: Store) -> None:
        self.missing: set[str] = set()
        """Ids of items that were found in the other store alone."""
        self._store, self._own, self._other, self._beside = store, own, other, beside

    def __call__(self, k: int, where: Filter | None, exclude: Filter | None) -> list[Hit]:
        """The best `k` by reciprocal rank fusion."""
        deep = max(DEEP, k)
        while True:
            first, second = (rank(deep, where, exclude) for rank in (self._own, self._other))
            known = self._beside.get([hit.item.id for hit in first]) if exclude else []
            own = tuple(one.item.id for one in known if exclude and exclude.hits(one.item))
            if not own:
                break
            exclude = (exclude or ANYTHING).either(Filter(ids=own))
        hits = {hit.item.id: hit for hit in first}
        more = tuple(hit.item.id for hit in second if hit.item.id not in hits)
        only = (where or ANYTHING).both(Filter(ids=more)) if more else None
        found = self._own(len(more), only, exclude) if only is not None else []
        hits |= {hit.item.id: hit for hit in found}
        if refused := [id for id in more if id not in hits]:
            there = {one.item.id for one in self._store.get(refused)}
            self.missing |= set(refused) - there
        others = [hit.item.id for hit in second if hit.item.id in hits]
        return [hits[id] for id in fused([[hit.item.id for hit in first], others])[:k]]


def _or_none(filter: Filter) -> Filter | None:
    return None if filter.empty else filter
