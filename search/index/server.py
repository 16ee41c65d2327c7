"""The store behind a Qdrant server: the same contract, over the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from time import perf_counter, sleep
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.local.qdrant_local import QdrantLocal

from encoder.card import CardError, EncoderCard
from search.disk.closing import Closing
from search.errors import CollectionExists, NoSuchCollection, StoreDown, StoreError
from search.index.contract import (
    BATCH,
    LOOKED_PAST,
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
    clamp,
    exclusions,
    first_in_order,
    in_order,
    is_id,
    looks_past,
    mixed,
    need_same_encoder,
)
from search.index.payload import range_ends, to_item, to_payload
from search.index.recall import gauge
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, RANGES, Item

SECTION = "hemaseek"
"""Key of the card and the index settings in the collection's metadata."""
ASKED_AT_ONCE = 64
"""Queries in one request."""
ACORN = models.AcornSearchParams(enable=True, max_selectivity=LOOKED_PAST)
"""Looking past what does not meet a filter."""
INDEXES = dict.fromkeys(KEYWORDS, models.PayloadSchemaType.KEYWORD) | dict(
    zip(RANGES, (models.PayloadSchemaType.FLOAT, models.PayloadSchemaType.INTEGER), strict=True)
)
"""The payload indexes of every collection."""


def connect(url: str, api_key: str | None = None, timeout: float = 30) -> QdrantClient:
    """A client of the server at a URL that has answered once.

    Args:
        url: For instance `http://localhost:6333`.
        api_key: Where the server needs one.
        timeout: Seconds to wait for each answer.

    Raises:
        StoreDown: no server answers there.
        StoreError: the server refuses the key.
    """
    client = QdrantClient(
        url=url, api_key=api_key, timeout=max(1, round(timeout)), check_compatibility=False
    )
    try:
        with _answers(url):
            client.get_collections()
    except StoreError:
        client.close()
        raise
    return client


