"""The items of a version: later shards replace earlier ones, and tombstones remove."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from versioned import draw, embedded_entries, mixed

from search.library.contents import Truth, hash_in, shard_files, shard_name
from search.library.library import Library
from search.library.shards import ShardError, make_shard_bytes, make_tombstone_bytes

CARD = mixed(1).card


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path


def put(folder: Path, content: bytes) -> None:
    name = shard_name(len(shard_files(folder / "shards")) + 1, content)
    (folder / "shards" / name).write_bytes(content)


def test_the_last_write_of_an_item_counts(folder: Path) -> None:
    entries = embedded_entries(draw(folder / "drawn", 1), mixed(1))
    ids = [UUID(entry.item.id).bytes for entry in entries]
    put(folder, make_shard_bytes(entries, CARD))
    truth = Truth.read(folder, CARD)
    assert set(truth.rows) == set(ids)

    put(folder, make_tombstone_bytes([entries[0].item.id, entries[1].item.id], CARD))
    changed = entries[2].item.model_copy(update={"label": "blast"})
    put(folder, make_shard_bytes([entries[1], type(entries[2])(changed, *rest(entries[2]))], CARD))
    truth.refresh()
    again = Truth.read(folder, CARD)

    assert truth.rows == again.rows
    assert set(truth.rows) == set(ids[1:]), "what came again lives again"
    assert truth.removed == again.removed == {ids[0]}
    (third,) = truth.entries([ids[2]])
    assert third.item.label == "blast"


def rest(entry: object) -> tuple[object, ...]:
    return (entry.vector, entry.thumbnail, entry.path, entry.notes)  # type: ignore[attr-defined]


def test_everything_comes_in_order_of_id_with_its_own_vector(folder: Path) -> None:
    entries = embedded_entries(draw(folder / "drawn", 2), mixed(1))
    put(folder, make_shard_bytes(entries[:5], CARD))
    put(folder, make_shard_bytes(entries[5:], CARD))
    ids, items, vectors = Truth.read(folder, CARD).table()

    assert ids == sorted(UUID(entry.item.id).bytes for entry in entries)
    mine = {entry.item.id: entry for entry in entries}
    for item, row in zip(items, vectors, strict=True):
        assert item == mine[item.id].item
        assert np.array_equal(row, mine[item.id].vector)


def test_a_shard_whose_bytes_changed_is_found(folder: Path) -> None:
    put(folder, make_shard_bytes(embedded_entries(draw(folder / "drawn", 1), mixed(1)), CARD))
    truth = Truth.read(folder, CARD)
    assert truth.damaged() == []
    (name,) = shard_files(folder / "shards")
    with (folder / "shards" / name).open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")
    assert truth.damaged() == [name]
    with pytest.raises(ShardError, match="not named"):
        hash_in("1.parquet")


def test_a_removed_item_is_gone_after_a_rebuild_and_may_come_back(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "library")
    entries = embedded_entries(draw(tmp_path / "drawn", 1), mixed(1))
    gone = entries[0].item.id
    with library.create("cells", CARD) as cells:
        cells.add(entries)
        assert cells.remove([gone, gone, "not an id"]) == 1
        assert cells.remove([gone]) == 0
        assert cells.store.get([gone]) == []
        assert cells.known([gone]) == {}
        assert (cells.rows.entry(gone), cells.rows.thumbnail(gone)) == (None, None)
        folder = cells.folder
    (folder / "catalogue.sqlite").unlink()
    (folder / "index").rename(tmp_path / "lost")
    with library.collection("cells") as cells:
        assert cells.store.count() == 5
        assert cells.add(entries).stored == 1
        assert cells.store.get([gone])[0].item == entries[0].item


def test_nobody_removes_items_by_uploading_a_tombstone(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "library")
    entries = embedded_entries(draw(tmp_path / "drawn", 1), mixed(1))
    with library.create("cells", CARD) as cells:
        cells.add(entries)
        with pytest.raises(ShardError, match="tombstone"):
            cells.add_shard(make_tombstone_bytes([entries[0].item.id], CARD))
