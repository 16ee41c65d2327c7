"""The contract of every vector store, kept by both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import QdrantClient

from encoder.card import EncoderCard
from search.errors import (
    BadItem,
    BadVector,
    CollectionExists,
    NoSuchCollection,
    StoreError,
    WrongEncoder,
)
from search.index.contract import (
    IndexSettings,
    Store,
    Vectors,
    checked_vectors,
    first_in_order,
    in_order,
    scroll_all,
)
from search.index.embedded import EdgeStore
from search.index.recall import Probe
from search.index.server import ServerStore, connect
from search.maintenance.checks import Limits, recall
from search.neighbours.ranks import fused
from search.query.searcher import FusedRanks
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, Box, Item, item_id, source_id

DIM = 16
pytestmark = [
    # The client's imitation of a server compares everything: it says so, and means no harm.
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact .* search:UserWarning"),
]
CARD = EncoderCard(id="colour-16", architecture="test", dim=DIM)
SIZE = 160
OTHER = replace(CARD, weights_sha256="0" * 64)
WORDS = ("Lymphozyt", "好中球", "α/β\"'\\", "naïve 🩸", "a b", "A B")


def make_item(at: int, **facts: object) -> Item:
    source = source_id(f"image {at}".encode())
    return Item.model_validate(
        {"id": item_id("d", source), "dataset": "d", "source": source} | facts
    )


def make_items(n: int, rng: np.random.Generator) -> list[Item]:
    """Items that use every field, each missing in some of them."""

    def maybe(value: object) -> object:
        return value if rng.random() < 0.8 else None

    return [
        make_item(
            at,
            kind=("cell", "tile", "field")[rng.integers(3)],
            dataset=f"d{rng.integers(3)}",
            bbox=maybe(Box(x=int(rng.integers(-9, 9)), y=at, w=at + 1, h=7)),
            um_per_px=maybe(float(rng.random() + 0.01)),
            label=maybe(WORDS[rng.integers(len(WORDS))]),
            case=maybe(f"case {rng.integers(20)}"),
            patient=maybe(f"p{rng.integers(8)}"),
            site=maybe(f"site {rng.integers(3)}"),
            stain=maybe("May-Grünwald-Giemsa"),
            scanner=maybe(f"scanner {rng.integers(2)}"),
            acquired=maybe(date(1969, 12, 20) + timedelta(days=int(rng.integers(40)))),
        )
        for at in range(n)
    ]


def make_vectors(n: int, rng: np.random.Generator) -> Vectors:
    return checked_vectors(rng.standard_normal((n, DIM)), DIM)


@dataclass
class Kind:
    """How to make and open stores of one kind."""

    create: Callable[..., Store]
    open: Callable[..., Store]


def edge_kind(folder: Path) -> Iterator[Kind]:
    opened: list[EdgeStore] = []

    def create(name: str = "cells", card: EncoderCard = CARD) -> EdgeStore:
        opened.append(EdgeStore.create(folder / name, name, card))
        return opened[-1]

    def open_(name: str = "cells", card: EncoderCard = CARD) -> EdgeStore:
        opened.append(EdgeStore.open(folder / name, name, card))
        return opened[-1]

    yield Kind(create, open_)
    for store in opened:
        store.close()


def server_kind(client: QdrantClient) -> Iterator[Kind]:
    prefix, made = f"test-{uuid4().hex[:8]}-", []

    def create(name: str = "cells", card: EncoderCard = CARD) -> ServerStore:
        made.append(prefix + name)
        return ServerStore.create(client, prefix + name, card)

    def open_(name: str = "cells", card: EncoderCard = CARD) -> ServerStore:
        return ServerStore.open(client, prefix + name, card)

    yield Kind(create, open_)
    for name in made:
        client.delete_collection(name)
    client.close()


KINDS = ["edge", "server in memory", pytest.param("server", marks=pytest.mark.server)]


def kind_of(param: str) -> Iterator[Kind]:
    if param == "edge":
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # syncing to disk takes seconds
        with TemporaryDirectory(dir=memory) as folder:
            yield from edge_kind(Path(folder))
    elif param == "server in memory":
        yield from server_kind(QdrantClient(":memory:"))
    else:
        url = os.environ.get("QDRANT_URL")
        if not url:
            pytest.skip("no server: set QDRANT_URL")
        yield from server_kind(connect(url, os.environ.get("QDRANT_API_KEY")))


@pytest.fixture(name="kind", params=KINDS)
def _kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    yield from kind_of(request.param)


@pytest.fixture(name="shelf", params=KINDS, scope="module")
def _shelf(request: pytest.FixtureRequest, library: Library) -> Iterator[Store]:
    """The library, shared by the tests that change nothing."""
    for kind in kind_of(request.param):
        store = kind.create()
        store.upsert(library.items, library.vectors)
        yield store


@pytest.fixture(name="store")
def _store(kind: Kind) -> Store:
    return kind.create()


@dataclass
class Library:
    items: list[Item]
    vectors: Vectors


@pytest.fixture(name="library", scope="session")
def _library() -> Library:
    """Some vectors are equal, so that scores tie."""
    rng = np.random.default_rng(1)
    vectors = make_vectors(SIZE, rng)
    vectors[40:60] = vectors[20]
    return Library(make_items(SIZE, rng), vectors)


@pytest.fixture(name="full")
def _full(store: Store, library: Library) -> Store:
    store.upsert(library.items, library.vectors)
    return store


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.item.id for hit in hits]


def oracle(
    library: Library, query: Vectors, k: int, where: Filter | None, exclude: Filter | None
) -> list[tuple[float, str]]:
    """Scores and ids by the plain statement of every rule."""
    scores = library.vectors.astype(np.float64) @ query.astype(np.float64)
    found = [
        (float(score), item.id)
        for item, score in zip(library.items, scores, strict=True)
        if (where is None or where.meets(item)) and not (exclude and exclude.hits(item))
    ]
    return sorted(found, key=lambda pair: (-round(pair[0], 6), pair[1]))[:k]


def check_equal(
    hits: Sequence[Hit], truth: Sequence[tuple[float, str]], library: Library, query: Vectors
) -> None:
    """Equal to the oracle in order of id, but for scores within 1e-6 of one another."""
    assert len(hits) == len(truth)
    at = {item.id: n for n, item in enumerate(library.items)}
    for hit, (score, id) in zip(hits, truth, strict=True):
        assert hit.score == pytest.approx(score, abs=1e-6)
        own = float(library.vectors[at[hit.item.id]].astype(np.float64) @ query.astype(np.float64))
        assert hit.item.id == id or own == pytest.approx(score, abs=1e-6)
        assert hit.item == library.items[at[hit.item.id]]
    assert len(set(ids(hits))) == len(hits)


# What is stored comes back


def test_an_item_comes_back_exactly_as_it_was_stored(shelf: Store, library: Library) -> None:
    found = shelf.get([item.id for item in library.items])

    assert [stored.item for stored in found] == library.items
    assert np.allclose([stored.vector for stored in found], library.vectors, atol=1e-7)


def test_get_keeps_the_order_of_the_ids_and_leaves_out_what_is_not_there(
    shelf: Store, library: Library
) -> None:
    a, b = library.items[7].id, library.items[3].id

    found = shelf.get([a, str(uuid4()), "not an id", b, a])

    assert [stored.item.id for stored in found] == [a, b, a]


def test_vectors_are_normalised_on_the_way_in(store: Store, rng: np.random.Generator) -> None:
    (vector,) = make_vectors(1, rng)

    store.upsert([make_item(0)], (7 * vector)[None])

    assert np.allclose(store.get([make_item(0).id])[0].vector, vector, atol=1e-6)


def test_storing_twice_changes_nothing(full: Store, library: Library) -> None:
    before = list(scroll_all(full))

    full.upsert(library.items, library.vectors)

    after = list(scroll_all(full))
    assert full.count() == len(library.items)
    assert [stored.item for stored in after] == [stored.item for stored in before]
    assert np.allclose([s.vector for s in after], [s.vector for s in before], atol=1e-7)


def test_the_same_id_replaces_the_item_whole(full: Store, library: Library) -> None:
    was = next(item for item in library.items if item.label and item.case)
    new = Item(id=was.id, dataset="new", source=was.source)

    full.upsert([new], -library.vectors[:1])

    (stored,) = full.get([was.id])
    assert stored.item == new
    assert np.allclose(stored.vector, -library.vectors[0], atol=1e-7)
    assert full.count(Filter(dataset=("new",))) == 1
    assert full.count() == len(library.items)


def test_of_one_id_twice_in_a_call_the_last_counts(store: Store, rng: np.random.Generator) -> None:
    first, last = make_item(0, label="first"), make_item(0, label="last")

    store.upsert([first, last], make_vectors(2, rng))

    assert store.get([first.id])[0].item.label == "last"
    assert store.facet("label") == {"last": 1}


def test_more_than_one_batch_is_stored_whole(store: Store, rng: np.random.Generator) -> None:
    items = [make_item(at) for at in range(1100)]

    store.upsert(items, make_vectors(1100, rng))

    assert store.count() == 1100


def test_nothing_to_store_is_no_error(store: Store) -> None:
    store.upsert([], np.empty((0, DIM), np.float32))

    assert store.count() == 0


def test_deleting_says_how_many_were_there(full: Store, library: Library) -> None:
    gone = [item.id for item in library.items[:5]]

    assert full.delete([*gone, gone[0], str(uuid4()), "not an id"]) == 5
    assert full.delete(gone) == 0
    assert full.get(gone) == []
    assert full.count() == len(library.items) - 5
    assert not set(gone) & set(ids(full.nearest(library.vectors[0], SIZE)))


# What cannot be stored or searched is refused


@pytest.mark.parametrize(
    "spoil", [np.nan, np.inf, -np.inf, 0.0], ids=["nan", "inf", "-inf", "zero"]
)
def test_a_bad_vector_refuses_the_whole_call(
    full: Store, library: Library, rng: np.random.Generator, spoil: float
) -> None:
    vectors = make_vectors(600, rng)
    vectors[550] = spoil
    items = [make_item(1000 + at) for at in range(600)]

    with pytest.raises(BadVector, match="vector 550"):
        full.upsert(items, vectors)
    with pytest.raises(BadVector):
        full.nearest(vectors[550], 3)
    with pytest.raises(BadVector):
        full.nearest_batch(vectors[549:551], 3)

    assert full.count() == len(library.items)


@pytest.mark.parametrize("shape", [(1, DIM + 1), (1, DIM - 1), (2, DIM), (0, DIM), (DIM,)])
def test_vectors_of_another_shape_are_refused(store: Store, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadVector, match=r"expected vectors of shape \(1, 16\)"):
        store.upsert([make_item(0)], np.ones(shape, np.float32))

    assert store.count() == 0


def test_a_query_of_another_length_is_refused(shelf: Store) -> None:
    with pytest.raises(BadVector, match="16"):
        shelf.nearest(np.ones(DIM + 1, np.float32), 1)


def test_an_id_that_is_no_uuid_refuses_the_whole_call(
    store: Store, rng: np.random.Generator
) -> None:
    bad = make_item(1).model_copy(update={"id": "cell 1"})

    with pytest.raises(BadItem, match="cell 1"):
        store.upsert([make_item(0), bad], make_vectors(2, rng))

    assert store.count() == 0


def test_k_below_one_is_refused(shelf: Store, library: Library) -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        shelf.nearest(library.vectors[0], 0)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        shelf.scroll(limit=0)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        shelf.facet("label", limit=0)


def test_facets_of_a_field_without_them_name_those_that_have(shelf: Store) -> None:
    with pytest.raises(ValueError, match=r"no facets of 'um_per_px'.*label"):
        shelf.facet("um_per_px")


# Neighbours


def test_the_ids_of_the_nearest_are_those_of_the_hits(shelf: Store, library: Library) -> None:
    for exclude in (None, Filter(patient=("p1",))):
        hits = shelf.nearest(library.vectors[3], 20, exclude=exclude)
        near = shelf.nearest_ids(library.vectors[3], 20, exclude=exclude)
        assert len(near) == 20
        assert [one.id for one in near] == ids(hits)
        assert [one.score for one in near] == pytest.approx([hit.score for hit in hits])


def test_the_nearest_is_the_item_itself(shelf: Store, library: Library) -> None:
    hits = shelf.nearest(library.vectors[100], 3)

    assert hits[0].item == library.items[100]
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_an_empty_collection_answers_with_nothing(store: Store, library: Library) -> None:
    assert store.nearest(library.vectors[0], 5) == []
    assert store.nearest_batch(library.vectors[:2], 5) == [[], []]
    assert store.nearest_batch(library.vectors[:0], 5) == []
    assert store.get([library.items[0].id]) == []
    assert store.scroll().items == []
    assert store.scroll().cursor is None
    assert store.count() == 0
    assert store.facet("label") == {}
    assert store.delete([library.items[0].id]) == 0
    assert store.build().points == 0


def test_fewer_than_k_come_only_if_fewer_meet_the_filter(shelf: Store, library: Library) -> None:
    where = Filter(label=("好中球",), site=("site 1",))
    met = [item.id for item in library.items if where.meets(item)]

    assert 0 < len(met) < 100
    assert sorted(ids(shelf.nearest(library.vectors[0], 100, where))) == sorted(met)
    assert len(shelf.nearest(library.vectors[0], 1000)) == len(library.items)


def test_equal_scores_come_in_order_of_id_also_over_the_last_place(
    shelf: Store, library: Library
) -> None:
    same = sorted(item.id for item in [library.items[20], *library.items[40:60]])

    for k in (1, 5, 20, 21):
        assert ids(shelf.nearest(library.vectors[20], k)) == same[:k]
    assert ids(shelf.nearest(library.vectors[20], 22))[:21] == same


def test_a_score_is_never_above_one(shelf: Store, library: Library) -> None:
    for hits in shelf.nearest_batch(library.vectors, 1):
        assert 1 - 1e-6 < hits[0].score <= 1


@pytest.mark.parametrize("field", KEYWORDS)
def test_each_keyword_field_can_be_required_and_excluded(
    shelf: Store, library: Library, field: str
) -> None:
    values = [value for item in library.items if (value := getattr(item, field))][:2]
    chosen = Filter.model_validate({field: tuple(values)})
    met = {item.id for item in library.items if getattr(item, field) in values}

    assert set(ids(shelf.nearest(library.vectors[0], SIZE, where=chosen))) == met
    assert set(ids(shelf.nearest(library.vectors[0], SIZE, exclude=chosen))) == (
        {item.id for item in library.items} - met
    )
    assert shelf.count(chosen) == len(met)


RANGES = [
    Filter(um_per_px_min=0.3),
    Filter(um_per_px_max=0.3),
    Filter(um_per_px_min=0.3, um_per_px_max=0.5),
    Filter(acquired_from=date(1970, 1, 3)),
    Filter(acquired_to=date(1969, 12, 31)),
    Filter(acquired_from=date(1969, 12, 25), acquired_to=date(1969, 12, 25)),
]


@pytest.mark.parametrize("chosen", RANGES, ids=lambda f: ",".join(sorted(f.model_fields_set)))
def test_each_range_has_both_ends_in_it_and_never_an_item_without_the_value(
    shelf: Store, library: Library, chosen: Filter
) -> None:
    met = {item.id for item in library.items if chosen.meets(item)}

    assert met
    assert set(ids(shelf.nearest(library.vectors[0], SIZE, where=chosen))) == met
    assert set(ids(shelf.nearest(library.vectors[0], SIZE, exclude=chosen))) == (
        {item.id for item in library.items} - met
    )


def test_the_end_of_a_range_is_exact(store: Store, rng: np.random.Generator) -> None:
    scales = [0.21049892697013695, 1 / 3, 0.25, 1e-9, *rng.random(200)]
    items = [make_item(at, um_per_px=float(scale)) for at, scale in enumerate(scales)]
    store.upsert(items, make_vectors(len(items), rng))

    for item in items:
        (stored,) = store.scroll(
            Filter(um_per_px_min=item.um_per_px, um_per_px_max=item.um_per_px)
        ).items
        assert stored.item == item
    assert store.count(Filter(um_per_px_min=1 / 3 + 1e-14, um_per_px_max=0.34)) == sum(
        0.3334 < scale < 0.34 for scale in scales
    )


def test_a_search_can_be_kept_to_ids(shelf: Store, library: Library) -> None:
    chosen = tuple(item.id for item in library.items[5:9])

    assert set(ids(shelf.nearest(library.vectors[0], 10, Filter(ids=chosen)))) == set(chosen)
    assert shelf.nearest(library.vectors[0], 10, Filter(ids=(str(uuid4()),))) == []


def test_thousands_of_ids_can_be_shut_out(shelf: Store, library: Library) -> None:
    strangers = [str(uuid4()) for _ in range(5000)]
    left = library.items[-3:]
    shut = Filter(ids=(*strangers, *(item.id for item in library.items[:-3])))

    hits = shelf.nearest(library.vectors[0], 10, exclude=shut)

    assert set(ids(hits)) == {item.id for item in left}


def test_an_exclusion_drops_an_item_for_any_one_of_its_values(
    shelf: Store, library: Library
) -> None:
    item = next(item for item in library.items if item.case and item.patient)
    shut = Filter(case=(str(item.case),), patient=("nobody",))

    left = shelf.nearest(library.vectors[0], SIZE, exclude=shut)

    assert set(ids(left)) == {other.id for other in library.items if other.case != item.case}


def test_an_exclusion_costs_no_neighbour(shelf: Store, library: Library) -> None:
    shut = Filter(ids=tuple(ids(shelf.nearest(library.vectors[0], 50))))

    assert len(shelf.nearest(library.vectors[0], 10, exclude=shut)) == 10


def test_each_query_of_a_batch_has_its_own_exclusion(shelf: Store, library: Library) -> None:
    own = [Filter(ids=(item.id,)) for item in library.items[:3]]

    mixed = shelf.nearest_batch(library.vectors[:3], 5, None, [own[0], None, own[2]])
    for_all = shelf.nearest_batch(library.vectors[:3], 5, None, own[0])

    assert [library.items[at].id in ids(hits) for at, hits in enumerate(mixed)] == [
        False,
        True,
        False,
    ]
    assert not any(library.items[0].id in ids(hits) for hits in for_all)
    with pytest.raises(ValueError, match="one exclude for each of 3 vectors, got 2"):
        shelf.nearest_batch(library.vectors[:3], 5, None, own[:2])


def test_a_batch_answers_as_its_queries_one_by_one(shelf: Store, library: Library) -> None:
    queries = library.vectors[:70]
    where = Filter(kind=("cell", "tile"))

    batch = shelf.nearest_batch(queries, 4, where)

    for query, hits in zip(queries, batch, strict=True):
        alone = shelf.nearest(query, 4, where)
        assert ids(alone) == ids(hits)
        assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in hits], abs=1e-6)


# Equal to the plain statement of the rules


@dataclass
class Question:
    where: Filter | None
    queries: Vectors
    excludes: list[Filter | None]
    truths: list[list[tuple[float, str]]]


def random_filter(rng: np.random.Generator, items: list[Item]) -> Filter | None:
    """Values that occur, values that do not, ranges and ids, in any mix."""
    facts: dict[str, object] = {}
    for field in rng.choice(KEYWORDS, rng.integers(3), replace=False):
        picks = [getattr(items[at], field) for at in rng.integers(len(items), size=3)]
        stranger = () if field == "kind" else ("no such value",)
        facts[str(field)] = (*{pick for pick in picks if pick}, *stranger)
    if rng.random() < 0.25:
        low, high = sorted(rng.random(2))
        facts |= {"um_per_px_min": low} | ({"um_per_px_max": high} if rng.random() < 0.7 else {})
    if rng.random() < 0.25:
        facts["acquired_from"] = date(1969, 12, 20) + timedelta(days=int(rng.integers(30)))
    if rng.random() < 0.25:
        facts["acquired_to"] = date(1969, 12, 30) + timedelta(days=int(rng.integers(30)))
    if rng.random() < 0.25:
        chosen = rng.choice(len(items), rng.integers(1, 120), replace=False)
        facts["ids"] = tuple(items[at].id for at in chosen)
    found = Filter.model_validate(facts)
    if rng.random() < 0.25:  # cases that are called a patient's by their records alone
        found = found.with_recorded(tuple(f"case {at}" for at in rng.choice(20, 4, replace=False)))
    if rng.random() < 0.1:
        found = found.of_nobody()
    return None if found.empty else found


@pytest.fixture(name="questions", scope="session")
def _questions(library: Library) -> list[Question]:
    """2,000 queries; `benchmarks/filtered_queries.py` asks 10,000."""
    return list(random_questions(library, np.random.default_rng(2), 100))


def random_questions(
    library: Library, rng: np.random.Generator, conditions: int
) -> Iterator[Question]:
    """Conditions, each with 20 queries that shut out different items."""
    for _ in range(conditions):
        where = random_filter(rng, library.items)
        queries = make_vectors(20, rng)
        queries[0] = library.vectors[20]  # ties
        excludes = [random_filter(rng, library.items) for _ in queries]
        truths = [
            oracle(library, query, 10, where, exclude)
            for query, exclude in zip(queries, excludes, strict=True)
        ]
        yield Question(where, queries, excludes, truths)


def equal_answers(shelf: Store, library: Library, question: Question) -> list[int]:
    """Compare the answers of a store with the oracle; how many hits each query had."""
    answers = shelf.nearest_batch(
        question.queries, 10, question.where, question.excludes, exact=True
    )
    for hits, truth, query in zip(answers, question.truths, question.queries, strict=True):
        check_equal(hits, truth, library, query)
    return [len(hits) for hits in answers]


def test_2000_random_filtered_queries_equal_the_oracle(
    shelf: Store, library: Library, questions: list[Question]
) -> None:
    sizes = []
    for question in questions:
        sizes += equal_answers(shelf, library, question)
    assert len(sizes) == 2000
    assert sizes.count(0) < 1000  # the filters leave something to compare


def test_counts_and_scrolls_under_random_filters_equal_the_oracle(
    shelf: Store, library: Library, questions: list[Question]
) -> None:
    for question in questions[:40]:
        met = sorted(
            item.id
            for item in library.items
            if question.where is None or question.where.meets(item)
        )

        assert shelf.count(question.where) == len(met)
        assert [stored.item.id for stored in scroll_all(shelf, question.where, limit=37)] == met


# Scrolling and facets


@pytest.mark.parametrize("limit", [1, 7, SIZE - 1, SIZE, SIZE + 1])
def test_scrolling_gives_every_item_once_in_order_of_id(
    shelf: Store, library: Library, limit: int
) -> None:
    seen, cursor, pages = [], None, 0
    while True:
        page = shelf.scroll(limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        seen += [stored.item.id for stored in page.items]
        cursor, pages = page.cursor, pages + 1
        if cursor is None or (limit == 1 and pages == 5):
            break

    everything = sorted(item.id for item in library.items)
    assert seen == (everything[:5] if limit == 1 else everything)


def test_a_scrolled_item_carries_its_vector(shelf: Store, library: Library) -> None:
    at = {item.id: n for n, item in enumerate(library.items)}

    for stored in shelf.scroll(limit=10).items:
        assert stored.item == library.items[at[stored.item.id]]
        assert np.allclose(stored.vector, library.vectors[at[stored.item.id]], atol=1e-7)


def test_a_cursor_that_no_page_gave_is_refused(shelf: Store) -> None:
    with pytest.raises(ValueError, match="unknown cursor 'next'"):
        shelf.scroll(cursor="next")


def test_facets_come_by_falling_count_then_by_value(store: Store, rng: np.random.Generator) -> None:
    labels = ["c", "b", "b", "é", "é", "a", "ab", "z", "z", "z", None]
    items = [
        make_item(at, label=label, site="s" if at % 2 else None) for at, label in enumerate(labels)
    ]
    store.upsert(items, make_vectors(len(items), rng))

    found = store.facet("label")

    assert list(found.items()) == [("z", 3), ("b", 2), ("é", 2), ("a", 1), ("ab", 1), ("c", 1)]
    assert list(store.facet("label", limit=4).items()) == list(found.items())[:4]
    assert store.facet("label", Filter(site=("s",))) == {"a": 1, "b": 1, "é": 1, "z": 2}
    assert store.facet("case") == {}


@pytest.mark.parametrize("field", KEYWORDS)
def test_facets_under_a_filter_equal_a_plain_count(
    shelf: Store, library: Library, field: str
) -> None:
    where = Filter(kind=("cell", "field"))
    plain: dict[str, int] = {}
    for item in library.items:
        value = getattr(item, field)
        if where.meets(item) and value is not None:
            plain[value] = plain.get(value, 0) + 1
    ordered = sorted(plain.items(), key=lambda pair: (-pair[1], pair[0]))

    found = list(shelf.facet(field, where, limit=1000).items())

    # The client's imitation of a server writes any 32 hex digits with hyphens.
    assert [(value.replace("-", ""), count) for value, count in found] == [
        (value.replace("-", ""), count) for value, count in ordered
    ]
    assert list(shelf.facet(field, where, limit=3).items()) == found[:3]


# A collection belongs to one encoder


def test_a_collection_opens_again_as_it_was(kind: Kind, library: Library) -> None:
    first = kind.create()
    first.upsert(library.items, library.vectors)
    first.flush()
    first.close()

    again = kind.open()

    assert again.card == CARD
    assert again.count() == len(library.items)
    assert again.nearest(library.vectors[3], 1)[0].item == library.items[3]


def test_another_encoder_cannot_open_it(kind: Kind) -> None:
    kind.create().close()

    with pytest.raises(WrongEncoder) as refusal:
        kind.open(card=OTHER)

    assert CARD.fingerprint in str(refusal.value)
    assert OTHER.fingerprint in str(refusal.value)
    assert "new collection" in str(refusal.value)


def test_a_card_that_differs_in_its_notes_alone_opens_it(kind: Kind) -> None:
    kind.create().close()

    assert kind.open(card=replace(CARD, notes="found on a shelf")).count() == 0


def test_what_is_not_there_cannot_be_opened_and_what_is_cannot_be_made(kind: Kind) -> None:
    kind.create("cells").close()

    with pytest.raises(NoSuchCollection, match=r"slides.*cells"):
        kind.open("slides")
    with pytest.raises(CollectionExists, match="cells"):
        kind.create("cells")
    assert kind.open("cells").count() == 0


def test_a_closed_store_says_so(full: Store, library: Library) -> None:
    full.close()
    full.close()

    with pytest.raises(StoreError, match="was closed"):
        full.nearest(library.vectors[0], 1)
    with pytest.raises(StoreError, match="was closed"):
        full.upsert(library.items[:1], library.vectors[:1])


def test_a_build_reports_its_points(full: Store, library: Library) -> None:
    report = full.build()

    assert report.points == len(library.items)
    assert recall(report, Limits()).passed
    assert report.sample == 0  # so few are all compared


def test_a_probe_of_a_store_that_was_emptied_meanwhile_has_no_queries(store: Store) -> None:
    probe = Probe.take(store)

    assert probe.vectors.shape == (0, DIM)
    assert probe.recall(store) == {1.0: 1.0}


# What both stores check alike


def test_vectors_of_length_one_are_left_bit_for_bit(rng: np.random.Generator) -> None:
    once = make_vectors(500, rng)

    assert once.dtype == np.float32
    assert np.allclose(np.linalg.norm(once, axis=1), 1, atol=1e-6)
    assert np.array_equal(checked_vectors(once, DIM), once)


def test_ties_over_the_last_place_are_fetched_until_they_end(library: Library) -> None:
    tied = [Hit(item=item, score=0.5) for item in library.items[:30]]
    limits = []

    def fetch(limit: int) -> list[Hit]:
        limits.append(limit)
        return tied[:limit]

    hits = first_in_order(tied[:4], 3, fetch, in_order)

    assert ids(hits) == sorted(ids(tied))[:3]
    assert limits == [16, 64]
    first = Hit(item=library.items[40], score=0.9)
    assert first_in_order([first, *tied[:3]], 3, fetch, in_order, sure=1)[0] == first
    assert limits == [16, 64]  # what is equal lies beyond the first, and is not fetched


@pytest.mark.parametrize("facts", [{"m": 1}, {"ef": 0}, {"m": 32, "ef_construct": 16}])
def test_index_settings_that_make_no_graph_are_refused(facts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="index settings need"):
        IndexSettings(**facts)


def test_ranks_of_two_stores_are_fused_under_the_conditions_of_both(
    kind: Kind, library: Library, rng: np.random.Generator
) -> None:
    here, there = kind.create(), kind.create("under another encoder", OTHER)
    items, vectors, others = library.items, library.vectors, make_vectors(SIZE, rng)
    here.upsert(items[:-20], vectors[:-20])
    there.upsert(items, others)
    where, exclude = Filter(site=("site 0", "site 1")), Filter(patient=("p1",), ids=(items[3].id,))

    def order(rows: Vectors) -> list[str]:
        scores = rows.astype(np.float64) @ rows[3]
        by_score = sorted(range(SIZE - 20), key=lambda at: (-scores[at], items[at].id))
        fit = [items[at] for at in by_score]
        return [one.id for one in fit if where.meets(one) and not exclude.hits(one)]

    rank = FusedRanks(
        here,
        lambda k, only, without: here.nearest(vectors[3], k, only, without, exact=True),
        lambda k, only, without: there.nearest(others[3], k, only, without, exact=True),
        there,
    )
    found = rank(12, where, exclude)

    assert [hit.item.id for hit in found] == fused([order(vectors), order(others)])[:12]
    scores = {item.id: float(row @ vectors[3]) for item, row in zip(items, vectors, strict=True)}
    assert all(hit.score == pytest.approx(scores[hit.item.id], abs=1e-5) for hit in found)
    lost = [one for one in items[-20:] if where.meets(one) and not exclude.hits(one)]
    assert rank.missing == {one.id for one in lost}
