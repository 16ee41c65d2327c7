"""Cases and slides as they are searched: a mosaic of cells, and vectors in a store of their own."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload
from uuid import UUID, uuid5

import numpy as np
from pydantic_core import from_json

from search.cases.distances import (
    Floats,
    histogram,
    kmeans,
    mean_vector,
    soft_histogram,
    vlad,
)
from search.cases.mosaic import mosaic
from search.disk.atomic import write_durably
from search.disk.closing import Closing
from search.index.contract import Store, Vectors, scroll_all
from search.library.collection import Collection
from search.library.contents import content_digest, shard_files
from search.library.shards import Shard
from search.library.versions import Version
from search.schemas.filters import Filter
from search.schemas.items import NAMESPACE, Item

Pooling = Literal["mean", "vlad", "prototypes", "composition"]
Found = Literal["all", "white"]
By = Literal["case", "source"]
POOLINGS: tuple[Pooling, ...] = ("mean", "vlad", "prototypes", "composition")
PROTOTYPES, WORDS = 32, 4
"""Prototypes of the histogram, and of VLAD, whose vector is so many times as long."""
FITTED_ON = 5000
"""Cells that prototypes are fitted on: the first in order of id, which is as good as drawn."""
INLINE = 50_000
"""Items up to which a question builds what is lacking; beyond that, a build of the index does."""
FORMAT = 2
"""Of a build; what was made by another one is made again."""
FOLDER, DONE = "cases", "whole.json"
AT_ONCE = 500
MAPPED = 1 << 40
"""Bytes of a build that SQLite may read where they lie; it takes as many as it can."""
NOT_WHITE = ("red", "platelet")
"""What a finder of cells notes of a cell that is no white one."""
_turn = threading.RLock()


def alone(name: str) -> str:
    """What stands for the unknown patient of a case, a slide or another bag of cells."""
    return f"(of {name})"


@dataclass(frozen=True)
class Facts:
    """What a case's items say of it, all of them together."""

    cells: int
    patients: tuple[str, ...]
    cases: tuple[str, ...]
    sources: tuple[str, ...]
    sites: tuple[str, ...]
    labels: Mapping[str, int]
    without_patient: int
    """Items without a patient id."""

    @classmethod
    def read(cls, text: str) -> Facts:
        """As they are kept."""
        known = from_json(text)
        for name in ("patients", "cases", "sources", "sites"):
            known[name] = tuple(known[name])
        return cls(**known)


