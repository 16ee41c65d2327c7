"""What the embedded store promises beyond the contract: no loss, a true graph."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import sleep

import numpy as np
import pytest
import qdrant_edge as engine
from live import REPOSITORY

from encoder.card import EncoderCard
from search.errors import NoSuchCollection, StoreError
from search.index.contract import IndexSettings, Vectors, checked_vectors, scroll_all
from search.index.embedded import EdgeStore
from search.index.manifest import Manifest
from search.index.recall import agreement
from search.maintenance.checks import Limits, recall
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, RANGES, Item, item_id, source_id

DIM = 16
CARD = EncoderCard(id="colour-16", architecture="test", dim=DIM)
GRAPH = IndexSettings(graph_from_kb=50, scan_below_kb=1)


def make_item(at: int, **facts: object) -> Item:
    source = source_id(f"image {at}".encode())
    return Item.model_validate(
        {"id": item_id("d", source), "dataset": "d", "source": source} | facts
    )


def make_vectors(n: int, seed: int = 0) -> Vectors:
    """Clusters, as embeddings have them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIM))
    return checked_vectors(centres[np.arange(n) % 20] + rng.standard_normal((n, DIM)), DIM)


@pytest.fixture(name="folder")
def _folder() -> Iterator[Path]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # syncing to disk takes seconds
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "cells"


def fill(store: EdgeStore, n: int, start: int = 0) -> list[Item]:
    items = [
        make_item(at, label=f"label {at % 10}", case=f"case {at % 100}")
        for at in range(start, start + n)
    ]
    store.upsert(items, make_vectors(n, seed=start))
    return items


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


# The folder


def test_the_description_of_a_folder_is_read_without_opening_the_store(folder: Path) -> None:
    settings = IndexSettings(m=24)
    with EdgeStore.create(folder, "cells", CARD, settings):
        manifest = Manifest.read(folder)

    assert (manifest.name, manifest.card, manifest.index) == ("cells", CARD, settings)
    assert json.loads((folder / "index.json").read_text())["card"]["fingerprint"] == (
        CARD.fingerprint
    )


def test_a_description_under_its_earlier_name_is_read_until_the_next_is_written(
    folder: Path,
) -> None:
    EdgeStore.create(folder, "cells", CARD).close()
    (folder / "index.json").rename(folder / "collection.json")

    with EdgeStore.open(folder, "cells", CARD) as store:
        store._widen(99)

    assert not (folder / "collection.json").exists()
    with EdgeStore.open(folder, "cells", CARD) as store:
        assert store.settings.ef == 99


def test_every_filter_has_its_index_before_there_is_a_graph(folder: Path) -> None:
    with EdgeStore.create(folder, "cells", CARD) as store:
        info = store._shard._engine.info()

    assert set(info.payload_schema) == {*KEYWORDS, *RANGES}
    assert info.indexed_vectors_count == 0


def test_points_without_their_payload_indexes_are_not_served(folder: Path) -> None:
    EdgeStore.create(folder, "cells", CARD).close()
    shard = engine.EdgeShard.load(str(folder / Manifest.read(folder).shard))
    shard.update(engine.UpdateOperation.delete_field_index("label"))
    shard.flush()
    shard.close()

    with pytest.raises(StoreError, match="no payload index on label"):
        EdgeStore.open(folder, "cells", CARD)


def test_a_creation_that_was_cut_short_is_made_again(folder: Path) -> None:
    EdgeStore.create(folder, "cells", CARD).close()
    (folder / "index.json").unlink()

    with pytest.raises(NoSuchCollection):
        EdgeStore.open(folder, "cells", CARD)
    EdgeStore.create(folder, "cells", CARD).close()

    (shard,) = folder.glob("shard-*")
    left = shard / "wal" / ".atomicwrite6i3j0N"  # as the engine does where it is killed
    left.mkdir()
    (left / "tmpfile.tmp").write_bytes(b"half")
    EdgeStore.open(folder, "cells", CARD).close()
    assert not left.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"format": 99}', "format 99, this version reads 1"),
    ],
)
def test_a_damaged_description_is_named(folder: Path, text: str, says: str) -> None:
    EdgeStore.create(folder, "cells", CARD).close()
    (folder / "index.json").write_text(text)

    with pytest.raises(StoreError, match=says):
        EdgeStore.open(folder, "cells", CARD)


