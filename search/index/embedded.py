"""The embedded store: Qdrant's engine inside this process, one folder per collection."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import qdrant_edge as engine

from encoder.card import EncoderCard
from search.disk.closing import Closing
from search.disk.space import need_room
from search.errors import CollectionExists, NoSuchCollection
from search.index.contract import (
    BATCH,
    MANY_POINTS,
    BuildReport,
    IndexSettings,
    Near,
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
    looks_past,
    mixed,
    need_same_encoder,
    scroll_all,
)
from search.index.engine import (
    ShardQuery,
    conditions,
    filter_of,
    make_shard,
    new_shard_name,
    stored_of,
    sweep_shards,
)
from search.index.lists import Candidates, Lists
from search.index.manifest import Manifest
from search.index.payload import to_payload
from search.index.recall import gauge
from search.index.shard import OpenShard
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import Item

TURN = 32
"""Queries answered before others get their turn."""
SCANS_WORTH = 2
"""A walk under a filter without links of its own (`search.index.contract.mixed`) looks at so many
times more than one under a value that has them, so a scan is worth it for so many times more
vectors, at the usual `ef`; where a build raised it, a walk takes longer in proportion and a scan
does not."""


class EdgeStore(Closing):
    """One collection in one folder, which one process has open: see `disk.lock.lock_version`.

    Searches, writes and builds may come from several threads; they take turns at the engine,
    which answers no more queries a second from two threads than from one. A build makes the
    graph in another process on a copy, and meanwhile this one answers and writes.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Use `create` or `open`."""
        self.name, self.card = manifest.name, manifest.card
        self.folder = folder
        self._building = Lock()
        self._shard = OpenShard(folder, manifest)
        self._lists = Lists.open(folder, self._shard.points)
        self._since: set[str] | None = None
        """Ids written since new lists are being made; `None` while none are."""
        self._always: tuple[frozenset[str] | None, Any] = (None, None)
        """What changed since the lists were made, and the engine's condition on it."""

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
        """
        folder.mkdir(parents=True, exist_ok=True)
        if Manifest.there(folder):
            raise CollectionExists(f"collection {name!r} is already at {folder}; open it")
        sweep_shards(folder, keep=None)
        manifest = Manifest(name, card, settings, new_shard_name())
        make_shard(folder / manifest.shard, card.dim, settings)
        manifest.write(folder)
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path, name: str, card: EncoderCard) -> EdgeStore:
        """Open a collection to read and write.

        Raises:
            NoSuchCollection: there is none at `folder`.
            WrongEncoder: it holds the vectors of another encoder.
        """
        manifest = Manifest.read(folder)
        if manifest.name != name:
            raise NoSuchCollection(name, [manifest.name])
        need_same_encoder(name, manifest.card, card)
        sweep_shards(folder, keep=manifest.shard)
        return cls(folder, manifest)

    def __del__(self) -> None:
        """A store that was replaced goes with the last question that it answered."""
        if hasattr(self, "_shard"):
            self.close()

    @property
    def settings(self) -> IndexSettings:
        """Of the search graph; a build may have raised `ef`."""
        return self._shard.manifest.index

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
            with self._shard.turn() as shard:
                self._note([items[at].id for at in part])
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
        rows = checked_vectors(vectors, self.card.dim)
        excludes = exclusions(exclude, len(rows))
        hits: list[list[Hit]] = []
        for start in range(0, len(rows), TURN):
            part = slice(start, start + TURN)
            queries = self._queries(rows[part], k, where, excludes[part], exact=exact)
            batch = engine.QueryBatchRequest([query.request(k + 1) for query in queries])
            with self._shard.turn() as shard:
                found = shard.query_batch(batch)
                hits += [
                    query.hits(shard, k, points)
                    for query, points in zip(queries, found, strict=True)
                ]
        return hits

    def _queries(
        self,
        rows: Vectors,
        k: int,
        where: Filter | None,
        excludes: Sequence[Filter | None],
        *,
        exact: bool,
    ) -> list[ShardQuery]:
        """One for each row, as the engine is asked."""
        met = conditions(where)
        lists = None if exact else self._lists
        if lists is not None and not lists.answers(k, where):
            lists = None
        apart = mixed(where)
        if apart and lists is None and not exact:
            left, points = self._left(met)
            exact, apart = self._few(left), looks_past(left, points)
        queries = []
        for row, without in zip(rows, excludes, strict=True):
            filter = filter_of(met, conditions(without))
            query = ShardQuery(row.tolist(), filter, self.settings, exact, apart)
            if lists is not None:
                query = self._among(query, lists, lists.candidates(row, k, where, without))
            queries.append(query)
        return queries

    def nearest_ids(
        self,
        vector: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Filter | None = None,
        sure: int | None = None,
    ) -> list[Near]:
        """See `Store.nearest_ids`."""
        checked_count("k", k)
        row = checked_vectors(np.asarray(vector)[None], self.card.dim)
        [query] = self._queries(row, k, where, [exclude], exact=False)
        with self._shard.turn() as shard:
            return query.ids(shard, k, sure)

    def get(self, ids: Sequence[str]) -> list[Stored]:
        """See `Store.get`."""
        known = [id for id in ids if is_id(id)]
        with self._shard.turn() as shard:
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
        with self._shard.turn() as shard:
            records, after = shard.scroll(request)
        return Page(
            [stored_of(record) for record in records], None if after is None else str(after)
        )

    def count(self, where: Filter | None = None) -> int:
        """See `Store.count`."""
        request = engine.CountRequest(exact=True, filter=filter_of(conditions(where), []))
        with self._shard.turn() as shard:
            return int(shard.count(request))

    def facet(self, field: str, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """See `Store.facet`."""
        checked_field(field)
        checked_count("limit", limit)
        request = engine.FacetRequest(
            field, limit=limit, exact=True, filter=filter_of(conditions(where), [])
        )
        with self._shard.turn() as shard:
            return {str(hit.value): int(hit.count) for hit in shard.facet(request).hits}

    def delete(self, ids: Sequence[str]) -> int:
        """See `Store.delete`."""
        known = sorted({id for id in ids if is_id(id)})
        gone = 0
        for start in range(0, len(known), BATCH):
            part = known[start : start + BATCH]
            with self._shard.turn() as shard:
                there = [record.id for record in shard.retrieve(part, False, False)]
                self._note([str(id) for id in there])
                if there:
                    shard.update(engine.UpdateOperation.delete_points(there))
            gone += len(there)
        return gone

    def build(self) -> BuildReport:
        """See `Store.build`.

        Where few vectors are without a graph there is nothing to make: they are all compared.
        `ef` is raised until the recall is enough, and is kept with the collection. Many points are
        put into lists too (`search.index.lists`), of which as many are visited as recall takes.
        """
        began = perf_counter()
        with self._building:
            self._shard.build_graph()
            with self._shard.turn() as shard:
                info = shard.info()
            if not info.indexed_vectors_count:
                seconds = perf_counter() - began
                return BuildReport(
                    info.points_count, seconds, recall=1, filtered_recall=1, sample=0
                )
            many, lists = info.points_count >= MANY_POINTS, self._lists
            if lists is None or lists.worn or not many:
                self._drop_lists()
                report = gauge(self, self.settings.ef, self._widen, began)
                if not many:
                    return report
                lists = self._make_lists(info.points_count)
            return replace(gauge(self, lists.visit, lists.widen, began), ef=None)

    def flush(self) -> None:
        """See `Store.flush`."""
        with self._shard.turn() as shard:
            shard.flush()
            if self._lists is not None:
                self._lists.flush()

    def close(self) -> None:
        """See `Store.close`."""
        self._shard.close()
        if self._lists is not None:
            self._lists.close()

    def _note(self, ids: Sequence[str]) -> None:
        """Points are written or removed: what is being built has to catch up with them."""
        self._shard.note(ids)
        if self._lists is not None:
            self._lists.note(ids)
        if self._since is not None:
            self._since.update(ids)

    def _among(self, query: ShardQuery, lists: Lists, near: Candidates) -> ShardQuery:
        """A query of the candidates, and of all that was written since the lists were made."""
        always, changed = self._always, lists.changed
        if always[0] is not changed:
            always = self._always = (changed, engine.HasIdCondition(set(changed)))
        among = [engine.HasIdCondition(set(near.ids))] + [always[1]] * bool(changed)
        return replace(query, among=tuple(among), whole=near.whole)

    def _drop_lists(self) -> None:
        """Answer without lists from now on."""
        if self._lists is not None:
            with self._shard.turn():
                dropped, self._lists = self._lists, None
                dropped.close()
            shutil.rmtree(dropped.folder)

    def _make_lists(self, points: int) -> Lists:
        """Lists of everything stored, while others ask and write."""
        need_room(self.folder, 3 * points * self.card.dim)
        with self._shard.turn():
            self._since = set()
        try:
            made = Lists.make(self.folder, scroll_all(self), self.card.dim)
            with self._shard.turn():
                made.note(self._since)
                made.take_place()
                before, self._lists = self._lists, made
            if before is not None:
                before.close()
            return made
        finally:
            self._since = None
            Lists.sweep(self.folder)

    def _left(self, met: list[Any]) -> tuple[int, int]:
        """About how many points meet some conditions, and how many there are."""
        request = engine.CountRequest(exact=False, filter=filter_of(met, []))
        with self._shard.turn() as shard:
            return int(shard.count(request)), int(shard.info().points_count)

    def _few(self, left: int) -> bool:
        """Whether comparing what a mixed filter leaves is quicker than a walk past the rest."""
        worth = SCANS_WORTH * max(1.0, self.settings.ef / IndexSettings.ef)
        return left * self.card.dim * 4 < worth * self.settings.scan_below_kb * 1024

    def _widen(self, ef: int) -> None:
        manifest = self._shard.manifest
        self._shard.keep(replace(manifest, index=replace(manifest.index, ef=ef)))
