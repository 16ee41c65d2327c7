"""The embedded store: Qdrant's engine inside this process, one folder per collection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock, RLock
from time import perf_counter
from typing import Any
from uuid import uuid4

import numpy as np
import qdrant_edge as engine

from encoder.card import CardError, EncoderCard
from search.lock import FolderLock
from search.recall import gauge
from search.records import KEYWORDS, RANGES, Filter, Hit, Item
from search.store import (
    BATCH,
    BuildReport,
    CollectionExists,
    IndexSettings,
    NoSuchCollection,
    Page,
    Stored,
    StoreError,
    Vectors,
    WrongEncoder,
    checked_count,
    checked_cursor,
    checked_field,
    checked_items,
    checked_vectors,
    clamp,
    exclusions,
    is_id,
    range_ends,
    settled,
    to_item,
    to_payload,
)

FORMAT = 1
"""Version of the folder's layout."""
TURN = 32
"""Queries answered before others get their turn."""
OPTIMIZE = """
import sys, qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
"""What builds a graph in a process of its own: the engine holds the interpreter meanwhile."""


@dataclass(frozen=True)
class Collection:
    """What `collection.json` says about a folder."""

    name: str
    card: EncoderCard
    index: IndexSettings
    shard: str
    """Name of the folder inside that holds the points."""

    @classmethod
    def read(cls, folder: Path) -> Collection:
        """Read it, without opening the points.

        Raises:
            NoSuchCollection: there is none; names those beside it.
            StoreError: it cannot be read, or was written by a newer version.
        """
        path = folder / "collection.json"
        if not path.exists():
            raise NoSuchCollection(folder.name, collections(folder.parent))
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise StoreError(
                    f"{path} has format {facts['format']}, this version reads {FORMAT}; "
                    "ingest again into a new collection"
                )
            card = EncoderCard.from_json(json.dumps(facts["card"]), str(path))
            return cls(facts["name"], card, IndexSettings(**facts["index"]), facts["shard"])
        except (KeyError, TypeError, ValueError, CardError) as error:
            raise StoreError(
                f"{path} cannot be read: {error!r}; restore it or ingest again"
            ) from error

    def write(self, folder: Path) -> None:
        """Write it whole or not at all: beside, fsynced, then renamed."""
        facts = {
            "format": FORMAT,
            "name": self.name,
            "shard": self.shard,
            "index": asdict(self.index),
            "card": json.loads(self.card.to_json()),
        }
        path, beside = folder / "collection.json", folder / "collection.json.part"
        with beside.open("w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def collections(folder: Path) -> list[str]:
    """Names of the folders inside a folder that hold a collection, in order."""
    return sorted(path.parent.name for path in folder.glob("*/collection.json"))


class EdgeStore:
    """One collection in one folder, held by one process.

    Searches, writes and builds may come from several threads; they take turns at the engine,
    which answers no more queries a second from two threads than from one. A build makes the
    graph in another process on a copy, and meanwhile this one answers and writes.
    """

    def __init__(self, folder: Path, held: Collection, lock: FolderLock) -> None:
        """Use `create` or `open`."""
        self.name, self.card = held.name, held.card
        self.folder = folder
        self._held = held
        self._lock = lock
        self._turn = RLock()
        self._building = Lock()
        self._touched: set[str] | None = None
        self._shard: Any = _load(folder / held.shard)
        self._closed = False

    @classmethod
    def create(
        cls,
        folder: Path,
        name: str,
        card: EncoderCard,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 - frozen
    ) -> EdgeStore:
        """Make an empty collection for the vectors of one encoder.

        Args:
            folder: Of this collection alone; made where it is missing.
            name: Of the collection.
            card: Of the encoder.
            settings: Of the search graph.

        Raises:
            CollectionExists: the folder holds one already.
            StoreBusy: another process is making one here.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder, f"collection {name!r}")
        try:
            if (folder / "collection.json").exists():
                raise CollectionExists(f"collection {name!r} is already at {folder}; open it")
            _sweep(folder, keep=None)
            held = Collection(name, card, settings, _new_shard_name())
            _make_shard(folder / held.shard, card.dim, settings)
            held.write(folder)
            return cls(folder, held, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, folder: Path, name: str, card: EncoderCard) -> EdgeStore:
        """Open a collection to read and write.

        Raises:
            NoSuchCollection: there is none at `folder`.
            WrongEncoder: it holds the vectors of another encoder.
            StoreBusy: another process holds it, or another handle in this one.
        """
        held = Collection.read(folder)
        if held.name != name:
            raise NoSuchCollection(name, collections(folder.parent))
        if held.card.fingerprint != card.fingerprint:
            raise WrongEncoder(
                name,
                f"{held.card.id} {held.card.fingerprint}",
                f"{card.id} {card.fingerprint}",
            )
        lock = FolderLock(folder, f"collection {name!r}")
        try:
            held = Collection.read(folder)  # a build may have ended in between
            _sweep(folder, keep=held.shard)
            return cls(folder, held, lock)
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> EdgeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def settings(self) -> IndexSettings:
        """Of the search graph; a build may have raised `ef`."""
        return self._held.index

    def upsert(self, items: Sequence[Item], vectors: Vectors) -> None:
        """See `Store.upsert`."""
        rows = checked_vectors(vectors, self.card.dim, len(items))
        checked_items(items)
        last = list({item.id: at for at, item in enumerate(items)}.values())
        for start in range(0, len(last), BATCH):
            part = last[start : start + BATCH]
            points = [
                engine.Point(items[at].id, row, to_payload(items[at]))
                for at, row in zip(part, rows[part].tolist(), strict=True)
            ]
            with self._turn_at_engine() as shard:
                self._note(items[at].id for at in part)
                shard.update(engine.UpdateOperation.upsert_points(points))

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
        return self.nearest_batch(np.asarray(vector)[None], k, where, exclude, exact=exact)[0]

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
        checked_count("k", k)
        rows = checked_vectors(vectors, self.card.dim).tolist()
        excludes = exclusions(exclude, len(rows))
        met = _conditions(where)
        hits: list[list[Hit]] = []
        for start in range(0, len(rows), TURN):
            queries = [
                _Query(row, _filter(met, _conditions(without)), self.settings.ef, exact)
                for row, without in zip(
                    rows[start : start + TURN], excludes[start : start + TURN], strict=True
                )
            ]
            batch = engine.QueryBatchRequest([query.request(k + 1) for query in queries])
            with self._turn_at_engine() as shard:
                found = shard.query_batch(batch)
                hits += [
                    query.settle(shard, k, points)
                    for query, points in zip(queries, found, strict=True)
                ]
        return hits

    def get(self, ids: Sequence[str]) -> list[Stored]:
        """See `Store.get`."""
        known = [id for id in ids if is_id(id)]
        with self._turn_at_engine() as shard:
            records = shard.retrieve(known, with_payload=True, with_vector=True)
        found = {str(record.id): _stored(record) for record in records}
        return [found[id] for id in known if id in found]

    def scroll(
        self, where: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """See `Store.scroll`."""
        checked_count("limit", limit)
        checked_cursor(cursor)
        request = engine.ScrollRequest(
            offset=cursor,
            limit=limit,
            filter=_filter(_conditions(where), []),
            with_payload=True,
            with_vector=True,
        )
        with self._turn_at_engine() as shard:
            records, after = shard.scroll(request)
        return Page([_stored(record) for record in records], None if after is None else str(after))

    def count(self, where: Filter | None = None) -> int:
        """See `Store.count`."""
        request = engine.CountRequest(exact=True, filter=_filter(_conditions(where), []))
        with self._turn_at_engine() as shard:
            return int(shard.count(request))

    def facet(self, field: str, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """See `Store.facet`."""
        checked_field(field)
        checked_count("limit", limit)
        request = engine.FacetRequest(
            field, limit=limit, exact=True, filter=_filter(_conditions(where), [])
        )
        with self._turn_at_engine() as shard:
            return {str(hit.value): int(hit.count) for hit in shard.facet(request).hits}

    def delete(self, ids: Sequence[str]) -> int:
        """See `Store.delete`."""
        known = sorted({id for id in ids if is_id(id)})
        gone = 0
        for start in range(0, len(known), BATCH):
            part = known[start : start + BATCH]
            with self._turn_at_engine() as shard:
                there = [record.id for record in shard.retrieve(part, False, False)]
                self._note(str(id) for id in there)
                if there:
                    shard.update(engine.UpdateOperation.delete_points(there))
            gone += len(there)
        return gone

    def build(self) -> BuildReport:
        """See `Store.build`.

        Where few vectors are without a graph there is nothing to make: they are all compared.
        `ef` is raised until the recall is enough, and is kept with the collection.
        """
        began = perf_counter()
        with self._building:
            self._optimize()
            with self._turn_at_engine() as shard:
                info = shard.info()
            if not info.indexed_vectors_count:
                seconds = perf_counter() - began
                return BuildReport(
                    info.points_count, seconds, recall=1, filtered_recall=1, sample=0
                )
            return gauge(self, self.settings.ef, self._widen, began)

    def flush(self) -> None:
        """See `Store.flush`."""
        with self._turn_at_engine() as shard:
            shard.flush()

    def close(self) -> None:
        """See `Store.close`."""
        with self._turn:
            if not self._closed:
                self._closed = True
                try:
                    self._shard.flush()
                    self._shard.close()
                finally:
                    self._lock.release()

    @contextmanager
    def _turn_at_engine(self) -> Iterator[Any]:
        with self._turn:
            if self._closed:
                raise StoreError(f"collection {self.name!r} was closed; open it again")
            try:
                yield self._shard
            except Exception as error:
                if type(error) is not Exception:  # the engine raises nothing narrower
                    raise
                raise StoreError(f"collection {self.name!r} at {self.folder}: {error}") from error

    def _note(self, ids: Iterable[str]) -> None:
        if self._touched is not None:
            self._touched.update(ids)

    def _keep(self, held: Collection) -> None:
        held.write(self.folder)
        self._held = held

    def _widen(self, ef: int) -> None:
        self._keep(replace(self._held, index=replace(self.settings, ef=ef)))

    def _optimize(self) -> None:
        """Make the graph in another process on a copy, then change over to the copy."""
        with self._turn_at_engine() as shard:
            info = shard.info()
            bare = (info.points_count - info.indexed_vectors_count) * self.card.dim * 4 / 1024
            if bare < self.settings.graph_from_kb:
                return
            shard.flush()
            copy = self.folder / _new_shard_name()
            shutil.copytree(self.folder / self._held.shard, copy)
            self._touched = set()
        try:
            done = subprocess.run(  # noqa: S603 - our own text, our own folder
                [sys.executable, "-c", OPTIMIZE, str(copy)], capture_output=True, text=True
            )
            if done.returncode:
                raise StoreError(
                    f"the graph of collection {self.name!r} was not built "
                    f"(exit {done.returncode}): {done.stderr.strip()[-500:]}; "
                    "the collection answers as before"
                )
            with self._turn_at_engine() as shard:
                self._change_over(shard, copy)
        finally:
            self._touched = None
            _sweep(self.folder, keep=self._held.shard)

    def _change_over(self, old: Any, copy: Path) -> None:
        new = _load(copy)
        touched = sorted(self._touched or ())
        for start in range(0, len(touched), BATCH):
            part = touched[start : start + BATCH]
            records = old.retrieve(part, with_payload=True, with_vector=True)
            there = [engine.Point(r.id, r.vector, r.payload) for r in records]
            held = {str(record.id) for record in records}
            gone: list[Any] = [id for id in part if id not in held]
            if there:
                new.update(engine.UpdateOperation.upsert_points(there))
            if gone:
                new.update(engine.UpdateOperation.delete_points(gone))
        new.flush()
        self._keep(replace(self._held, shard=copy.name))
        self._shard = new
        old.close()


@dataclass(frozen=True)
class _Query:
    """One query, to be asked with any limit."""

    row: list[float]
    filter: Any
    ef: int
    exact: bool

    def request(self, limit: int) -> Any:
        return engine.QueryRequest(
            limit=limit,
            query=engine.Query.Nearest(self.row),
            filter=self.filter,
            params=engine.SearchParams(hnsw_ef=max(self.ef, limit), exact=self.exact),
            with_payload=True,
        )

    def settle(self, shard: Any, k: int, points: Sequence[Any]) -> list[Hit]:
        """The hits; where a walk of the graph found fewer than `k`, everything is compared."""
        query = self
        if len(points) < k and not self.exact:
            query = replace(self, exact=True)
            points = shard.query(query.request(k + 1))
        return settled(_hits(points), k, lambda more: _hits(shard.query(query.request(more))))


def _hits(points: Sequence[Any]) -> list[Hit]:
    return [
        Hit(item=to_item(str(point.id), point.payload), score=clamp(point.score))
        for point in points
    ]


def _stored(record: Any) -> Stored:
    item = to_item(str(record.id), record.payload)
    return Stored(item, np.asarray(record.vector, np.float32))


def _conditions(filter: Filter | None) -> list[Any]:
    if filter is None:
        return []
    found: list[Any] = [engine.HasIdCondition(set(filter.ids))] if filter.ids else []
    found += [
        engine.FieldCondition(name, match=engine.MatchAny(list(values)))
        for name, values in filter.words.items()
    ]
    found += [
        engine.FieldCondition(name, range=engine.RangeFloat(gte=low, lte=high))
        for name, (low, high) in range_ends(filter).items()
    ]
    return found


def _filter(met: list[Any], unmet: list[Any]) -> Any:
    """All of `met` and none of `unmet`, or nothing to filter by."""
    return engine.Filter(must=met, must_not=unmet) if met or unmet else None


def _new_shard_name() -> str:
    return f"shard-{uuid4().hex[:8]}"


def _make_shard(path: Path, dim: int, settings: IndexSettings) -> None:
    """An empty shard whose payload indexes are there before there can be a graph.

    Made after the graph, the same indexes let filtered recall fall to 7 % without an error.
    """
    config = engine.EdgeConfig(
        vectors=engine.EdgeVectorParams(size=dim, distance=engine.Distance.Cosine),
        hnsw_config=engine.HnswIndexConfig(
            m=settings.m,
            ef_construct=settings.ef_construct,
            full_scan_threshold=settings.scan_below_kb,
        ),
        optimizers=engine.EdgeOptimizersConfig(indexing_threshold=settings.graph_from_kb),
    )
    shard = engine.EdgeShard.create(str(path), config)
    kinds = engine.PayloadSchemaType
    schema = dict.fromkeys(KEYWORDS, kinds.Keyword)
    schema |= dict(zip(RANGES, (kinds.Float, kinds.Integer), strict=True))
    for name, kind in schema.items():
        shard.update(engine.UpdateOperation.create_field_index(name, kind))
    shard.flush()
    shard.close()


def _load(path: Path) -> Any:
    try:
        shard = engine.EdgeShard.load(str(path))
    except Exception as error:  # the engine raises nothing narrower
        raise StoreError(f"the points at {path} cannot be opened: {error}") from error
    missing = {*KEYWORDS, *RANGES} - set(shard.info().payload_schema)
    if missing:
        shard.close()
        raise StoreError(
            f"the points at {path} have no payload index on {', '.join(sorted(missing))}; "
            "filters would miss neighbours. Ingest again into a new collection"
        )
    return shard


def _sweep(folder: Path, keep: str | None) -> None:
    """Remove what an interrupted creation or build left."""
    for path in folder.glob("shard-*"):
        if path.name != keep:
            shutil.rmtree(path)
