"""Hits grouped by case, patient or source: the best of each, with exact counts."""

from __future__ import annotations

from search.query.facets import facet
from search.query.searcher import ANYTHING, Searcher
from search.schemas.answers import Group, Hit
from search.schemas.filters import Filter
from search.schemas.questions import GroupField

VALUES = 1000
"""Up to so many groups are named in the search, so that items of no group never take a place."""


def grouped(searcher: Searcher, by: GroupField, k: int, per_group: int = 1) -> list[Group]:
    """The `k` best groups, each as good as its best item.

    A group that was found is left out of the next search, so every search brings new ones, and
    the search ends when there are `k` or everything was seen. Items without a value of the
    field belong to no group and are not found.

    Args:
        searcher: What may be found.
        by: The field that makes a group.
        k: How many groups.
        per_group: Hits shown of each.

    Returns:
        Falling score of the best hit, equal scores in order of its id.
    """
    values = tuple(searcher.store.facet(by, searcher.where, VALUES))
    if not values:
        return []
    only = _of(by, values) if len(values) < VALUES else ANYTHING
    best: dict[str, Hit] = {}
    limit = max(2 * k, 10)
    while len(best) < min(k, len(values)):
        hits = searcher.nearest(limit, only, _of(by, tuple(best)))
        before = len(best)
        for hit in hits:
            value = getattr(hit.item, by)
            if value is not None:
                best.setdefault(value, hit)
        if len(hits) < limit:
            break
        if len(best) == before:
            limit *= 4
    chosen = list(best.items())[:k]
    sizes = _sizes(searcher, by, tuple(value for value, _ in chosen))
    return [
        Group(
            value=value,
            items=sizes.get(value, 0),
            score=hit.score,
            hits=(hit,)
            if per_group == 1
            else tuple(searcher.nearest(per_group, _of(by, (value,)))),
        )
        for value, hit in chosen
    ]


def _sizes(searcher: Searcher, by: GroupField, values: tuple[str, ...]) -> dict[str, int]:
    where = searcher.where.both(_of(by, values)) if values else None
    if where is None:
        return {}
    return facet(searcher.store, by, where, searcher.exclude, limit=len(values))


def _of(by: str, values: tuple[str, ...]) -> Filter:
    return Filter.model_validate({by: values})