def test_a_folder_under_another_name_is_not_that_collection(folder: Path) -> None:
    EdgeStore.create(folder, "cells", CARD).close()

    with pytest.raises(NoSuchCollection, match="'tiles'"):
        EdgeStore.open(folder, "tiles", CARD)


def test_a_vector_comes_back_bit_for_bit_and_stays_so(folder: Path) -> None:
    vectors = make_vectors(50)
    items = [make_item(at) for at in range(50)]
    with EdgeStore.create(folder, "cells", CARD) as store:
        for _ in range(2):
            store.upsert(items, vectors)
            found = np.stack([stored.vector for stored in store.get([i.id for i in items])])

            assert np.array_equal(found, vectors)


# The graph


def test_a_build_makes_a_graph_and_measures_it_with_and_without_filters(folder: Path) -> None:
    with EdgeStore.create(folder, "cells", CARD, GRAPH) as store:
        items = fill(store, 3000)

        report = store.build()

        assert store._shard._engine.info().indexed_vectors_count == 3000
        assert report.points == 3000
        assert report.sample > 90
        tenth = pytest.approx(0.1)  # one label, and a set of cases
        assert sorted(report.by_share) == [pytest.approx(0.01), tenth, tenth]
        assert recall(report, Limits()).passed
        assert report.filtered_recall == min(report.by_share.values())
        assert [s.item for s in store.get([item.id for item in items])] == items
    assert len(list(folder.glob("shard-*"))) == 1
    with EdgeStore.open(folder, "cells", CARD) as store:
        assert store._shard._engine.info().indexed_vectors_count == 3000


@pytest.mark.parametrize(
    "where",
    [
        Filter(patient=tuple(f"P{at}" for at in range(0, 600, 10))),
        Filter(case=("case 1", "case 2"), patient=tuple(f"P{at}" for at in range(0, 600, 2))),
        Filter(um_per_px_max=0.05),
    ],
    ids=["a set of rare values", "two fields", "a range"],
)
def test_a_filter_without_links_of_its_own_finds_its_true_neighbours(
    folder: Path, where: Filter
) -> None:
    rows = make_vectors(3000)
    items = [
        make_item(at, patient=f"P{at % 600}", case=f"case {at % 7}", um_per_px=(at % 100 + 1) / 100)
        for at in range(3000)
    ]
    with EdgeStore.create(folder, "cells", CARD, replace(GRAPH, ef=16)) as store:
        store.upsert(items, rows)
        store._shard.build_graph()

        found = store.nearest_batch(rows[:100], 10, where)

        truth = store.nearest_batch(rows[:100], 10, where, exact=True)
        assert agreement(truth, found) >= 0.98


def test_a_walk_that_finds_too_little_is_widened_and_stays_so(folder: Path) -> None:
    poor = replace(GRAPH, m=4, ef_construct=4, ef=1)
    with EdgeStore.create(folder, "cells", CARD, poor) as store:
        fill(store, 3000)

        report = store.build()

        assert report.ef is not None
        assert report.ef > 1
        assert recall(report, Limits()).passed or report.ef >= 1024
    with EdgeStore.open(folder, "cells", CARD) as store:
        assert store.settings.ef == report.ef


def test_few_new_points_are_searched_without_a_new_graph(folder: Path) -> None:
    with EdgeStore.create(folder, "cells", CARD, GRAPH) as store:
        fill(store, 1500)
        store.build()
        shard = Manifest.read(folder).shard
        new = fill(store, 20, start=5000)

        store.build()

        assert Manifest.read(folder).shard == shard
        own = store.get([new[3].id])[0].vector
        assert store.nearest(own, 1)[0].item == new[3]


def test_what_is_written_during_a_build_is_in_it(folder: Path) -> None:
    with EdgeStore.create(folder, "cells", CARD, GRAPH) as store:
        items = fill(store, 3000)
        builder = Thread(target=store.build)
        builder.start()
        while store._shard.touched is None and builder.is_alive():
            sleep(0.001)

        new = fill(store, 30, start=9000)
        changed = [item.model_copy(update={"label": "changed"}) for item in items[:30]]
        store.upsert(changed, make_vectors(30, seed=7))
        gone = [item.id for item in items[-30:]]
        assert store.delete(gone) == 30
        assert len(store.nearest(make_vectors(1)[0], 10)) == 10
        assert store._shard.touched is not None  # the build was still under way
        builder.join()

        assert store._shard._engine.info().indexed_vectors_count > 2900
        kept = {s.item.id: s for s in scroll_all(store)}
        assert set(kept) == {item.id for item in (*items[:-30], *new)}
        assert store.count(Filter(label=("changed",))) == 30
        moved = np.stack([kept[item.id].vector for item in changed])
        assert np.array_equal(moved, make_vectors(30, seed=7))


