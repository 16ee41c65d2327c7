"""Hits grouped by case, patient or source: the best of each, with exact counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.query.facets import facet
from search.query.searcher import ANYTHING, Searcher
from search.schemas.answers import Group, Hit
from search.schemas.filters import Filter
from search.schemas.items import Item, with_patient
from search.schemas.questions import GroupField, Grouping

VALUES = 1000
"""Up to so many groups are named in the search, so that items of no group never take a place."""


Key = tuple[GroupField, str]
"""A group: the field that makes it, and its value."""
WIDER: tuple[GroupField, ...] = ("patient", "case", "source")
"""What `group` groups by: the first of these that an item has."""


def grouped(
    searcher: Searcher,
    by: Grouping,
    k: int,
    per_group: int = 1,
    *,
    patients: Mapping[str, str],
) -> list[Group]:
    """The `k` best groups, each as good as its best item.

    A group that was found is left out of the next search, so every search brings new ones, and
    the search ends when there are `k` or everything was seen. Items without a value of the
    field belong to no group and are not found.

    Args:
        searcher: What may be found.
        by: The field that makes a group; `group`: see `Question.group_by`.
        k: How many groups.
        per_group: Hits shown of each.
        patients: Those that the records of cases name, by case.

    Returns:
        Falling score of the best hit, equal scores in order of its id.
    """
    groups = _Groups(searcher, WIDER if by == "group" else (by,), patients)
    part, most = (ANYTHING, k) if by == "group" else _members(searcher, by, k)
    chosen = list(groups.best(part, most, k).items())[:k]
    sizes = groups.sizes([key for key, _ in chosen])
    return [
        Group(
            value=key[1],
            by=key[0],
            items=sizes.get(key, 0),
            score=hit.score,
            hits=(hit,) if per_group == 1 else groups.best_of(key, per_group),
        )
        for key, hit in chosen
    ]


def _members(searcher: Searcher, by: GroupField, k: int) -> tuple[Filter, int]:
    """What the items of groups meet, and how many groups there can be."""
    values = tuple(searcher.store.facet(by, searcher.where, VALUES))
    if len(values) >= VALUES:
        return ANYTHING, k
    return _of(by, values), min(k, len(values))


class _Groups:
    """The groups of one search: which an item belongs to, and what else does."""

    def __init__(
        self, searcher: Searcher, fields: tuple[GroupField, ...], patients: Mapping[str, str]
    ) -> None:
        self._searcher, self._fields, self._patients = searcher, fields, patients

    def key_of(self, item: Item) -> Key | None:
        """The group of an item: the first of the fields that it has, and its value."""
        item = with_patient(item, self._patients)
        for field in self._fields:
            value = getattr(item, field)
            if value is not None:
                return field, value
        return None

    def best(self, part: Filter, most: int, k: int) -> dict[Key, Hit]:
        """The best hit of each group, best first: at least `most` of them if there are so many."""
        best: dict[Key, Hit] = {}
        seen: set[str] = set()
        limit = max(2 * k, 10)
        while len(best) < most:
            values = tuple(key[1] for key in best if key[0] == self._fields[0])
            found = _of(self._fields[0], values).either(Filter(ids=tuple(seen)))
            hits = self._searcher.nearest(limit, part, found)
            before = len(best)
            for hit in hits:
                own = self.key_of(hit.item)
                if own is not None:
                    best.setdefault(own, hit)
                if own is not None and own[0] != self._fields[0]:
                    seen.add(hit.item.id)  # its case or source may hold cells of known patients
            if len(hits) < limit:
                break
            if len(best) == before:
                limit *= 4
        return best

    def best_of(self, key: Key, most: int) -> tuple[Hit, ...]:
        """The best hits of a group."""
        wanted = most if key[0] == self._fields[0] else 4 * most
        hits = self._searcher.nearest(wanted, _of(key[0], (key[1],)))
        return tuple([hit for hit in hits if self.key_of(hit.item) == key][:most])

    def sizes(self, keys: Sequence[Key]) -> dict[Key, int]:
        """How many items of each group may be found."""
        found: dict[Key, int] = {}
        for field in WIDER:
            values = tuple(value for of, value in keys if of == field)
            if values:
                counts = self._counts(field, _of(field, values))
                found |= {(field, value): n for value, n in counts.items()}
        return found

    def _counts(self, field: GroupField, part: Filter) -> dict[str, int]:
        searcher, where = self._searcher, self._searcher.where.both(part)
        limit = len(getattr(part, field))
        return facet(searcher.store, field, where, searcher.exclude, limit) if where else {}


def _of(by: str, values: tuple[str, ...]) -> Filter:
    return Filter.model_validate({by: values})
