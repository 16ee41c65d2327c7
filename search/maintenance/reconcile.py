"""Compares the index with the shards, and mends where it differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Literal
from uuid import UUID

import numpy as np

from search.index.contract import BATCH, Stored, Vectors, scroll_all
from search.library.collection import Collection
from search.library.contents import Truth
from search.library.shards import Entry, ShardError, payload_digest
from search.schemas.versions import ReconcileRecord

Why = Literal["missing", "payload", "vector"]


def reconcile(collection: Collection, *, mend: bool = True) -> ReconcileRecord:
    """Compare every point of the index with its shard, and mend what differs.

    Writers wait meanwhile. It takes about 350 bytes of memory for each item.

    Args:
        collection: Open.
        mend: Upsert what is missing or differs, remove what no shard has, and write the
            catalogue anew where it is wrong; else only report.

    Raises:
        ShardError: a shard is damaged; then nothing is touched, for the shards are the truth.
            Restore it from a snapshot.
        StoreBusy: another version serves by now.
    """
    with collection.still():
        truth = Truth.read(collection.folder, collection.card)
        damaged = truth.damaged()
        if damaged:
            raise ShardError(
                f"{len(damaged)} shards of collection {collection.name!r} are not what was "
                f"written: {', '.join(damaged[:5])}; restore them from a snapshot"
            )
        want = shard_points(truth)
        have = dict(index_points(collection))
        wrong: dict[bytes, Why] = {
            id: why
            for id, point in want.items()
            if (why := _difference(point, have.get(id))) is not None
        }
        phantom = sorted(have.keys() - want.keys())
        placed = {id: (row.digest, row.shard, row.row) for id, row in truth.rows.items()}
        catalogue = _differences(placed, collection.catalogue.places())
        if mend:
            _mend(collection, truth, wrong, phantom, catalogue)
            if wrong or phantom:
                have = dict(index_points(collection))
    reasons = list(wrong.values())
    shards, index = point_hash(want.items()), point_hash(have.items())
    return ReconcileRecord(
        collection=collection.name,
        version=collection.version.id,
        points=len(want),
        shards=shards,
        index=index,
        missing=reasons.count("missing"),
        phantom=len(phantom),
        payload=reasons.count("payload"),
        vector=reasons.count("vector"),
        catalogue=catalogue,
        mended=mend,
        equal=shards == index and (mend or not catalogue),
    )


Point = tuple[bytes, bytes]
"""Payload digest and the SHA-256 of the vector's bytes, of one item."""


def shard_points(truth: Truth) -> dict[bytes, Point]:
    """Every living item by the shards."""
    found: dict[bytes, Point] = {}
    for name, ids in truth.by_shard(list(truth.rows)).items():
        vectors = truth.open(name).vectors()
        for id in ids:
            row = truth.rows[id]
            found[id] = (row.digest.encode(), _vector_digest(vectors[row.row]))
    return found


def index_points(collection: Collection) -> Iterator[tuple[bytes, Point]]:
    """Every point of the index, in order of id."""
    for stored in scroll_all(collection.store):
        yield UUID(stored.item.id).bytes, _point(stored)


def point_hash(points: Iterable[tuple[bytes, Point]]) -> str:
    """One hash of all points: of id, payload digest and vector bytes, in order of id."""
    whole = sha256()
    for id, (payload, vector) in sorted(points):
        whole.update(id + payload + vector)
    return whole.hexdigest()


def _point(stored: Stored) -> Point:
    return payload_digest(stored.item).encode(), _vector_digest(stored.vector)


def _vector_digest(vector: Vectors) -> bytes:
    return sha256(vector.astype("<f4").tobytes()).digest()


def _difference(want: Point, have: Point | None) -> Why | None:
    if have is None:
        return "missing"
    if have[1] != want[1]:
        return "vector"
    return "payload" if have[0] != want[0] else None


def _differences(
    want: dict[bytes, tuple[str, str, int]], have: dict[bytes, tuple[str, str, int]]
) -> int:
    wrong = sum(have.get(id) != place for id, place in want.items())
    return wrong + len(have.keys() - want.keys())


def _mend(
    collection: Collection, truth: Truth, wrong: dict[bytes, Why], phantom: list[bytes], places: int
) -> None:
    with collection.changing():
        batch: list[Entry] = []
        for entry in truth.entries(list(wrong)):
            batch.append(entry)
            if len(batch) == BATCH:
                _upsert(collection, batch)
                batch = []
        _upsert(collection, batch)
        for at in range(0, len(phantom), BATCH):
            collection.store.delete([str(UUID(bytes=id)) for id in phantom[at : at + BATCH]])
        collection.store.flush()
        if places:
            collection.catalogue.place_anew(truth)


def _upsert(collection: Collection, entries: list[Entry]) -> None:
    if entries:
        vectors = np.stack([entry.vector for entry in entries])
        collection.store.upsert([entry.item for entry in entries], vectors)