class ServerStore(Closing):
    """One collection on a server.

    The card and the index settings are in the collection's metadata. The client belongs to
    whoever made it: `close` leaves it open. Threads may share a store.
    """

    def __init__(
        self, client: QdrantClient, name: str, card: EncoderCard, settings: IndexSettings
    ) -> None:
        """Use `create` or `open`."""
        self.name, self.card, self.settings = name, card, settings
        self._client = client
        self._closed = False

    @classmethod
    def create(
        cls,
        client: QdrantClient,
        name: str,
        card: EncoderCard,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 - frozen
    ) -> ServerStore:
        """Make an empty collection for the vectors of one encoder.

        Every payload index is made while the collection is empty: made after the graph, they
        let filtered recall collapse without an error.

        Raises:
            CollectionExists: the server has one of that name.
            StoreDown: the server does not answer.
            StoreError: the server is too old to keep metadata.
        """
        store = cls(client, name, card, settings)
        with _answers(name):
            if client.collection_exists(name):
                raise CollectionExists(f"collection {name!r} is already on the server; open it")
            client.create_collection(
                name,
                vectors_config=models.VectorParams(
                    size=card.dim,
                    distance=models.Distance.COSINE,
                    on_disk=settings.vectors_on_disk,
                ),
                quantization_config=_quantization(settings),
                shard_number=settings.shards or None,
                replication_factor=settings.replicas or None,
                write_consistency_factor=settings.replicas // 2 + 1 if settings.replicas else None,
                hnsw_config=models.HnswConfigDiff(
                    m=settings.m,
                    ef_construct=settings.ef_construct,
                    full_scan_threshold=settings.scan_below_kb,
                    on_disk=settings.graph_on_disk,
                ),
                optimizers_config=models.OptimizersConfigDiff(
                    indexing_threshold=settings.graph_from_kb
                ),
                metadata=store._metadata(),
            )
            for field, kind in INDEXES.items():
                client.create_payload_index(name, field, field_schema=kind, wait=True)
            if SECTION not in (client.get_collection(name).config.metadata or {}):
                client.delete_collection(name)
                raise StoreError(
                    f"the server did not keep the metadata of collection {name!r}, where its "
                    "encoder is written; update the server to the version in docker/compose.yaml"
                )
        return store

    @classmethod
    def open(cls, client: QdrantClient, name: str, card: EncoderCard) -> ServerStore:
        """Open a collection to read and write.

        Raises:
            NoSuchCollection: the server has none of that name.
            WrongEncoder: it holds the vectors of another encoder.
            StoreError: something else made it, or it lacks a payload index.
            StoreDown: the server does not answer.
        """
        stored, settings = described(client, name)
        need_same_encoder(name, stored, card)
        with _answers(name):
            info = client.get_collection(name)
        missing = set(INDEXES) - set(info.payload_schema)
        if missing and not is_local(client):
            raise StoreError(
                f"collection {name!r} has no payload index on {', '.join(sorted(missing))}; "
                "filters would miss neighbours. Ingest again into a new collection"
            )
        return cls(client, name, stored, settings)

    def upsert(self, items: Sequence[Item], vectors: Vectors) -> None:
        """See `Store.upsert`."""
        rows = checked_vectors(vectors, self.card.dim, len(items))
        checked_items(items)
        last = list({item.id: at for at, item in enumerate(items)}.values())
        for start in range(0, len(last), BATCH):
            part = last[start : start + BATCH]
            points = models.Batch(
                ids=[items[at].id for at in part],
                vectors=rows[part].tolist(),
                payloads=[to_payload(items[at]) for at in part],
            )
            with self._at_server() as client:
                client.upsert(self.name, points, wait=True)

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
        past = mixed(where) and not exact and self._looks_past(where)
        hits: list[list[Hit]] = []
        for start in range(0, len(rows), ASKED_AT_ONCE):
            end = start + ASKED_AT_ONCE
            queries = [
                _Query(row, _filter(where, without), self.settings, exact, past)
                for row, without in zip(rows[start:end], excludes[start:end], strict=True)
            ]
            found = self._ask(queries, k + 1)
            hits += [
                self._settle(query, k, first) for query, first in zip(queries, found, strict=True)
            ]
        return hits

    def nearest_ids(
        self,
        vector: Vectors,
        k: int,
        where: Filter | None = None,
        exclude: Filter | None = None,
        sure: int | None = None,
    ) -> list[Near]:
        """See `Store.nearest_ids`; `sure` saves nothing here."""
        del sure
        return [Near(hit.item.id, hit.score) for hit in self.nearest(vector, k, where, exclude)]

    def get(self, ids: Sequence[str]) -> list[Stored]:
        """See `Store.get`."""
        known = [id for id in ids if is_id(id)]
        found: dict[str, Stored] = {}
        for start in range(0, len(known), BATCH):
            with self._at_server() as client:
                records = client.retrieve(
                    self.name, known[start : start + BATCH], with_payload=True, with_vectors=True
                )
            found |= {str(record.id): _stored(record) for record in records}
        return [found[id] for id in known if id in found]

    def scroll(
        self, where: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """See `Store.scroll`."""
        checked_count("limit", limit)
        checked_cursor(cursor)
        with self._at_server() as client:
            records, after = client.scroll(
                self.name,
                scroll_filter=_filter(where, None),
                limit=limit,
                offset=cursor,
                with_payload=True,
                with_vectors=True,
            )
        return Page([_stored(record) for record in records], None if after is None else str(after))

    def count(self, where: Filter | None = None) -> int:
        """See `Store.count`."""
        with self._at_server() as client:
            return client.count(self.name, count_filter=_filter(where, None), exact=True).count

    def facet(self, field: str, where: Filter | None = None, limit: int = 100) -> dict[str, int]:
        """See `Store.facet`."""
        checked_field(field)
        checked_count("limit", limit)
        with self._at_server() as client:
            found = client.facet(
                self.name, field, facet_filter=_filter(where, None), limit=limit, exact=True
            )
        return {str(hit.value): hit.count for hit in found.hits}

    def delete(self, ids: Sequence[str]) -> int:
        """See `Store.delete`."""
        known = sorted({id for id in ids if is_id(id)})
        gone = 0
        for start in range(0, len(known), BATCH):
            with self._at_server() as client:
                records = client.retrieve(
                    self.name, known[start : start + BATCH], with_payload=False
                )
                there = [record.id for record in records]
                if there:
                    client.delete(self.name, there, wait=True)
            gone += len(there)
        return gone

    def build(self) -> BuildReport:
        """See `Store.build`. The server makes the graph by itself; this waits for it."""
        began = perf_counter()
        with self._at_server() as client:
            while (
                info := client.get_collection(self.name)
            ).status != models.CollectionStatus.GREEN:
                if info.status == models.CollectionStatus.RED:
                    raise StoreError(
                        f"the server could not index collection {self.name!r}: "
                        f"{info.optimizer_status}; see its log"
                    )
                sleep(0.5)
        if not info.indexed_vectors_count:
            return BuildReport(self.count(), perf_counter() - began, 1.0, 1.0, sample=0)
        return gauge(self, self.settings.ef, self._widen, began)

    def flush(self) -> None:
        """See `Store.flush`. The server has no such call: it syncs its log by itself, every
        5 seconds where its settings say nothing else, so only a power cut can lose those."""

    def close(self) -> None:
        """See `Store.close`."""
        self._closed = True

    @contextmanager
    def _at_server(self) -> Iterator[QdrantClient]:
        if self._closed:
            raise StoreError(f"collection {self.name!r} was closed; open it again")
        with _answers(self.name):
            yield self._client

    def _looks_past(self, where: Filter | None) -> bool:
        """See `search.index.contract.looks_past`; the server estimates both counts."""
        with self._at_server() as client:
            left, points = (
                client.count(self.name, count_filter=one, exact=False).count
                for one in (_filter(where, None), None)
            )
        return looks_past(left, points)

    def _ask(self, queries: Sequence[_Query], limit: int) -> list[list[Hit]]:
        requests = [query.request(limit) for query in queries]
        with self._at_server() as client:
            found = client.query_batch_points(self.name, requests)
        return [_hits(response.points) for response in found]

    def _settle(self, query: _Query, k: int, first: list[Hit]) -> list[Hit]:
        """The hits; where a walk of the graph found fewer than `k`, everything is compared."""
        if len(first) < k and not query.exact:
            query = replace(query, exact=True)
            first = self._ask([query], k + 1)[0]
        return first_in_order(first, k, lambda more: self._ask([query], more)[0], in_order)

    def _widen(self, ef: int) -> None:
        self.settings = replace(self.settings, ef=ef)
        with self._at_server() as client:
            client.update_collection(self.name, metadata=self._metadata())

    def _metadata(self) -> dict[str, Any]:
        card = json.loads(self.card.to_json())
        return {SECTION: {"card": card, "index": asdict(self.settings)}}


def described(client: QdrantClient, name: str) -> tuple[EncoderCard, IndexSettings]:
    """The card and index settings that a collection on a server was made with.

    Raises:
        NoSuchCollection: names those that there are.
        StoreError: something else made the collection.
        StoreDown: the server does not answer.
    """
    with _answers(name):
        if not client.collection_exists(name):
            known = sorted(found.name for found in client.get_collections().collections)
            raise NoSuchCollection(name, known)
        metadata = client.get_collection(name).config.metadata or {}
    try:
        facts = metadata[SECTION]
        card = EncoderCard.from_json(json.dumps(facts["card"]), f"collection {name!r}")
        return card, IndexSettings(**facts["index"])
    except (KeyError, TypeError, ValueError, CardError) as error:
        raise StoreError(
            f"collection {name!r} does not say which encoder it belongs to ({error!r}); "
            "it was made by something else. Choose another name"
        ) from error


def point_alias(client: QdrantClient, alias: str, collection: str) -> None:
    """Make an alias lead to a collection, in one request.

    A collection that bears the name of the alias is one of a time before there were versions;
    it was derived from the shards, as everything on the server is, and it gives way.

    Raises:
        StoreError: something else made the collection of that name.
        StoreDown: the server does not answer.
    """
    with _answers(alias):
        aliases = {one.alias_name: one.collection_name for one in client.get_aliases().aliases}
        if aliases.get(alias) == collection:
            return
        there = {one.name for one in client.get_collections().collections}
        if alias in there:
            described(client, alias)  # refuses what is not ours
            client.delete_collection(alias)
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        changes: list[Any] = [models.CreateAliasOperation(create_alias=create)]
        if alias in aliases:
            delete = models.DeleteAlias(alias_name=alias)
            changes.insert(0, models.DeleteAliasOperation(delete_alias=delete))
        client.update_collection_aliases(changes)


def drop_collections(client: QdrantClient, name: str) -> None:
    """Remove a collection from a server, and what was derived from it (`NAME.` and more).

    What is not there is removed already.
    """
    with _answers(name):
        for one in client.get_collections().collections:
            if one.name == name or one.name.startswith(f"{name}."):
                client.delete_collection(one.name)


def is_local(client: QdrantClient) -> bool:
    """Whether a client is the in-process imitation, which has no payload indexes."""
    return isinstance(client._client, QdrantLocal)


@contextmanager
def _answers(what: str) -> Iterator[None]:
    """Turn what the client raises into what a caller can act on."""
    try:
        yield
    except ResponseHandlingException as error:
        raise StoreDown(
            f"the vector server does not answer ({what}): {error}; is it running, and is its "
            "address right?"
        ) from error
    except UnexpectedResponse as error:
        reason = error.content.decode(errors="replace")[:300]
        if error.status_code in (401, 403):
            raise StoreError(f"the vector server refuses the API key ({what}): {reason}") from error
        if error.status_code is not None and error.status_code >= 500:
            raise StoreDown(
                f"the vector server failed with {error.status_code} ({what}): {reason}"
            ) from error
        raise StoreError(
            f"the vector server refused with {error.status_code} ({what}): {reason}"
        ) from error


@dataclass(frozen=True)
class _Query:
    """One query, for any limit."""

    row: list[float]
    filter: models.Filter | None
    settings: IndexSettings
    exact: bool
    mixed: bool = False
    """Whether the walk looks past what does not meet the filter; see `search.index.contract`."""

    def request(self, limit: int) -> models.QueryRequest:
        rescored = None
        if self.settings.quantize != "none":
            rescored = models.QuantizationSearchParams(
                ignore=self.exact, rescore=True, oversampling=self.settings.rescored(limit)
            )
        return models.QueryRequest(
            query=self.row,
            limit=limit,
            filter=self.filter,
            params=models.SearchParams(
                hnsw_ef=self.settings.walked(limit, self.mixed),
                exact=self.exact,
                quantization=rescored,
                acorn=ACORN if self.mixed else None,
            ),
            with_payload=True,
        )


def _quantization(settings: IndexSettings) -> models.ScalarQuantization | None:
    """The bytes stay in memory: they are what makes leaving the floats on the disk cheap."""
    if settings.quantize == "none":
        return None
    return models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )
    )


