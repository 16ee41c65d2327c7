"""The embedded engine's shard: made, opened, and queried in its own types."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import qdrant_edge as engine

from search.errors import StoreError
from search.index.contract import (
    LOOKED_PAST,
    IndexSettings,
    Near,
    Stored,
    clamp,
    first_in_order,
    near_in_order,
)
from search.index.payload import range_ends, to_item
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, RANGES

ACORN = engine.AcornSearchParams(enable=True, max_selectivity=LOOKED_PAST)
"""Looking past what does not meet a filter."""


@dataclass(frozen=True)
class ShardQuery:
    """One query, for any limit."""

    row: list[float]
    filter: Any
    settings: IndexSettings
    exact: bool
    mixed: bool = False
    """Whether the walk looks past what does not meet the filter; see `search.index.contract`."""
    among: tuple[Any, ...] = ()
    """Conditions on ids, one of which must be met; these are compared, and no others."""
    whole: bool = False
    """Whether nothing but `among` meets the filter."""

    def request(self, limit: int, payload: bool = True) -> Any:
        """As the engine takes it; `payload` says whether the points' fields are read."""
        if self.among:
            some = engine.Filter(should=list(self.among))
            only = filter_of([some, self.filter] if self.filter else [some], [])
            return replace(self, filter=only, among=(), exact=True).request(limit, payload)
        rescored = None
        if self.settings.quantize != "none":
            rescored = engine.QuantizationSearchParams(
                ignore=self.exact, rescore=True, oversampling=self.settings.rescored(limit)
            )
        return engine.QueryRequest(
            limit=limit,
            query=engine.Query.Nearest(self.row),
            filter=self.filter,
            params=engine.SearchParams(
                hnsw_ef=self.settings.walked(limit, self.mixed),
                exact=self.exact,
                quantization=rescored,
                acorn=ACORN if self.mixed else None,
            ),
            with_payload=payload,
        )

    def hits(self, shard: Any, k: int, points: Sequence[Any]) -> list[Hit]:
        """The hits; where a walk or a comparison of some found too few, everything is compared."""
        best, points = self._first(shard, k, points)
        payloads = {str(point.id): point.payload for point in points}
        if unread := [one.id for one in best if one.id not in payloads]:
            records = shard.retrieve(unread, with_payload=True, with_vector=False)
            payloads |= {str(record.id): record.payload for record in records}
        return [Hit(item=to_item(one.id, payloads[one.id]), score=one.score) for one in best]

    def ids(self, shard: Any, k: int, sure: int | None) -> list[Near]:
        """`hits` without their items, whose payloads are not read."""
        points = shard.query(self.request(k + 1, payload=False))
        return self._first(shard, k, points, sure, payload=False)[0]

    def _first(
        self,
        shard: Any,
        k: int,
        points: Sequence[Any],
        sure: int | None = None,
        payload: bool = True,
    ) -> tuple[list[Near], Sequence[Any]]:
        """The first `k` in order, and points read so far; of those that are as near none is."""
        query, points = self._enough(shard, k, points, payload)

        def more(limit: int) -> list[Near]:
            return _ranked(shard.query(query.request(limit, payload=False)))

        return first_in_order(_ranked(points), k, more, near_in_order, sure), points

    def _enough(
        self, shard: Any, k: int, points: Sequence[Any], payload: bool
    ) -> tuple[ShardQuery, Sequence[Any]]:
        everything = replace(self, among=(), exact=True)
        query = everything if self.among else self
        if len(points) < k and not (self.exact or self.whole):
            query = everything
            points = shard.query(query.request(k + 1, payload))
        return query, points


def _ranked(points: Sequence[Any]) -> list[Near]:
    """What the engine found, in its order."""
    return [Near(str(point.id), clamp(point.score)) for point in points]


def stored_of(record: Any) -> Stored:
    """A record of the engine with its vector."""
    item = to_item(str(record.id), record.payload)
    return Stored(item, np.asarray(record.vector, np.float32))


