"""Labelled items with their vectors, read from a collection or from an uploaded set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.evaluation.splits import subset
from search.index.contract import Store, Stored, Vectors, scroll_all
from search.neighbours.duplicates import COMPARED, PictureHash, same_pairs
from search.neighbours.groups import Rows, groups
from search.schemas.answers import ReviewedLabel
from search.schemas.filters import Filter, days
from search.schemas.items import Item, with_patient
from search.text import composed

UNDATED = -(2**31)
"""In place of the day of an item that has none."""


@dataclass(frozen=True)
class Cells:
    """Labelled items, row by row."""

    ids: tuple[str, ...]
    labels: NDArray[np.str_]
    vectors: Vectors
    """n x dim, length 1."""
    patients: tuple[str | None, ...]
    cases: tuple[str | None, ...]
    sources: tuple[str, ...]
    sites: tuple[str | None, ...]
    days: NDArray[np.int64]
    """Since 1970-01-01; `UNDATED` where it is not known."""
    own: NDArray[np.bool_]
    """Whether each row is of the collection, and not of an uploaded set."""
    group: Rows
    """Rows of one patient, case, source or picture have one number."""
    hashes: tuple[PictureHash | None, ...]
    """Perceptual hashes of their pictures, where they are known."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Rows) -> Cells:
        """Some of the rows; groups stay whole in the sense that their numbers stay."""
        at = rows.tolist()

        def some(column: Any) -> Any:
            return tuple(column[i] for i in at) if isinstance(column, tuple) else column[rows]

        return Cells(**{name: some(column) for name, column in vars(self).items()})

    def joined(self, other: Cells) -> Cells:
        """These rows and those of another, in one numbering of groups."""

        def both(mine: Any, theirs: Any) -> Any:
            return mine + theirs if isinstance(mine, tuple) else np.concatenate([mine, theirs])

        columns = {name: both(column, getattr(other, name)) for name, column in vars(self).items()}
        whole = Cells(**columns)
        return whole.grouped()[0]

    def grouped(self) -> tuple[Cells, int]:
        """These rows with their groups made anew, one picture twice being one group.

        Returns:
            The rows, and how many pairs of one picture lay in two groups; -1 where there are
            too many pictures to compare all.
        """
        group = groups(self.patients, self.cases, self.sources)
        if len(self) > COMPARED:
            return replace(self, group=group), -1
        pairs = [(a, b) for a, b in same_pairs(self.hashes) if group[a] != group[b]]
        group = groups(self.patients, self.cases, self.sources, pairs=pairs)
        return replace(self, group=group), len(pairs)

    def digest(self) -> str:
        """Sixteen hex digits over everything that decides a figure."""
        hash = sha256()
        for at, id in enumerate(self.ids):
            facts = (self.labels[at], self.patients[at], self.cases[at], self.sources[at])
            hash.update(repr((id, *map(str, facts), self.sites[at], int(self.days[at]))).encode())
        hash.update(np.ascontiguousarray(self.group).tobytes())
        hash.update(np.ascontiguousarray(self.vectors).tobytes())
        return hash.hexdigest()[:16]


def table(
    rows: Iterable[tuple[Item, Vectors]],
    dim: int,
    *,
    own: bool = True,
    hashes: Mapping[str, PictureHash | None] | None = None,
) -> Cells:
    """Labelled items as rows, in order of id; those without a label are left out.

    Args:
        rows: Items with their vectors.
        dim: Length of a vector.
        own: Whether they are of the collection.
        hashes: Perceptual hashes by id, where they are known.
    """
    kept = sorted(
        ((item, vector) for item, vector in rows if item.label is not None),
        key=lambda pair: pair[0].id,
    )
    items = [item for item, _ in kept]
    patients, cases, sources, sites = (
        _words(items, name) for name in ("patient", "case", "source", "site")
    )
    return Cells(
        ids=tuple(item.id for item in items),
        labels=np.array([composed(str(item.label)) for item in items], np.str_),
        vectors=np.array([vector for _, vector in kept], np.float32).reshape(len(kept), dim),
        patients=patients,
        cases=cases,
        sources=sources,
        sites=sites,
        days=np.array([_day(item.acquired) for item in items], np.int64),
        own=np.full(len(items), own),
        group=groups(patients, cases, sources),
        hashes=tuple((hashes or {}).get(item.id) for item in items),
    )


def _words(items: Iterable[Item], name: str) -> tuple[Any, ...]:
    """A field of each item in one Unicode form, so that two forms are one group."""
    values = (getattr(item, name) for item in items)
    return tuple(None if value is None else composed(value) for value in values)


def read_labelled(
    store: Store,
    where: Filter,
    progress: Callable[[int], None] = lambda done: None,
    labels: Mapping[str, ReviewedLabel] | None = None,
    patients: Mapping[str, str] | None = None,
) -> Cells:
    """The labelled items of a store that meet a filter.

    Args:
        store: Of one collection.
        where: Conditions.
        progress: Callback with how many were read; may raise to stop.
        labels: Reviewers' labels, by item; they count before the recorded ones.
        patients: Patients that the records of cases name, by case, for items that name none.
    """
    labels = labels or {}

    def read() -> Iterable[tuple[Item, Vectors]]:
        stored: Stored
        for at, stored in enumerate(scroll_all(store, None if where.empty else where)):
            if at % 1000 == 0:
                progress(at)
            item = with_patient(stored.item, patients or {})
            if (one := labels.get(item.id)) is not None:
                item = item.model_copy(update={"label": one.label})
            yield item, stored.vector

    return table(read(), store.card.dim)


def flattered(card: EncoderCard) -> list[str]:
    """A note where labels of the collection itself chose the axes of its vectors."""
    if "metric" not in (card.adapted or ""):
        return []
    return [
        "the stored vectors were fitted on labels of this collection, so that these figures "
        "flatter them; go back to the version before, and evaluate that with --adapt"
    ]


def most(cells: Cells, limit: int, seed: int) -> Cells:
    """At most `limit` of the cells, classes in proportion, from as many groups as there are."""
    if len(cells) <= limit:
        return cells
    return cells.take(subset(cells.labels, cells.group.astype(str), limit, seed)[:limit])


def _day(acquired: date | None) -> int:
    return UNDATED if acquired is None else days(acquired)