def test_a_build_that_fails_leaves_the_collection_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.index.shard.OPTIMIZE", "raise SystemExit('no memory left')")
    with EdgeStore.create(folder, "cells", CARD, GRAPH) as store:
        fill(store, 1500)

        with pytest.raises(StoreError, match="no memory left; the collection answers as before"):
            store.build()

        assert store.count() == 1500
    assert len(list(folder.glob("shard-*"))) == 1


def test_threads_may_share_a_store(folder: Path) -> None:
    failures: list[BaseException] = []
    with EdgeStore.create(folder, "cells", CARD) as store:
        fill(store, 200)
        query = make_vectors(1)[0]

        def work(at: int) -> None:
            try:
                for turn in range(10):
                    fill(store, 20, start=1000 * (at + 1) + 20 * turn)
                    assert len(store.nearest(query, 5)) == 5
                    store.count(Filter(label=("label 1",)))
            except BaseException as error:
                failures.append(error)

        threads = [Thread(target=work, args=(at,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert failures == []
        assert store.count() == 200 + 4 * 200


# kill -9

WRITE = """
import sys
from pathlib import Path
import numpy as np
from encoder.card import EncoderCard
from search.index.embedded import EdgeStore
from search.schemas.items import Item, item_id, source_id
folder, start = Path(sys.argv[1]), int(sys.argv[3])
store = EdgeStore.open(folder, "cells", EncoderCard.from_json(sys.argv[2]))
for batch in range(start, start + 100_000):
    sources = [source_id(f"{batch} {at}".encode()) for at in range(20)]
    items = [
        Item(id=item_id("d", s), dataset="d", source=s, label=f"batch {batch}") for s in sources
    ]
    vectors = np.random.default_rng(batch).standard_normal((20, store.card.dim))
    store.upsert(items, vectors.astype(np.float32))
    print(batch, flush=True)
    if batch % 7 == 6:
        store.flush()
    if batch % 50 == 49:
        store.build()
"""


def check_batches(store: EdgeStore, acknowledged: int, dim: int = DIM) -> None:
    """Every acknowledged batch is whole; no other point is malformed, doubled or unknown."""
    found = {stored.item.id: stored for stored in scroll_all(store)}
    assert len(found) == store.count()
    whole = 0
    for batch in range(acknowledged + 2):
        vectors = np.random.default_rng(batch).standard_normal((20, dim)).astype(np.float32)
        for at, vector in enumerate(checked_vectors(vectors, dim)):
            source = source_id(f"{batch} {at}".encode())
            stored = found.pop(item_id("d", source), None)
            if stored is None:
                assert batch > acknowledged, f"batch {batch} was acknowledged and is lost"
                continue
            assert stored.item.source == source
            assert stored.item.label == f"batch {batch}"
            assert np.array_equal(stored.vector, vector)
            whole += 1
    assert not found
    assert whole >= 20 * (acknowledged + 1)


def test_kill_9_loses_nothing_that_was_acknowledged(folder: Path) -> None:
    """Upserts, flushes and builds, cut off at a random moment, four times over."""
    EdgeStore.create(folder, "cells", CARD, GRAPH).close()
    rng, acknowledged = np.random.default_rng(3), -1
    for _ in range(4):
        writer = child(WRITE, folder, CARD.to_json(), acknowledged + 1)
        assert writer.stdout is not None
        for _ in range(int(rng.integers(20, 80))):
            acknowledged = int(writer.stdout.readline())
        sleep(float(rng.random() * 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        acknowledged = int((writer.stdout.read().split() or [acknowledged])[-1])
        writer.stdout.close()

        with EdgeStore.open(folder, "cells", CARD) as store:
            check_batches(store, acknowledged)
    assert len(list(folder.glob("shard-*"))) == 1
