"""A store whose patients are also those that only the records of cases name: one rule for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from search.index.contract import BuildReport, Near, Page, Store, Stored, Vectors
from search.schemas.answers import Hit
from search.schemas.filters import Filter, stored_forms
from search.schemas.items import Item

EVERY = 10_000_000
"""More than there are cases."""


class Records(Protocol):
    """What records say of whose a case is."""

    def patients(self) -> Mapping[str, str]:
        """The patient of each case whose record names one."""
        ...

    def cases_of(self, patients: Sequence[str]) -> Collection[str]:
        """The cases whose record names one of these patients."""
        ...


class RecordedStore:
    """A store that answers by the items' own patients, and by records where an item has none.

    A condition on patients means the same in every filter, and the values of `patient` are counted
    by the same rule. Items come back as they are stored. See `Store` for the methods.
    """

    def __init__(self, items: Store, records: Records) -> None:
        self.items = items
        """The store itself, which knows what items say alone."""
        self.name, self.card = items.name, items.card
        self._records = records

    def understood(self, filter: Filter) -> Filter:
        """A filter that items meet by the records of their cases, too."""
        if not filter.patient:
            return filter
        cases = self._records.cases_of(stored_forms(filter.patient))
        return filter.with_recorded(tuple(sorted(cases))) if cases else filter

    def upsert(self, items: Sequence[Item], vectors: Vectors) -> None:
        """See `Store.upsert`."""
        self.items.upsert(items, vectors)

    def nearest(
        self,
        vector: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Filter | None = None,
        *,
        exact: bool = False,
    ) -> list[Hit]:
        """See `Store.nearest`."""
        met, unmet = self._known(where), self._known(exclude)
        return self.items.nearest(vector, k, met, unmet, exact=exact)

    def nearest_batch(
        self,
        vectors: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Sequence[Filter | None] | Filter | None = None,
        *,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """See `Store.nearest_batch`."""
        if exclude is None or isinstance(exclude, Filter):
            exclude = self._known(exclude)
        else:
            exclude = [self._known(one) for one in exclude]
        return self.items.nearest_batch(vectors, k, self._known(where), exclude, exact=exact)

    def nearest_ids(
        self,
        vector: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Filter | None = None,
        sure: int | None = None,
    ) -> list[Near]:
        """See `Store.nearest_ids`."""
        return self.items.nearest_ids(vector, k, self._known(where), self._known(exclude), sure)

    def get(self, ids: Sequence[str]) -> list[Stored]:
        """See `Store.get`."""
        return self.items.get(ids)

    def scroll(
        self, where: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """See `Store.scroll`."""
        return self.items.scroll(self._known(where), limit, cursor)

    def count(self, where: Filter | None = None) -> int:
        """See `Store.count`."""
        return self.items.count(self._known(where))

    def facet(self, field: str, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """See `Store.facet`."""
        known = self._known(where)
        if field != "patient" or not (patients := self._records.patients()):
            return self.items.facet(field, known, limit)
        found = Counter(self.items.facet(field, known, EVERY))
        bare = self._bare(known or Filter())
        cases = {} if bare is None else self.items.facet("case", bare, EVERY)
        for case, n in cases.items():
            if case in patients:  # else no record names one, or it has changed since
                found[patients[case]] += n
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:limit])

    def delete(self, ids: Sequence[str]) -> int:
        """See `Store.delete`."""
        return self.items.delete(ids)

    def build(self) -> BuildReport:
        """See `Store.build`."""
        return self.items.build()

    def flush(self) -> None:
        """See `Store.flush`."""
        self.items.flush()

    def close(self) -> None:
        """See `Store.close`."""
        self.items.close()

    def _bare(self, known: Filter) -> Filter | None:
        """What those items of a filter meet of which records alone may say whose they are; `None`
        where there can be none."""
        bare: Filter | None = known.model_copy(update={"patient": ()}).with_recorded(())
        if bare is not None and known.patient:
            bare = bare.both(Filter(case=known.recorded)) if known.recorded else None
        return None if bare is None else bare.of_nobody()

    def _known(self, filter: Filter | None) -> Filter | None:
        return None if filter is None else self.understood(filter)
