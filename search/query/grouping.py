"""Hits grouped by case, patient or source: the best of each, with exact counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

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
    records: Recorded,
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
        records: What the records of cases say.

    Returns:
        Falling score of the best hit, equal scores in order of its id.
    """
    groups = _Groups(searcher, WIDER if by == "group" else (by,), records)
    parts, most = ([ANYTHING], k) if by == "group" else _members(searcher, by, k, records)
    chosen = list(groups.best(parts, most, k).items())[:k]
    keys = [key for key, _ in chosen]
    sizes, by_record = groups.sizes(keys), groups.by_record(keys)
    return [
        Group(
            value=key[1],
            by=key[0],
            items=sizes.get(key, 0) + by_record.get(key, 0),
            score=hit.score,
            hits=(hit,) if per_group == 1 else groups.best_of(key, per_group, key in by_record),
        )
        for key, hit in chosen
    ]


def _members(
    searcher: Searcher, by: GroupField, k: int, records: Recorded
) -> tuple[list[Filter], int]:
    """What the items of groups meet, any one of these, and how many groups there can be."""
    values = tuple(searcher.store.facet(by, searcher.where, VALUES))
    cases = tuple(sorted(records.patients)) if by == "patient" else ()
    if max(len(values), len(cases)) >= VALUES:
        return [ANYTHING], k
    named = {*values, *(records.patients[case] for case in cases)}
    parts = [_of(by, values), _of("case", cases)]
    return [part for part in parts if not part.empty], min(k, len(named))


@dataclass(frozen=True)
class Recorded:
    """What records say of whose a case is."""

    patients: Mapping[str, str]
    """Patients that they name, by case."""
    cases_of: Callable[[Sequence[str]], Collection[str]]
    """The cases that they call those of some patients."""


class _Groups:
    """The groups of one search: which an item belongs to, and what else does."""

    def __init__(
        self, searcher: Searcher, fields: tuple[GroupField, ...], records: Recorded
    ) -> None:
        self._searcher, self._fields, self._records = searcher, fields, records

    def key_of(self, item: Item) -> Key | None:
        """The group of an item: the first of the fields that it has, and its value."""
        item = with_patient(item, self._records.patients)
        for field in self._fields:
            value = getattr(item, field)
            if value is not None:
                return field, value
        return None

    def best(self, parts: Sequence[Filter], most: int, k: int) -> dict[Key, Hit]:
        """The best hit of each group, best first: at least `most` of them if there are so many."""
        best: dict[Key, Hit] = {}
        seen: set[str] = set()
        limit = max(2 * k, 10)
        while len(best) < most:
            values = tuple(key[1] for key in best if key[0] == self._fields[0])
            found = _of(self._fields[0], values).either(Filter(ids=tuple(seen)))
            if self._fields[0] == "patient":
                found = found.either(Filter(case=self._cases(values)))
            hits = self._nearest(limit, parts, found)
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

    def best_of(self, key: Key, most: int, by_record: bool) -> tuple[Hit, ...]:
        """The best hits of a group; `by_record`: some of its items only records call its own."""
        wanted = most if key[0] == self._fields[0] else 4 * most
        parts = [_of(key[0], (key[1],))]
        if by_record:
            parts.append(Filter(case=self._cases([key[1]])))
        hits = self._nearest(wanted, parts)
        return tuple([hit for hit in hits if self.key_of(hit.item) == key][:most])

    def _nearest(
        self, limit: int, parts: Sequence[Filter], without: Filter = ANYTHING
    ) -> list[Hit]:
        """The best of what meets any of some conditions, in the order of the search."""
        lists = [self._searcher.nearest(limit, part, without) for part in parts]
        if len(lists) == 1:
            return lists[0]
        ids = tuple({hit.item.id for hits in lists for hit in hits})
        return self._searcher.nearest(limit, Filter(ids=ids)) if ids else []

    def sizes(self, keys: Sequence[Key]) -> dict[Key, int]:
        """How many items of each group may be found that say so themselves."""
        found: dict[Key, int] = {}
        for field in WIDER:
            values = tuple(value for of, value in keys if of == field)
            if values:
                counts = self._counts(field, _of(field, values))
                found |= {(field, value): n for value, n in counts.items()}
        return found

    def by_record(self, keys: Sequence[Key]) -> dict[Key, int]:
        """How many items of each group only the records of their cases call its own, if any."""
        patients = tuple(value for field, value in keys if field == "patient")
        if not (cases := self._cases(patients)):
            return {}
        every, named = Counter(self._counts("case", Filter(case=cases))), Counter[str]()
        named.update(self._counts("case", Filter(case=cases, patient=patients)))
        found: Counter[Key] = Counter()
        for case, n in (every - named).items():
            if (patient := self._records.patients.get(case)) is not None:
                found["patient", patient] += n
        return dict(found)

    def _cases(self, patients: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(self._records.cases_of(patients))) if self._records.patients else ()

    def _counts(self, field: GroupField, part: Filter) -> dict[str, int]:
        searcher, where = self._searcher, self._searcher.where.both(part)
        limit = len(getattr(part, field))
        return facet(searcher.store, field, where, searcher.exclude, limit) if where else {}


def _of(by: str, values: tuple[str, ...]) -> Filter:
    return Filter.model_validate({by: values})
