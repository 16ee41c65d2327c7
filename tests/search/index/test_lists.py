"""What lists promise: the answers of exact search under any filter, and nothing that is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from errno import ENOSPC
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from encoder.card import EncoderCard
from search.index import embedded
from search.index.columns import ColumnsBuilder
from search.index.contract import IndexSettings, Stored, Vectors, checked_vectors
from search.index.embedded import EdgeStore
from search.index.lists import MOST_CHANGED, Lists
from search.index.recall import agreement
from search.maintenance.checks import Limits, recall
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id, source_id

DIM, SIZE = 16, 3000
CARD = EncoderCard(id="colour-16", architecture="test", dim=DIM)
GRAPH = IndexSettings(graph_from_kb=50, scan_below_kb=1)


def make_item(at: int, **facts: object) -> Item:
    source = source_id(f"image {at}".encode())
    known: dict[str, object] = {
        "label": f"label {at % 10}",
        "case": f"case {at % 100}",
        "patient": None if at % 9 == 0 else f"patient {at % 700}",
        "site": f"site {at * 7919 % 5}",
        "um_per_px": None if at % 11 == 0 else (1 + at % 50) / 100,
        "acquired": None if at % 13 == 0 else date(1969, 12, 1) + timedelta(days=at * 31 % 90),
    }
    fixed = {"id": item_id("d", source), "dataset": "d", "source": source}
    return Item.model_validate(fixed | known | facts)


def make_vectors(n: int, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIM))
    return checked_vectors(centres[np.arange(n) % 20] + rng.standard_normal((n, DIM)), DIM)


ITEMS, ROWS = [make_item(at) for at in range(SIZE)], make_vectors(SIZE)
FILTERS = {
    "none": None,
    "a label": Filter(label=("label 3",)),
    "two fields": Filter(label=("label 3",), site=("site 1", "site 4")),
    "rare values": Filter(patient=tuple(f"patient {at}" for at in range(0, 700, 9))),
    "one patient": Filter(patient=("patient 5",)),
    "a recorded patient": Filter(patient=("patient 5",)).with_recorded(("case 0", "case 9")),
    "of nobody": Filter(site=("site 1",)).of_nobody(),
    "dates": Filter(acquired_from=date(1969, 12, 20), acquired_to=date(1970, 2, 1)),
    "scales": Filter(um_per_px_max=0.03),
    "nothing": Filter(label=("no such label",)),
}


def lists_of(store: EdgeStore) -> Lists:
    assert store._lists is not None
    return store._lists


def listed(folder: Path) -> EdgeStore:
    """A store with lists; a build, which makes a graph before, is for one test."""
    store = EdgeStore.create(folder, "cells", CARD)
    store.upsert(ITEMS, ROWS)
    store._make_lists(SIZE)
    return store


@pytest.fixture(name="folder")
def _folder() -> Iterator[Path]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # syncing to disk takes seconds
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "cells"


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeStore]:
    """For tests that change nothing; it looks into a fifth of its lists."""
    with listed(tmp_path_factory.mktemp("lists") / "cells") as store:
        lists_of(store).widen(200)
        yield store


@pytest.mark.parametrize("name", FILTERS)
def test_a_search_finds_what_exact_search_finds(store: EdgeStore, name: str) -> None:
    where = FILTERS[name]
    assert lists_of(store).answers(10, where)
    own = [Filter(patient=(ITEMS[at].patient or "-",), ids=(ITEMS[at].id,)) for at in range(100)]

    found = store.nearest_batch(ROWS[:100], 10, where, own)

    truth = store.nearest_batch(ROWS[:100], 10, where, own, exact=True)
    assert agreement(truth, found) >= 0.98
    assert [len(hits) for hits in found] == [len(hits) for hits in truth]
    if name == "nothing":
        assert found == [[]] * 100


def test_a_search_that_looks_into_every_list_is_exact(store: EdgeStore) -> None:
    lists, exclude = lists_of(store), Filter(site=("site 1", "site 2"), um_per_px_max=0.2)
    before = lists.visit
    lists.widen(1000)
    for where in FILTERS.values():
        found = store.nearest_batch(ROWS[:50], 10, where, exclude)

        truth = store.nearest_batch(ROWS[:50], 10, where, exclude, exact=True)
        assert found == truth
    lists.widen(before)


def test_a_build_of_many_points_makes_lists_and_visits_as_many_as_recall_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "MANY_POINTS", 1000)
    monkeypatch.setattr("search.index.lists.FIRST_VISIT", 20)
    with EdgeStore.create(folder, "cells", CARD, GRAPH) as store:
        store.upsert(ITEMS[:1500], ROWS[:1500])

        report = store.build()

        assert recall(report, Limits()).passed
        assert report.ef is None
        made = lists_of(store)
        assert 20 < made.visit <= 1000
        assert store.build().recall == report.recall
        assert lists_of(store) is made  # hardly worn
    with EdgeStore.open(folder, "cells", CARD) as store:
        assert lists_of(store).visit == made.visit
        monkeypatch.setattr(embedded, "MANY_POINTS", 10_000)
        assert store.build().ef is not None
        assert store._lists is None
        assert not (folder / "lists").exists()


def test_what_the_lists_cannot_tell_is_asked_of_the_engine(store: EdgeStore) -> None:
    lists = lists_of(store)
    assert not lists.answers(10, Filter(ids=(ITEMS[0].id,)))
    assert not lists.answers(2000, None)

    some = Filter(ids=tuple(item.id for item in ITEMS[:30]))
    assert {hit.item.id for hit in store.nearest(ROWS[0], 30, some)} == set(some.ids)
    assert len(store.nearest(ROWS[0], 2000)) == 2000


def test_what_was_written_changed_or_removed_since_is_found_as_it_is_now(folder: Path) -> None:
    with listed(folder) as store:
        new = make_item(SIZE + 1, label="label 3")
        moved = ITEMS[1].model_copy(update={"label": "another"})
        store.upsert([new, moved], ROWS[[5, 1]])
        store.delete([ITEMS[2].id])
    with EdgeStore.open(folder, "cells", CARD) as store:
        assert lists_of(store).changed == {new.id, moved.id, ITEMS[2].id}
        assert lists_of(store).answers(10, None)

        assert new in [hit.item for hit in store.nearest(ROWS[5], 2, Filter(label=("label 3",)))]
        assert store.nearest(ROWS[1], 1)[0].item == moved
        hits = store.nearest(ROWS[1], 10, Filter(label=("label 1",)))
        assert len(hits) == 10
        assert moved.id not in [hit.item.id for hit in hits]
        assert ITEMS[2].id not in [hit.item.id for hit in store.nearest(ROWS[2], 10)]


def test_where_much_has_changed_the_engine_answers_until_a_build(folder: Path) -> None:
    with listed(folder) as store:
        changed = [item.model_copy(update={"stain": "other"}) for item in ITEMS]
        store.upsert(changed, ROWS)
        assert not lists_of(store).answers(10, None)
        assert len(lists_of(store).changed) < SIZE  # more are not noted
        assert len(store.nearest(ROWS[0], 10, Filter(stain=("other",)))) == 10

        store._make_lists(SIZE)

        assert lists_of(store).changed == set()
        assert lists_of(store).answers(10, Filter(stain=("other",)))
        assert len(store.nearest(ROWS[0], 10, Filter(stain=("other",)))) == 10
    assert MOST_CHANGED < SIZE


def test_what_is_written_while_lists_are_made_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, plain = make_item(SIZE + 1), embedded.scroll_all

    def scroll(store: EdgeStore) -> Iterator[Stored]:
        stored = list(plain(store))
        store.upsert([late], ROWS[7:8])
        store.delete([ITEMS[7].id])
        return iter(stored)

    monkeypatch.setattr(embedded, "scroll_all", scroll)
    with listed(folder) as store:
        assert lists_of(store).changed == {late.id, ITEMS[7].id}
        assert store.nearest(ROWS[7], 1)[0].item == late


FILES = ["lists.json", "codes.npy", "heads.npy", "heads.npz", "ids.npy", "rest.npz", "changed"]


@pytest.mark.parametrize("name", FILES)
def test_damaged_lists_are_left_alone_and_made_anew(folder: Path, name: str) -> None:
    with listed(folder) as store:
        truth = store.nearest(ROWS[0], 10, FILTERS["two fields"], exact=True)
    damaged = folder / "lists" / name
    if name == "changed":
        damaged.unlink()
    else:
        whole = damaged.read_bytes()
        for left in (b"not what it was", b"", whole[: len(whole) // 2]):
            damaged.write_bytes(left)
            assert Lists.open(folder, SIZE) is None
    (folder / "lists-left").mkdir()

    with EdgeStore.open(folder, "cells", CARD) as store:
        assert store._lists is None
        assert not (folder / "lists-left").exists()
        assert agreement([truth], [store.nearest(ROWS[0], 10, FILTERS["two fields"])]) == 1


def test_lists_made_before_rows_had_heads_are_given_them(folder: Path) -> None:
    with listed(folder) as store:
        lists_of(store).widen(200)
        found = store.nearest_batch(ROWS[:50], 10)
    facts = json.loads((folder / "lists" / "lists.json").read_text())
    (folder / "lists" / "lists.json").write_text(json.dumps({**facts, "format": 1, "visit": 152}))
    for name in ("heads.npy", "heads.npz"):
        (folder / "lists" / name).unlink()

    for _ in range(2):
        with EdgeStore.open(folder, "cells", CARD) as store:
            assert lists_of(store).visit == 200
            assert store.nearest_batch(ROWS[:50], 10) == found


def test_lists_of_before_wait_for_room_and_leave_nothing_where_a_disk_fills(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    with listed(folder) as store:
        monkeypatch.setattr("search.index.lists._write_rows", full)
        with pytest.raises(OSError, match="No space"):
            store._make_lists(SIZE)
        assert not list(folder.glob("lists-*"))
        assert len(store.nearest(ROWS[0], 10)) == 10
    facts = folder / "lists" / "lists.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 1}))

    monkeypatch.setattr("search.disk.space._free", lambda _: 1 << 20)
    assert Lists.open(folder, SIZE) is None
    monkeypatch.undo()
    lists = Lists.open(folder, SIZE)
    assert lists is not None
    lists.close()


def test_a_search_of_all_is_exact_and_heads_grow_where_rows_differ_along_many_axes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.index.lists.BY_HEAD", 1)
    rows = np.random.default_rng(0).standard_normal((SIZE, 160))
    rows[1500:, :150] /= 1000
    folder.mkdir()
    for part, axes in ((rows[:1500], range(80, 120)), (rows[1500:], [64])):
        some = checked_vectors(part, 160)
        with Lists.make(folder, map(Stored, ITEMS, some), 160) as lists:
            assert lists._axes.shape[1] in axes
            lists.widen(1000)
            for row in some[:20]:
                true = {ITEMS[at].id for at in np.argsort(-some @ row)[:10]}
                assert true <= set(lists.candidates(row, 10, None, None).ids)


def test_a_field_of_too_many_values_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.index.columns.MOST_VALUES", 700)
    builder = ColumnsBuilder()
    builder.add(ITEMS[:1000])
    builder.add(ITEMS[1000:])
    columns = builder.columns(np.arange(SIZE))

    assert columns.knows(Filter(label=("label 3",), patient=("patient 1",)))
    assert not columns.knows(Filter(label=("label 3",), source=(ITEMS[0].source,)))
    shut_out = Filter(source=(ITEMS[0].source,), label=("label 3",), ids=(ITEMS[1].id,))
    assert columns.known(shut_out) == Filter(label=("label 3",))
    assert columns.known(Filter(source=(ITEMS[0].source,))) is None
    monkeypatch.setattr("search.index.columns.MOST_VALUES", 99)
    builder = ColumnsBuilder()
    builder.add(ITEMS)
    few = builder.columns(np.arange(SIZE))
    for one in (Filter().with_recorded(("case 0",)), Filter().of_nobody()):
        assert (columns.knows(one), columns.known(one)) == (True, one)
        assert (few.knows(one), few.known(one)) == (False, None)


@pytest.mark.parametrize("where", [f for f in FILTERS.values() if f], ids=list(FILTERS)[1:])
def test_columns_say_of_a_filter_what_the_items_say(where: Filter) -> None:
    builder = ColumnsBuilder()
    builder.add(ITEMS)
    columns = builder.columns(np.arange(SIZE))

    assert columns.meets(where, slice(None)).tolist() == [where.meets(item) for item in ITEMS]
    rows = np.arange(100, 2000)
    assert columns.hits(where, rows).tolist() == [where.hits(ITEMS[at]) for at in rows]