def conditions(filter: Filter | None) -> list[Any]:
    """Each condition of a filter, as the engine's types."""
    if filter is None:
        return []
    found: list[Any] = [engine.HasIdCondition(set(filter.ids))] if filter.ids else []
    words = filter.stored_words
    if filter.recorded:
        by_case = [_any_of("case", filter.recorded)]
        either: list[Any] = [engine.Filter(must=[*by_case, engine.IsEmptyCondition("patient")])]
        if "patient" in words:
            either.append(_any_of("patient", words.pop("patient")))
        found.append(engine.Filter(should=either))
    found += [engine.IsEmptyCondition("patient")] * filter.nobodys
    found += [_any_of(name, values) for name, values in words.items()]
    found += [
        engine.FieldCondition(name, range=engine.RangeFloat(gte=low, lte=high))
        for name, (low, high) in range_ends(filter).items()
    ]
    return found


def _any_of(name: str, values: Sequence[str]) -> Any:
    return engine.FieldCondition(name, match=engine.MatchAny(list(values)))


def filter_of(met: list[Any], unmet: list[Any]) -> Any:
    """All of `met` and none of `unmet`, or nothing to filter by."""
    return engine.Filter(must=met, must_not=unmet) if met or unmet else None


def new_shard_name() -> str:
    """A name that no process has used: one that was killed may still write to its own."""
    return f"shard-{uuid4().hex[:8]}"


def make_shard(path: Path, dim: int, settings: IndexSettings) -> None:
    """An empty shard whose payload indexes are there before there can be a graph.

    Made after the graph, the same indexes let filtered recall fall to 7 % without an error.

    Raises:
        StoreError: the engine cannot make it; with its reason.
    """
    cold, cached = engine.Memory.Cold, engine.Memory.Cached
    config = engine.EdgeConfig(
        vectors=engine.EdgeVectorParams(
            size=dim,
            distance=engine.Distance.Cosine,
            memory=cold if settings.vectors_on_disk else cached,
        ),
        hnsw_config=engine.HnswIndexConfig(
            m=settings.m,
            ef_construct=settings.ef_construct,
            full_scan_threshold=settings.scan_below_kb,
            memory=cold if settings.graph_on_disk else cached,
        ),
        quantization_config=_quantization(settings),
        optimizers=engine.EdgeOptimizersConfig(indexing_threshold=settings.graph_from_kb),
    )
    kinds = engine.PayloadSchemaType
    schema = dict.fromkeys(KEYWORDS, kinds.Keyword)
    schema |= dict(zip(RANGES, (kinds.Float, kinds.Integer), strict=True))
    try:
        shard = engine.EdgeShard.create(str(path), config)
        for name, kind in schema.items():
            shard.update(engine.UpdateOperation.create_field_index(name, kind))
        shard.flush()
        shard.close()
    except Exception as error:  # the engine raises nothing narrower
        raise StoreError(f"no points can be kept at {path}: {error}") from error


def _quantization(settings: IndexSettings) -> Any:
    """The bytes stay in memory: they are what makes leaving the floats on the disk cheap."""
    if settings.quantize == "none":
        return None
    kind = engine.ScalarType.Int8
    return engine.ScalarQuantizationConfig(kind, quantile=0.99, memory=engine.Memory.Pinned)


def load_shard(path: Path) -> Any:
    """Open a shard.

    Raises:
        StoreError: it cannot be opened, or lacks a payload index.
    """
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


def sweep_shards(folder: Path, keep: str | None) -> None:
    """Remove what an interrupted creation or build left, and the engine in the shard that stays."""
    for path in folder.glob("shard-*"):
        if path.name != keep:
            shutil.rmtree(path)
    for path in folder.glob("shard-*/wal/.atomicwrite*"):
        shutil.rmtree(path)
