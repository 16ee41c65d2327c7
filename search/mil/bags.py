"""The bags that case models see: the cells of stored cases, and of a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import numpy as np

from search.cases.represented import NOT_WHITE, alone
from search.errors import BadQuestion, NoSuchCase
from search.index.contract import Vectors, scroll_all
from search.library.collection import Collection
from search.library.contents import shard_files
from search.library.shards import Shard
from search.schemas.filters import Filter
from search.schemas.items import Item, with_patient
from search.schemas.questions import BagField


@dataclass
class StoredBag:
    """The cells of a stored case (or patient, or source)."""

    name: str
    items: list[Item] = field(default_factory=list)
    rows: list[Vectors] = field(default_factory=list)
    complete: bool = True
    """Whether those are all of its cells."""

    @property
    def vectors(self) -> Vectors:
        """Cells x dim."""
        return np.stack(self.rows)

    @property
    def patients(self) -> list[str]:
        """Of its cells, in order of name."""
        return sorted({one.patient for one in self.items if one.patient is not None})

    @property
    def cases(self) -> list[str]:
        """Of its cells, in order of name."""
        return sorted({one.case for one in self.items if one.case is not None})


def stored_bags(
    collection: Collection,
    by: BagField,
    where: Filter,
    cells: int,
    left_out: Callable[[str], bool] = lambda id: False,
) -> dict[str, StoredBag]:
    """Every stored bag by name, each with its first cells in order of id.

    Its cells have the patients that only the records of their cases name, too. Ids are digests, so
    the first are as good as drawn.

    Args:
        collection: Where they are.
        by: What makes a bag.
        where: Conditions on the cells.
        cells: Of each bag, at most.
        left_out: Which items are left out, by id.
    """
    found: dict[str, StoredBag] = {}
    patients = collection.cases.patients()
    for one in scroll_all(collection.store, None if where.empty else where):
        name = getattr(one.item, by)
        if name is None or left_out(one.item.id):
            continue
        bag = found.setdefault(name, StoredBag(name))
        if len(bag.items) < cells:
            bag.items.append(with_patient(one.item, patients))
            bag.rows.append(one.vector)
        else:
            bag.complete = False
    return found


def finder_kinds(collection: Collection) -> dict[str, str]:
    """What a finder of cells took items for (white, red, platelet), by id; others are not in it."""
    found: dict[str, str] = {}
    for name in shard_files(collection.folder / "shards"):
        shard = Shard(collection.folder / "shards" / name, collection.base, collection.adaptation)
        if not shard.tombstone:
            for (id, _), notes in zip(shard.digests(), shard.notes(), strict=True):
                if "cell" in notes:
                    found[str(UUID(bytes=id))] = notes["cell"]
    return found


def stored_bag(
    collection: Collection,
    by: BagField,
    value: str,
    where: Filter,
    cells: int,
    found: Literal["all", "white"] = "all",
) -> StoredBag:
    """One stored bag; `found` as in `search.schemas.mil.MilPlan`.

    Raises:
        NoSuchCase: no item belongs to it.
        BadQuestion: none of its items is of those that the model looks at.
    """
    own = Filter.model_validate({by: (value,)})
    both = where.both(own)

    def left_out(id: str) -> bool:
        entry = collection.rows.entry(id) if found == "white" else None
        return entry is not None and entry.notes.get("cell") in NOT_WHITE

    bags = {} if both is None else stored_bags(collection, by, both, cells, left_out)
    if value not in bags:
        if not collection.store.count(own):
            raise NoSuchCase(by, value, collection.name)
        raise BadQuestion(
            f"{by} {value!r} has no cell of those that this model looks at "
            f"({found} cells, {where.model_dump_json(exclude_defaults=True)})"
        )
    return bags[value]


def patient_of(bag: StoredBag) -> str:
    """The patient of a bag; where none is known, a name of its own.

    Raises:
        BadQuestion: cells of several patients.
    """
    if len(bag.patients) > 1:
        raise BadQuestion(
            f"{bag.name!r} has cells of {len(bag.patients)} patients "
            f"({', '.join(bag.patients[:3])}); a bag belongs to one: choose another grouping"
        )
    return bag.patients[0] if bag.patients else alone(bag.name)


def mean_rows(bags: Sequence[Vectors]) -> Vectors:
    """The mean vector of each bag, of length 1 (0 where its vectors cancel out)."""
    means = np.stack([bag.mean(axis=0) for bag in bags])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.where(lengths > 1e-12, lengths, 1.0), np.float32)
