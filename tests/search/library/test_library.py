"""Collections of a library, whose shards are the truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest

from encoder.card import EncoderCard
from search.errors import NoSuchCollection, StoreBusy, StoreError, WrongEncoder
from search.index.contract import scroll_all
from search.library.collection import Collection
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes
from search.schemas.items import Item, item_id

CARD = EncoderCard(id="tiny", architecture="tiny-v1", dim=8)


def entries(n: int, seed: int = 0, label: str = "lymphocyte") -> list[Entry]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        source = rng.bytes(16).hex()
        item = Item(id=item_id("set", source), dataset="set", source=source, label=label)
        made.append(Entry(item, rng.normal(size=8).astype(np.float32), source.encode(), source))
    return made


def content(collection: Collection) -> dict[str, tuple[Item, bytes]]:
    return {s.item.id: (s.item, s.vector.tobytes()) for s in scroll_all(collection.store)}


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "library")


def test_what_is_added_is_found_again_after_reopening(library: Library) -> None:
    some = entries(20)
    with library.create("cells", CARD) as cells:
        assert cells.add(some).stored == 20
    with library.collection("cells") as cells:
        hits = cells.store.nearest(some[3].vector, 1)

        assert hits[0].item == some[3].item
        assert cells.rows.thumbnail(some[3].item.id) == some[3].thumbnail
        assert cells.rows.entry(some[3].item.id).path == some[3].path
        assert set(cells.known([e.item.id for e in some])) == {e.item.id for e in some}


def test_adding_twice_changes_nothing(library: Library) -> None:
    with library.create("cells", CARD) as cells:
        cells.add(entries(20))
        before = sorted(p.name for p in (cells.folder / "shards").iterdir()), content(cells)
        again = cells.add(entries(20))

        assert (again.stored, again.updated, again.unchanged) == (0, 0, 20)
        assert before == (
            sorted(p.name for p in (cells.folder / "shards").iterdir()),
            content(cells),
        )


def test_new_metadata_replaces_the_old_and_keeps_the_vector(library: Library) -> None:
    some = entries(5)
    with library.create("cells", CARD) as cells:
        cells.add(some)
        before = cells.rows.entry(some[0].item.id)
        changed = some[0].item.model_copy(update={"label": "monocyte"})
        assert cells.update([changed]).updated == 1
    with library.collection("cells") as cells:
        after = cells.rows.entry(changed.id)

        assert before is not None
        assert after is not None
        assert after.item.label == "monocyte"
        assert np.array_equal(after.vector, before.vector)
        assert after.thumbnail == before.thumbnail
        assert cells.store.count() == 5


def test_an_index_that_is_lost_is_made_again_from_the_shards(library: Library) -> None:
    with library.create("cells", CARD) as cells:
        cells.add(entries(30))
        cells.add(entries(30, seed=1))
        cells.update([entries(1)[0].item.model_copy(update={"label": "changed"})])
        before = content(cells)
    rmtree(cells.folder / "index")
    (cells.folder / "catalogue.sqlite").unlink()
    with library.collection("cells") as cells:
        assert content(cells) == before


def test_a_shard_that_was_written_but_not_indexed_is_brought_in(library: Library) -> None:
    with library.create("cells", CARD) as cells:
        cells.add(entries(10))
    late = make_shard_bytes(entries(10, seed=7), CARD)
    (cells.folder / "shards" / "00000002-0123456789abcdef.parquet").write_bytes(late)
    with library.collection("cells") as cells:
        assert cells.store.count() == 20
        assert len(cells.known([e.item.id for e in entries(10, seed=7)])) == 10


def test_only_what_is_new_of_a_shard_is_kept(library: Library) -> None:
    with library.create("cells", CARD) as cells:
        cells.add(entries(10))
        added = cells.add_shard(make_shard_bytes(entries(15), CARD))

        assert (added.stored, added.unchanged) == (5, 10)
        assert cells.store.count() == 15


def test_a_collection_belongs_to_one_encoder(library: Library) -> None:
    other = EncoderCard(id="other", architecture="other-v1", dim=8)
    with library.create("cells", CARD) as cells:
        with pytest.raises(WrongEncoder, match="vectors of encoder tiny"):
            library.create("cells", other)
        with pytest.raises(WrongEncoder):
            cells.add_shard(make_shard_bytes(entries(1), other))


def test_a_collection_remembers_what_loads_its_encoder(library: Library) -> None:
    library.create("cells", CARD, "/models/mine").close()
    library.create("other", CARD).close()

    assert library.reference("cells") == "/models/mine"
    assert library.reference("other") == "tiny"


def test_names_that_are_paths_are_refused(library: Library) -> None:
    for name in ("../up", "A", "", "a/b", ".hidden"):
        with pytest.raises(StoreError, match="cannot be called"):
            library.create(name, CARD)
        with pytest.raises(NoSuchCollection):
            library.card(name)


def test_an_unknown_collection_is_named_with_those_that_exist(library: Library) -> None:
    library.create("cells", CARD).close()

    with pytest.raises(NoSuchCollection, match=r"no collection 'cell'\. There are: cells"):
        library.collection("cell")


def test_a_library_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "library").write_text("")

    with pytest.raises(StoreError, match="cannot keep a library"):
        Library.open(tmp_path / "library")


def test_a_second_process_learns_which_process_has_the_collection_open(library: Library) -> None:
    with library.create("cells", CARD) as cells:
        cells.add(entries(1))
        code = (
            "import sys; from pathlib import Path; from search.library.library import Library\n"
            "Library(Path(sys.argv[1])).collection('cells')"
        )
        command = [sys.executable, "-c", code, str(library.folder)]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)

        assert refused.returncode != 0
        assert "StoreBusy" in refused.stderr
        assert "in use by process" in refused.stderr
    subprocess.run(command, check=True)


def test_the_same_process_is_refused_too(library: Library) -> None:
    with library.create("cells", CARD), pytest.raises(StoreBusy):
        library.collection("cells")
