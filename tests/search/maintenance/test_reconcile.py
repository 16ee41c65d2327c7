"""The index is the shards, point by point; differences are found, reported and mended."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from uuid import UUID

import numpy as np
import pytest
from versioned import draw, embedded_entries, fill

from encoder.registry import load
from search.index.contract import scroll_all
from search.library.contents import Truth
from search.library.library import Library
from search.library.shards import ShardError
from search.maintenance.reconcile import index_points, point_hash, reconcile, shard_points


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    library = fill(tmp_path)
    with library.collection("cells") as cells:
        ids = [stored.item.id for stored in scroll_all(cells.store)]
        cells.remove(ids[:2])
        item = cells.store.get([ids[5]])[0].item
        cells.update([item.model_copy(update={"label": "blast", "um_per_px": 0.1234567890123456})])
    return library


def test_a_rebuild_from_the_shards_has_the_point_hash_of_the_index(library: Library) -> None:
    with library.collection("cells") as cells:
        before = point_hash(index_points(cells))
        truth = point_hash(shard_points(Truth.read(cells.folder, cells.card)).items())
    rmtree(cells.folder / "index")
    with library.collection("cells") as cells:
        assert point_hash(index_points(cells)) == before == truth
        found = reconcile(cells)

    assert found.equal
    assert found.index == before
    assert (found.points, found.missing, found.phantom, found.payload) == (22, 0, 0, 0)


def test_the_point_hash_changes_with_anything_and_not_with_order() -> None:
    points = [(b"a" * 16, (b"p", b"v")), (b"b" * 16, (b"p", b"w"))]
    assert point_hash(points) == point_hash(points[::-1])
    for other in (points[:1], [points[0], (b"b" * 16, (b"q", b"w"))], [points[0], points[0]]):
        assert point_hash(other) != point_hash(points)


def test_every_kind_of_harm_is_counted_and_mended(tmp_path: Path, library: Library) -> None:
    with library.collection("cells") as cells:
        stored = list(scroll_all(cells.store))
        cells.store.delete([stored[0].item.id, stored[1].item.id])
        strange = embedded_entries(draw(tmp_path / "strange", 1, seed=8), load("colour"))
        cells.store.upsert(
            [entry.item for entry in strange], np.stack([entry.vector for entry in strange])
        )
        wrong = stored[2].item.model_copy(update={"label": "wrong"})
        cells.store.upsert([wrong], stored[2].vector[None])
        cells.store.upsert([stored[3].item], -stored[3].vector[None])

        found = reconcile(cells, mend=False)
        assert (found.missing, found.phantom, found.payload, found.vector) == (2, 6, 1, 1)
        assert not found.equal
        assert cells.store.count() == 22 - 2 + 6

        mended = reconcile(cells)
        assert (mended.missing, mended.phantom, mended.payload, mended.vector) == (2, 6, 1, 1)
        assert mended.equal
        assert list(map(str, scroll_all(cells.store))) == list(map(str, stored))
        again = reconcile(cells)
        assert (again.missing, again.phantom, again.payload, again.vector) == (0, 0, 0, 0)


def test_a_wrong_catalogue_is_written_anew(library: Library) -> None:
    with library.collection("cells") as cells:
        ids = [stored.item.id for stored in scroll_all(cells.store)]
    with closing(sqlite3.connect(cells.folder / "catalogue.sqlite")) as catalogue, catalogue:
        gone, moved = UUID(ids[0]).bytes, UUID(ids[1]).bytes
        catalogue.execute("DELETE FROM items WHERE id = ?", (gone,))
        catalogue.execute("UPDATE items SET row = row + 1 WHERE id = ?", (moved,))
    with library.collection("cells") as cells:
        assert cells.rows.entry(ids[0]) is None
        assert not reconcile(cells, mend=False).equal
        assert reconcile(cells).catalogue == 2
        assert reconcile(cells).catalogue == 0
        assert {id for id in ids if cells.rows.thumbnail(id)} == set(ids)


def test_a_damaged_shard_stops_everything(library: Library) -> None:
    with library.collection("cells") as cells:
        cells.store.delete([next(iter(scroll_all(cells.store))).item.id])
        path = min((cells.folder / "shards").iterdir())
        whole = path.read_bytes()
        path.write_bytes(whole[:300] + b"\0" + whole[301:])

        with pytest.raises(ShardError, match="not what was written"):
            reconcile(cells)
        assert cells.store.count() == 21
