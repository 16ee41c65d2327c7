"""Hits grouped by case, patient or source: the best of each, with exact counts."""

from __future__ import annotations

from collections.abc import Collection

from search.query.facets import facet
from search.query.searcher import ANYTHING, Searcher
from search.schemas.answers import Group, Hit
from search.schemas.filters import Filter
from search.schemas.items import Item
from search.schemas.questions import GroupField, Grouping

VALUES = 1000
"""Up to so many groups are named in the search, so that items of no group never take a place."""


Key = tuple[GroupField, str]
"""A group: the field that makes it, and its value."""
WIDER: tuple[GroupField, ...] = ("patient", "case", "source")
"""What `group` groups by: the first of these that an item has."""


def grouped(searcher: Searcher, by: Grouping, k: int, per_group: int = 1) -> list[Group]:
    """The `k` best groups, each as good as its best item.

    A group that was found is left out of the next search, so every search brings new ones, and
    the search ends when there are `k` or everything was seen. Items without a value of the
    field belong to no group and are not found.

    Args:
        searcher: What may be found.
        by: The field that makes a group; `group`: see `Question.group_by`.
        k: How many groups.
        per_group: Hits shown of each.

    Returns:
        Falling score of the best hit, equal scores in order of its id.
    """
    fields = WIDER if by == "group" else (by,)
    only, most = ANYTHING, k
    if by != "group":
        values = tuple(searcher.store.facet(by, searcher.where, VALUES))
        only = _of(by, values) if 0 < len(values) < VALUES else ANYTHING
        most = min(k, len(values))
    chosen = list(_best(searcher, fields, only, most, k).items())[:k]
    sizes = _sizes(searcher, [key for key, _ in chosen])
    return [
        Group(
            value=key[1],
            by=key[0],
            items=sizes.get(key, 0),
            score=hit.score,
            hits=(hit,) if per_group == 1 else _best_of(searcher, key, fields, per_group),
        )
        for key, hit in chosen
    ]


def _best(
    searcher: Searcher, fields: tuple[GroupField, ...], only: Filter, most: int, k: int
) -> dict[Key, Hit]:
    """The best hit of each group, best first: at least `most` of them if there are so many."""
    best: dict[Key, Hit] = {}
    seen: set[str] = set()
    limit = max(2 * k, 10)
    while len(best) < most:
        found = _any([key for key in best if key[0] == fields[0]]).either(Filter(ids=tuple(seen)))
        hits = searcher.nearest(limit, only, found)
        before = len(best)
        for hit in hits:
            key = key_of(hit.item, fields)
            if key is not None:
                best.setdefault(key, hit)
            if key is not None and key[0] != fields[0]:
                seen.add(hit.item.id)  # its case or source may hold cells of known patients
        if len(hits) < limit:
            break
        if len(best) == before:
            limit *= 4
    return best


def key_of(item: Item, fields: tuple[GroupField, ...] = WIDER) -> Key | None:
    """The group of an item: the first of some fields that it has, and its value."""
    for field in fields:
        value = getattr(item, field)
        if value is not None:
            return field, value
    return None


def _best_of(
    searcher: Searcher, key: Key, fields: tuple[GroupField, ...], most: int
) -> tuple[Hit, ...]:
    hits = searcher.nearest(most if key[0] == fields[0] else 4 * most, _any([key]))
    return tuple(hit for hit in hits if key_of(hit.item, fields) == key)[:most]


def _any(keys: Collection[Key]) -> Filter:
    """Every item of some groups."""
    fields = {field: tuple(value for of, value in keys if of == field) for field, _ in keys}
    return Filter.model_validate(fields)


def _sizes(searcher: Searcher, keys: Collection[Key]) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for field in WIDER:
        values = tuple(value for of, value in keys if of == field)
        where = searcher.where.both(_of(field, values)) if values else None
        if where is not None:
            sizes = facet(searcher.store, field, where, searcher.exclude, limit=len(values))
            found |= {(field, value): n for value, n in sizes.items()}
    return found


def _of(by: str, values: tuple[str, ...]) -> Filter:
    return Filter.model_validate({by: values})