class Ids(Sequence[str]):
    """Item ids as they are kept, 16 bytes each; written out where one is asked for."""

    def __init__(self, kept: bytes) -> None:
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept) // 16

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return tuple(self[one] for one in range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        start = 16 * (at % len(self))
        return str(UUID(bytes=self._kept[start : start + 16]))


@dataclass(frozen=True)
class Represented:
    """A case, a slide, or a query, as it is compared."""

    value: str
    facts: Facts
    ids: Sequence[str]
    """Of the mosaic's cells, in order of id; empty for a query that is not stored."""
    vectors: Vectors
    """Of the mosaic, m x dim."""
    weights: Floats
    """For each of its cells the share of the case that it stands for."""
    points: Mapping[Pooling, Floats]
    """The whole case as one vector, by each pooling; a histogram sums to 1."""

    def known_patients(self, named: Mapping[str, str]) -> tuple[str, ...]:
        """Its patients, also those that records name (`named`, by case), in order."""
        facts = self.facts
        known = {*facts.patients, *(named[case] for case in facts.cases if case in named)}
        return tuple(sorted(known))

    def patients(self, named: Mapping[str, str]) -> Sequence[str]:
        """As `known_patients`; if none is known, what stands for it."""
        return self.known_patients(named) or [alone(self.value)]

    @property
    def whole(self) -> bool:
        """Whether the mosaic is every cell."""
        return len(self.vectors) == self.facts.cells


@dataclass(frozen=True)
class Words:
    """The prototypes of a collection."""

    prototypes: Vectors
    """Of the histogram."""
    words: Vectors
    """Of VLAD."""
    usual: Floats
    """The soft histogram of what they were fitted on: how cells are composed altogether."""

    @classmethod
    def fitted(cls, sample: Vectors) -> Words:
        """The prototypes of some cells."""
        prototypes = kmeans(sample, PROTOTYPES)
        return cls(prototypes, kmeans(sample, WORDS), soft_histogram(sample, prototypes))

    def composition(self, vectors: Vectors, weights: Floats | None = None) -> Floats:
        """How a bag departs from what is usual: the difference of soft histograms, of length 1."""
        apart = soft_histogram(vectors, self.prototypes, weights) - self.usual
        length = np.linalg.norm(apart)
        return np.asarray(apart / length if length > 1e-12 else apart)

    def pooled(self, vectors: Vectors, weights: Floats | None = None) -> dict[Pooling, Floats]:
        """A bag as one vector, by each pooling."""
        return {
            "mean": mean_vector(vectors, weights),
            "vlad": vlad(vectors, self.words, weights),
            "prototypes": histogram(vectors, self.prototypes, weights),
            "composition": self.composition(vectors, weights),
        }


class Cases(Closing):
    """The cases (or slides) of one version of a collection, open for questions.

    Derived from the shards, and made again after every write to the collection: the file of a
    build is named after the content that it was made from. Safe to use from many threads.
    """

    def __init__(self, folder: Path, stores: Mapping[Pooling, Store]) -> None:
        """Use `using_cases`."""
        self.folder = folder
        self._stores = stores
        self._users = 0
        self._retired = False
        with np.load(folder / "words.npz") as words:
            self.words = Words(words["prototypes"], words["words"], words["usual"])
        self._turn = threading.Lock()
        self._file = sqlite3.connect(folder / "bags.sqlite", check_same_thread=False)
        self.total = int(self._all("SELECT COUNT(*) FROM bags")[0][0])
        self._dim = stores["mean"].card.dim
        self._file.execute(f"PRAGMA mmap_size = {MAPPED}")

    def close(self) -> None:
        """Release the stores; safe to call twice."""
        with self._turn:
            self._file.close()
            for store in self._stores.values():
                store.close()

    def retire(self) -> None:
        """Close and remove it once the last question that uses it is answered."""
        with _turn:
            self._retired = True
            if not self._users:
                self.close()
                shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def use(self) -> Iterator[Cases]:
        """Keep it open for one question."""
        with _turn:
            self._users += 1
        try:
            yield self
        finally:
            with _turn:
                self._users -= 1
            if self._retired:
                self.retire()

    def values(self, most: int) -> list[str]:
        """Names in order, at most so many."""
        rows = self._all("SELECT value FROM bags ORDER BY value LIMIT ?", (most,))
        return [str(value) for (value,) in rows]

    def get(
        self, values: Sequence[str], points: Sequence[Pooling] = POOLINGS
    ) -> dict[str, Represented]:
        """Those of `values` that are there, with their vectors by some poolings."""
        found: dict[str, Represented] = {}
        columns = ", ".join(("value", "facts", "ids", "vectors", "weights", *points))
        rows = [self._rows[value] for value in values if value in self._rows]
        for at in range(0, len(rows), AT_ONCE):
            part = rows[at : at + AT_ONCE]
            marks = ",".join("?" * len(part))
            query = f"SELECT {columns} FROM bags WHERE rowid IN ({marks})"  # noqa: S608 (no values)
            for row in self._all(query, part):
                found[str(row[0])] = self._bag(row, points)
        return found

    def nearest(
        self, pooling: Pooling, vector: Floats, k: int, exclude: Filter | None, sure: int
    ) -> list[tuple[str, float]]:
        """Names and cosines of the `k` nearest; `sure` as of `Store.nearest_ids`."""
        point = _direction(pooling, vector).astype(np.float32)
        found = self._stores[pooling].nearest_ids(point, k, None, exclude, sure)
        return [(self._names[one.id], one.score) for one in found]

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Where each bag lies in the file."""
        return dict(self._all("SELECT value, rowid FROM bags"))

    @cached_property
    def _names(self) -> dict[str, str]:
        """What each point is called."""
        return {_point_id(value): value for value in self._rows}

    def _bag(self, row: Sequence[Any], poolings: Sequence[Pooling]) -> Represented:
        value, facts, ids, vectors, weights, *points = row
        return Represented(
            str(value),
            Facts.read(facts),
            Ids(ids),
            np.frombuffer(vectors, np.float32).reshape(-1, self._dim),
            np.frombuffer(weights, np.float64),
            {p: np.frombuffer(one, np.float64) for p, one in zip(poolings, points, strict=True)},
        )

    def _all(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with self._turn:
            return self._file.execute(query, values).fetchall()


@contextmanager
def using_cases(collection: Collection, by: By, found: Found, items: int) -> Iterator[Cases | None]:
    """The cases of a collection as they are now; `None` where they must be built first.

    Args:
        collection: Its shards.
        by: Cases, or sources of tiles, which are slides.
        found: All cells, or without those that a finder took for red cells or platelets.
        items: How many the collection has: up to `INLINE` what is lacking is built here.
    """
    with ExitStack() as stack:
        with _turn:
            opened = _opened(collection, by, found, items)
            if opened is not None:
                stack.enter_context(opened.use())
        yield opened


def _opened(collection: Collection, by: By, found: Found, items: int) -> Cases | None:
    folder, key = _folder(collection, by, found), f"cases {by} {found}"
    kept = collection.derived.get(key)
    if isinstance(kept, Cases):
        if kept.folder == folder:
            return kept
        del collection.derived[key]
        kept.retire()
    if not (folder / DONE).exists():
        if items > INLINE or not items:
            return None
        build(collection, by, found)
    if not json.loads((folder / DONE).read_text())["bags"]:
        return None
    cases = Cases(folder, {one: _store(collection, folder, one) for one in POOLINGS})
    collection.derived[key] = cases
    return cases


def build(collection: Collection, by: By = "case", found: Found = "all") -> int:
    """Represent every case (or slide) of a collection; how many there are.

    What was made from an earlier content is removed. Killed at any moment it leaves nothing
    that is taken for whole.
    """
    with _turn:
        folder = _folder(collection, by, found)
        if (folder / DONE).exists():
            return int(json.loads((folder / DONE).read_text())["bags"])
        _sweep(collection, by, found)
        folder.mkdir(parents=True)
        rows = _Rows(collection, by, found)
        if rows.bags:
            _write(collection, folder, rows)
        write_durably(folder / DONE, json.dumps({"bags": len(rows.bags)}).encode())
        return len(rows.bags)


def prepare(collection: Collection) -> None:
    """After the index was built, represent the cases of a collection that is too large for a
    question to do it."""
    if collection.store.count() > INLINE:
        build(collection)


class _Rows:
    """The items of a collection, by bag."""

    def __init__(self, collection: Collection, by: By, found: Found) -> None:
        self.found = found
        self.items: list[Item] = []
        parts: list[Vectors] = []
        self.bags: dict[str, list[int]] = {}
        places = collection.catalogue.places()
        for name in shard_files(collection.folder / "shards"):
            shard = Shard(
                collection.folder / "shards" / name, collection.base, collection.adaptation
            )
            if shard.tombstone:
                continue
            notes = shard.notes() if found == "white" else [{}] * shard.rows
            kept = []
            for row, (item, note) in enumerate(zip(shard.items(), notes, strict=True)):
                place = places.get(UUID(item.id).bytes)
                value = item.case if by == "case" else item.source if item.kind == "tile" else None
                if place is None or place[1:] != (name, row) or value is None:
                    continue
                if note.get("cell") in NOT_WHITE:
                    continue
                self.bags.setdefault(value, []).append(len(self.items))
                self.items.append(item)
                kept.append(row)
            parts.append(shard.vectors()[kept])
        self.vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
        for rows in self.bags.values():
            rows.sort(key=lambda row: self.items[row].id)


def _write(collection: Collection, folder: Path, rows: _Rows) -> None:
    sample = _sample(collection, rows)
    words = Words.fitted(sample)
    np.savez(folder / "words.npz", **vars(words))
    file = sqlite3.connect(folder / "bags.sqlite")
    file.execute(
        "CREATE TABLE bags (value TEXT PRIMARY KEY, facts TEXT, ids BLOB, vectors BLOB, "
        "weights BLOB, mean BLOB, vlad BLOB, prototypes BLOB, composition BLOB)"
    )
    stores = {one: _store(collection, folder, one, words) for one in POOLINGS}
    waiting: list[Represented] = []
    for bag in _represented(rows, words):
        waiting.append(bag)
        if len(waiting) == AT_ONCE:
            _put(file, stores, waiting)
            waiting = []
    _put(file, stores, waiting)
    file.commit()
    file.close()
    for store in stores.values():
        store.flush()
        store.build()
        store.close()


def _sample(collection: Collection, rows: _Rows) -> Vectors:
    """What prototypes are fitted on: of the whole collection, or of its white cells."""
    if rows.found == "white":
        order = sorted(range(len(rows.items)), key=lambda at: rows.items[at].id)
        return rows.vectors[order[:FITTED_ON]]
    return np.stack([one.vector for one in islice(scroll_all(collection.store), FITTED_ON)])


def _represented(rows: _Rows, words: Words) -> Iterator[Represented]:
    for value, mine in rows.bags.items():
        items, vectors = [rows.items[at] for at in mine], rows.vectors[mine]
        labels = [item.label for item in items]
        chosen = mosaic(vectors, labels)
        yield Represented(
            value,
            facts_of(items),
            tuple(items[at].id for at in chosen.rows),
            vectors[chosen.rows],
            chosen.weights,
            words.pooled(vectors),
        )


def facts_of(items: Sequence[Item]) -> Facts:
    """What items say of the case that they make."""
    return Facts(
        cells=len(items),
        patients=_words(item.patient for item in items),
        cases=_words(item.case for item in items),
        sources=_words(item.source for item in items),
        sites=_words(item.site for item in items),
        labels=dict(Counter(item.label for item in items if item.label is not None)),
        without_patient=sum(item.patient is None for item in items),
    )


def _words(values: Iterator[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value is not None}))


def _put(
    file: sqlite3.Connection, stores: Mapping[Pooling, Store], bags: Sequence[Represented]
) -> None:
    if not bags:
        return
    file.executemany(
        "INSERT INTO bags VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                bag.value,
                json.dumps(vars(bag.facts)),
                b"".join(UUID(id).bytes for id in bag.ids),
                np.asarray(bag.vectors, np.float32).tobytes(),
                np.asarray(bag.weights, np.float64).tobytes(),
                *(np.asarray(bag.points[one], np.float64).tobytes() for one in POOLINGS),
            )
            for bag in bags
        ],
    )
    points = [_point(bag) for bag in bags]
    for pooling, store in stores.items():
        rows = np.stack([_direction(pooling, bag.points[pooling]) for bag in bags])
        store.upsert(points, rows.astype(np.float32))


def _point_id(value: str) -> str:
    return str(uuid5(NAMESPACE, f"case|{value}"))


def _point(bag: Represented) -> Item:
    """A case as a store keeps it; its patient only where all of its items are of one."""
    facts = bag.facts
    alone = len(facts.patients) == 1 and not facts.without_patient
    return Item(
        id=_point_id(bag.value),
        dataset="cases",
        source=bag.value,
        case=bag.value,
        patient=facts.patients[0] if alone else None,
    )


def _direction(pooling: Pooling, point: Floats) -> Floats:
    """A pooled vector of length 1; of a histogram the roots, whose cosine is Bhattacharyya's."""
    rooted = np.sqrt(point) if pooling == "prototypes" else point
    if np.linalg.norm(rooted) > 1e-12:
        return np.asarray(rooted / np.linalg.norm(rooted))
    one = np.zeros(len(rooted))
    one[0] = 1.0
    return one


def _store(
    collection: Collection, folder: Path, pooling: Pooling, words: Words | None = None
) -> Store:
    """The points of one pooling, made where `words` are given."""
    if words is not None:
        lengths = {"vlad": words.words.size} | dict.fromkeys(
            ("prototypes", "composition"), len(words.prototypes)
        )
        length = lengths.get(pooling, collection.card.dim)
        (folder / f"{pooling}.dim").write_text(str(length))
    length = int((folder / f"{pooling}.dim").read_text())
    version = _version(collection, folder.name, pooling, length)
    return collection.stores.open(folder / pooling, version)[0]


def _version(collection: Collection, name: str, pooling: str, length: int) -> Version:
    """How the stores call the points of one pooling."""
    card = replace(collection.card, dim=length)
    return replace(collection.version, id=f"{collection.version.id}.{name}.{pooling}", card=card)


def _folder(collection: Collection, by: By, found: Found) -> Path:
    digest = content_digest(collection.folder)
    return collection.folder / FOLDER / f"{by}-{found}-{FORMAT}-{digest}"


def _sweep(collection: Collection, by: By, found: Found) -> None:
    """Remove what was made from an earlier content, and what a killed build left."""
    used = {one.folder for one in collection.derived.values() if isinstance(one, Cases)}
    for folder in (collection.folder / FOLDER).glob(f"{by}-{found}-*"):
        if folder in used:
            continue
        for pooling in POOLINGS:
            collection.stores.drop(_version(collection, folder.name, pooling, 1))
        shutil.rmtree(folder)
