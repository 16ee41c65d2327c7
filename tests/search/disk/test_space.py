"""A full, read-only or limited disk is answered in words, and nothing half written is left."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from disks import MIB, Disk, small_disk
from fastapi.testclient import TestClient

from encoder.registry import load
from search.api.app import create_app
from search.disk import space as room
from search.disk.space import RESERVE, DiskTrouble, in_disk_words, need_room, try_to_write
from search.errors import StoreError
from search.library.collection import Collection
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes, make_thumbnail
from search.maintenance.reconcile import reconcile
from search.schemas.items import Item, item_id, source_id
from search.service import Service
from search.settings import Settings

CARD = load("colour").card


def entries(n: int, seed: int = 0) -> list[Entry]:
    rng = np.random.default_rng(seed)
    made = []
    for at in range(n):
        source = source_id(f"{seed} {at}".encode())
        item = Item(id=item_id("d", source), dataset="d", source=source)
        vector = rng.normal(size=CARD.dim).astype(np.float32)
        image = rng.integers(0, 255, (16, 16, 3), np.uint8)
        made.append(Entry(item, vector, make_thumbnail(image)))
    return made


def files(collection: Collection) -> list[str]:
    return sorted(path.name for path in (collection.folder / "shards").iterdir())


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", (RESERVE >> 20) + 200) as disk:
        yield disk


def test_what_would_fill_the_disk_is_refused_and_what_is_there_stays_whole(disk: Disk) -> None:
    with Library.open(disk.folder / "library").create("cells", CARD) as cells:
        cells.add(entries(8))
        before = files(cells)
        disk.fill(leave=RESERVE)

        with pytest.raises(DiskTrouble, match=r"MiB are free .* make room, then run the same"):
            cells.add(entries(8, seed=1))

        assert files(cells) == before
        assert cells.store.count() == 8
        assert reconcile(cells, mend=False).equal
        disk.free()
        assert cells.add(entries(8, seed=1)).stored == 8


def test_a_disk_that_is_full_to_the_last_byte_leaves_no_half_a_shard(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "RESERVE", -1 << 40)  # another process was quicker than the look
    with Library.open(disk.folder / "library").create("cells", CARD) as cells:
        cells.add(entries(8))
        before = files(cells)
        disk.fill()

        with pytest.raises(DiskTrouble, match="the disk is full; make room"):
            cells.add(entries(8, seed=1))

        assert files(cells) == before
        disk.free()
        assert reconcile(cells, mend=False).equal


def test_a_new_collection_is_not_begun_without_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        library = Library.open(disk.folder / "library")

        with pytest.raises(DiskTrouble, match=r"only \d MiB are free and 256 are needed"):
            library.create("cells", CARD)

        assert library.names() == []


def test_the_service_answers_on_and_refuses_writes_when_the_disk_is_full(disk: Disk) -> None:
    settings = Settings(library=disk.folder / "library")
    with Library.open(settings.library).create("cells", CARD) as cells:
        cells.add(entries(8))
    service = Service.open(settings)
    with TestClient(create_app(service)) as client:
        disk.fill(leave=2 * MIB)
        shard = make_shard_bytes(entries(8, seed=1), CARD)

        refused = client.put("/v1/collections/cells/shards", content=shard)
        found = client.post("/v1/search", json={"item": entries(1)[0].item.id, "k": 3})

    service.close()
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert refused.json()["title"] == "The disk does not take it"
    assert "make room" in refused.json()["detail"]
    assert len(found.json()["hits"]) == 3


def test_a_read_only_library_is_refused_in_words(disk: Disk) -> None:
    with Library.open(disk.folder / "library").create("cells", CARD) as cells:
        cells.add(entries(2))
    disk.remount("ro")

    with pytest.raises(StoreError, match="may not be written; make the disk writable"):
        Library.open(disk.folder / "library")
    with pytest.raises(DiskTrouble, match="read-only; make it writable"):
        try_to_write(disk.folder)

    disk.remount("rw")
    try_to_write(disk.folder)
    with Library.open(disk.folder / "library").collection("cells") as cells:
        assert cells.store.count() == 2


def test_a_limit_on_the_size_of_files_is_refused_in_words(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from encoder.registry import load; from search.library.library import Library\n"
        "from search.errors import StoreError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: Library.open(Path(sys.argv[1])).create('cells', load('colour').card)\n"
        "except StoreError as error: print(error)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "no points can be kept" in done.stdout
    assert "too large" in done.stdout


@pytest.mark.parametrize("code", sorted(room.WHY))
def test_every_trouble_of_a_disk_says_what_to_do(code: int, tmp_path: Path) -> None:
    with pytest.raises(DiskTrouble, match=r"; .+, then run the same"), in_disk_words(tmp_path):
        raise OSError(code, "")


def test_what_is_no_trouble_of_the_disk_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nosuch"), in_disk_words(tmp_path):
        raise OSError(errno.ENOENT, "nosuch")
    with pytest.raises(sqlite3.OperationalError), in_disk_words(tmp_path):
        sqlite3.connect(":memory:").execute("SELECT nosuch")
    need_room(tmp_path)
