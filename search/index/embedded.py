"""The embedded store: Qdrant's engine inside this process, one folder per collection."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock, RLock
from time import perf_counter
from typing import Any

import numpy as np
import qdrant_edge as engine

from encoder.card import EncoderCard
from search.disk.closing import Closing
from search.disk.lock import FolderLock
from search.disk.space import need_room
from search.errors import CollectionExists, NoSuchCollection, StoreError
from search.index.contract import (
    BATCH,
    BuildReport,
    IndexSettings,
    Page,
    Stored,
    Vectors,
    checked_count,
    checked_cursor,
    checked_field,
    checked_items,
    checked_vectors,
    exclusions,
    is_id,
    mixed,
    need_same_encoder,
)
from search.index.engine import (
    ShardQuery,
    conditions,
    filter_of,
    load_shard,
    make_shard,
    new_shard_name,
    stored_of,
    sweep_shards,
)
from search.index.manifest import Manifest, collections
from search.index.payload import to_payload
from search.index.recall import gauge
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import Item

TURN = 32
"""Queries answered before others get their turn."""
SCANS_WORTH = 2
"""A walk under a filter without links of its own (`search.index.contract.mixed`) looks at so many
times more than one under a value that has them, so a scan is worth it for so many times more
vectors."""
OPTIMIZE = """
import sys, qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
"""What builds a graph in a process of its own: the engine holds the interpreter meanwhile."""


class EdgeStore(Closing):
    """One collection in one folder, held by one process.

    Searches, writes and builds may come from several threads; they take turns at the engine,
    which answers no more queries a second from two threads than from one. A build makes the
    graph in another process on a copy, and meanwhile this one answers and writes.
    """

    def __init__(self, folder: Path, held: Manifest, lock: FolderLock) -> None:
        """Use `create` or `open`."""
        self.name, self.card = held.name, held.card
        self.folder = folder
        self._held = held
        self._lock = lock
        self._turn = RLock()
        self._building = Lock()
        self._touched: set[str] | None = None
        self._shard: Any = load_shard(folder / held.shard)
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
            sweep_shards(folder, keep=None)
            held = Manifest(name, card, settings, new_shard_name())
            make_shard(folder / held.shard, card.dim, settings)
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
        held = Manifest.read(folder)
        if held.name != name:
            raise NoSuchCollection(name, collections(folder.parent))
        need_same_encoder(name, held.card, card)
        lock = FolderLock(folder, f"collection {name!r}")
        try:
            held = Manifest.read(folder)  # a build may have ended in between
            sweep_shards(folder, keep=held.shard)
            return cls(folder, held, lock)
        except BaseException:
            lock.release()
            raise

    def __del__(self) -> None:
        """A store that was replaced goes with the last question that it answered."""
        if hasattr(self, "_shard"):
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
        met = conditions(where)
        apart = mixed(where)
        exact = exact or (apart and self._leaves_few(met))
        hits: list[list[Hit]] = []
        for start in range(0, len(rows), TURN):
            queries = [
                ShardQuery(row, filter_of(met, conditions(without)), self.settings, exact, apart)
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
        found = {str(record.id): stored_of(record) for record in records}
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
            filter=filter_of(conditions(where), []),
            with_payload=True,
            with_vector=True,
        )
        with self._turn_at_engine() as shard:
            records, after = shard.scroll(request)
        return Page(
            [stored_of(record) for record in records], None if after is None else str(after)
        )

    def count(self, where: Filter | None = None) -> int:
        """See `Store.count`."""
        request = engine.CountRequest(exact=True, filter=filter_of(conditions(where), []))
        with self._turn_at_engine() as shard:
            return int(shard.count(request))

    def facet(self, field: str, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """See `Store.facet`."""
        checked_field(field)
        checked_count("limit", limit)
        request = engine.FacetRequest(
            field, limit=limit, exact=True, filter=filter_of(conditions(where), [])
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

    def _leaves_few(self, met: list[Any]) -> bool:
        """Whether comparing all that a mixed filter leaves is quicker than a walk past the rest."""
        request = engine.CountRequest(exact=False, filter=filter_of(met, []))
        with self._turn_at_engine() as shard:
            left = int(shard.count(request))
        return left * self.card.dim * 4 < SCANS_WORTH * self.settings.scan_below_kb * 1024

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

    def _keep(self, held: Manifest) -> None:
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
            held = self.folder / self._held.shard
            copy = self.folder / new_shard_name()
            size = sum(file.stat().st_size for file in held.rglob("*") if file.is_file())
            need_room(self.folder, 2 * size)  # the copy, and what is made in it
            shutil.copytree(held, copy)
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
            sweep_shards(self.folder, keep=self._held.shard)

    def _change_over(self, old: Any, copy: Path) -> None:
        new = load_shard(copy)
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
