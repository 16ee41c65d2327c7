"""What stored items say, as columns of numbers, and which rows meet a filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.index.payload import range_ends, to_payload
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, RANGES, Item

Rows = NDArray[np.int64] | NDArray[np.int32] | slice
"""Rows of columns: their numbers, or a stretch of them."""
MOST_VALUES = 65_535
"""Values of a field that two bytes tell apart beside "not known", which is 0."""


@dataclass(frozen=True)
class Columns:
    """Fields of n items. A field with more than `MOST_VALUES` values has no column."""

    words: Mapping[str, NDArray[np.uint16]]
    """For each keyword field, the number of its value; 0 where it is not known."""
    values: Mapping[str, Mapping[str, int]]
    """For each keyword field, its values and their numbers."""
    numbers: Mapping[str, NDArray[np.float64]]
    """For each field of numbers, its values; NaN where it is not known."""

    def knows(self, filter: Filter) -> bool:
        """Whether every condition of a filter is about a field that has a column."""
        fields = {*filter.words} | ({"case", "patient"} if filter.recorded else set())
        fields |= {"patient"} if filter.nobodys else set()
        return not filter.ids and fields <= self.words.keys()

    def known(self, filter: Filter | None) -> Filter | None:
        """What a filter says of fields that have a column, or `None` where that is nothing."""
        if filter is None:
            return None
        without = {name: () for name in filter.words if name not in self.words}
        known = filter.model_copy(update={"ids": (), **without})
        if not {"case", "patient"} <= self.words.keys():  # what `exclude` says is left to engines
            known = Filter.model_validate(known.model_dump())
        return None if known.empty else known

    def meets(self, filter: Filter, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows meet every condition, as `Filter.meets` has it."""
        met: NDArray[np.bool_] = np.all(list(self._tests(filter, rows)), axis=0)
        return met

    def hits(self, filter: Filter, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows meet any condition, as `Filter.hits` has it."""
        hit: NDArray[np.bool_] = np.any(list(self._tests(filter, rows)), axis=0)
        return hit

    def _tests(self, filter: Filter, rows: Rows) -> Iterable[NDArray[np.bool_]]:
        words = filter.stored_words
        if filter.recorded:
            by_case = self._any_of("case", filter.recorded, rows)
            own = self._any_of("patient", words.pop("patient", ()), rows)
            yield own | (by_case & (self.words["patient"][rows] == 0))
        if filter.nobodys:
            yield self.words["patient"][rows] == 0
        for name, some in words.items():
            yield self._any_of(name, some, rows)
        for name, (low, high) in range_ends(filter).items():
            numbers = self.numbers[name][rows]
            at_least = -np.inf if low is None else low
            yield (numbers >= at_least) & (numbers <= (np.inf if high is None else high))

    def _any_of(self, name: str, some: Iterable[str], rows: Rows) -> NDArray[np.bool_]:
        wanted = [self.values[name][value] for value in some if value in self.values[name]]
        column = self.words[name][rows]
        if len(wanted) == 1:
            return np.asarray(column == wanted[0])
        chosen = np.zeros(len(self.values[name]) + 1, np.bool_)
        chosen[wanted] = True
        return np.asarray(chosen[column])


class ColumnsBuilder:
    """Columns as items come."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, int]] = {name: {} for name in KEYWORDS}
        self._words: dict[str, list[NDArray[np.uint16]]] = {name: [] for name in KEYWORDS}
        self._numbers: dict[str, list[NDArray[np.float64]]] = {name: [] for name in RANGES}

    def add(self, items: Iterable[Item]) -> None:
        """Rows for some more items."""
        facts: list[dict[str, Any]] = [to_payload(item) for item in items]
        for name, values in list(self._values.items()):
            some = [fact.get(name) for fact in facts]
            numbers = [
                0 if value is None else values.setdefault(value, len(values) + 1) for value in some
            ]
            if len(values) > MOST_VALUES:
                del self._values[name], self._words[name]
            else:
                self._words[name].append(np.array(numbers, np.uint16))
        for name, columns in self._numbers.items():
            columns.append(np.array([fact.get(name, np.nan) for fact in facts], np.float64))

    def columns(self, order: NDArray[np.int64]) -> Columns:
        """All of them, the rows in another order."""
        return Columns(
            {name: np.concatenate(parts)[order] for name, parts in self._words.items()},
            self._values,
            {name: np.concatenate(parts)[order] for name, parts in self._numbers.items()},
        )