def _hits(points: Sequence[models.ScoredPoint]) -> list[Hit]:
    return [
        Hit(item=to_item(str(point.id), point.payload or {}), score=clamp(point.score))
        for point in points
    ]


def _stored(record: models.Record) -> Stored:
    item = to_item(str(record.id), record.payload or {})
    return Stored(item, np.asarray(record.vector, np.float32))


def _conditions(filter: Filter | None) -> list[Any]:
    if filter is None:
        return []
    found: list[Any] = [models.HasIdCondition(has_id=list(filter.ids))] if filter.ids else []
    words = filter.stored_words
    unknown = models.IsEmptyCondition(is_empty=models.PayloadField(key="patient"))
    found += [unknown] * filter.nobodys
    if filter.recorded:
        by_case = models.Filter(must=[_any_of("case", filter.recorded), unknown])
        own = [_any_of("patient", words.pop("patient"))] if "patient" in words else []
        found.append(models.Filter(should=[by_case, *own]))
    found += [_any_of(name, values) for name, values in words.items()]
    found += [
        models.FieldCondition(key=name, range=models.Range(gte=low, lte=high))
        for name, (low, high) in range_ends(filter).items()
    ]
    return found


def _any_of(name: str, values: Sequence[str]) -> models.FieldCondition:
    return models.FieldCondition(key=name, match=models.MatchAny(any=list(values)))


def _filter(where: Filter | None, exclude: Filter | None) -> models.Filter | None:
    """All of `where` and none of `exclude`, or nothing to filter by."""
    met, unmet = _conditions(where), _conditions(exclude)
    return models.Filter(must=met, must_not=unmet) if met or unmet else None
