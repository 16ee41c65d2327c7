"""Refining: by examples as Qdrant does it, and by a region of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient, models
from random_library import CARD, random_entries, random_service

from encoder.contract import Encoder
from encoder.registry import load
from search.errors import BadQuestion
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.query.answer import answer as search
from search.query.refine import average_vector, region_vector
from search.schemas.items import Box, Item, item_id
from search.schemas.questions import Question, Refinement
from search.service import Service
from search.settings import Settings


@pytest.fixture(name="entries")
def _entries(rng: np.random.Generator) -> list[Entry]:
    return random_entries(rng, 70)


@pytest.fixture(name="service")
def _service(tmp_path: Path, entries: list[Entry]) -> Iterator[Service]:
    service = random_service(tmp_path, entries)
    yield service
    service.close()


@pytest.fixture(name="qdrant")
def _qdrant(entries: list[Entry]) -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    client.create_collection(
        "cells", models.VectorParams(size=CARD.dim, distance=models.Distance.COSINE)
    )
    client.upsert(
        "cells", [models.PointStruct(id=e.item.id, vector=e.vector.tolist()) for e in entries]
    )
    yield client
    client.close()


@pytest.mark.parametrize("strategy", ["average_vector", "best_score"])
def test_the_order_is_that_of_qdrant(
    service: Service, qdrant: QdrantClient, entries: list[Entry], strategy: str
) -> None:
    ids = [entry.item.id for entry in entries]
    for at in range(0, 60, 6):
        like, unlike = tuple(ids[at : at + 3]), tuple(ids[at + 3 : at + 5])
        wanted = qdrant.query_points(
            "cells",
            query=models.RecommendQuery(
                recommend=models.RecommendInput(
                    positive=list(like),
                    negative=list(unlike),
                    strategy=models.RecommendStrategy(strategy),
                )
            ),
            limit=8,
        ).points

        answer = search(
            service.context(),
            Refinement(like=like, unlike=unlike, strategy=strategy, k=8, exclude=("item",)),
        )

        vectors = {e.item.id: tuple(e.vector.tolist()) for e in entries}
        assert [vectors[hit.item.id] for hit in answer.hits] == [
            vectors[str(point.id)] for point in wanted
        ]


def test_examples_are_not_hits_unless_requested(service: Service, entries: list[Entry]) -> None:
    like = (entries[4].item.id, entries[9].item.id)

    hidden = search(service.context(), Refinement(like=like, k=60, exclude=("item",)))
    shown = search(
        service.context(), Refinement(like=like, k=60, exclude=("item",), show_examples=True)
    )

    assert not set(like) & {hit.item.id for hit in hidden.hits}
    assert set(like) <= {hit.item.id for hit in shown.hits}


def test_with_a_query_it_is_the_group_of_the_query_that_is_excluded(
    service: Service, entries: list[Entry]
) -> None:
    query = next(e.item for e in entries if e.item.patient == "P1")
    other = next(e.item for e in entries if e.item.patient == "P2")

    answer = search(service.context(), Refinement(item=query.id, like=(other.id,), k=70))
    alone = search(service.context(), Refinement(like=(other.id,), k=70))

    patients = {hit.item.patient for hit in answer.hits}
    assert "P1" not in patients
    assert "P2" in patients
    assert "P2" not in {hit.item.patient for hit in alone.hits}


def test_best_score_puts_nothing_nearer_to_what_is_unwanted_first(
    service: Service, entries: list[Entry]
) -> None:
    like, unlike = entries[0], entries[2]

    answer = search(
        service.context(),
        Refinement(
            like=(like.item.id,), unlike=(unlike.item.id,), strategy="best_score", k=10, exclude=()
        ),
    )

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    vectors = {e.item.id: e.vector for e in entries}
    for hit in answer.hits:
        near = cosine(vectors[hit.item.id], like.vector)
        assert near > cosine(vectors[hit.item.id], unlike.vector)
        assert hit.score == pytest.approx(near, abs=1e-5)


def test_a_refinement_needs_something_that_is_wanted(
    service: Service, entries: list[Entry]
) -> None:
    with pytest.raises(BadQuestion, match="like"):
        search(service.context(), Refinement(unlike=(entries[0].item.id,)))
    with pytest.raises(BadQuestion, match="exactly one"):
        search(service.context(), Question())


def test_the_average_moves_away_from_what_is_unwanted() -> None:
    like = np.array([[1, 0], [0, 1]], np.float32)

    assert average_vector(like, np.empty((0, 2), np.float32)).tolist() == [0.5, 0.5]
    assert average_vector(like, np.array([[1, 0]], np.float32)).tolist() == [0.0, 1.0]


def test_a_region_is_the_mean_of_its_patches_by_cover() -> None:
    patches = np.arange(16, dtype=np.float32).reshape(4, 4, 1)

    whole = region_vector(patches, Box(x=0, y=0, w=200, h=100), 100, 200)
    corner = region_vector(patches, Box(x=150, y=75, w=50, h=25), 100, 200)
    between = region_vector(patches, Box(x=25, y=0, w=50, h=25), 100, 200)

    assert whole.tolist() == [7.5]
    assert corner.tolist() == [15.0]
    assert between.tolist() == [0.5]
    with pytest.raises(ValueError, match="reaches over the border"):
        region_vector(patches, Box(x=180, y=0, w=50, h=25), 100, 200)


class Patched:
    """A network whose patch tokens are the mean colours of four by four squares."""

    def tokens(self, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        grids = []
        for image in images:
            small = np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BOX))
            grids.append(small.astype(np.float32) + 1)
        grid = np.stack(grids)
        return grid.mean(axis=(1, 2)), grid

    def vectors(self, images: list[np.ndarray]) -> np.ndarray:
        return self.tokens(images)[0]


def png(image: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def test_a_drawn_box_finds_what_looks_like_its_inside(tmp_path: Path) -> None:
    card = replace(CARD, id="patched", dim=3, input_px=4, patch_px=1)
    encoder = Encoder(card, Patched())
    colours = {"red": (220, 20, 20), "blue": (20, 20, 220)}
    entries = []
    for name, colour in colours.items():
        image = np.full((40, 40, 3), colour, np.uint8)
        source = name.ljust(32, "0")
        item = Item(id=item_id("c", source), dataset="c", source=source, label=name)
        entries.append(Entry(item, encoder.embed([image])[0], make_thumbnail(image)))
    library = Library.open(tmp_path)
    with library.create("cells", card) as cells:
        cells.add(entries)
    service = Service(library, Settings(library=tmp_path), lambda _: encoder)
    both = np.zeros((40, 80, 3), np.uint8)
    both[:, :40], both[:, 40:] = colours["red"], colours["blue"]
    try:
        for name, x in (("red", 0), ("blue", 40)):
            box = Box(x=x, y=0, w=40, h=40)
            answer = search(service.context(), Refinement(region=box, k=1), png(both))
            assert answer.hits[0].item.label == name
            assert answer.hits[0].score > 0.99
        with pytest.raises(BadQuestion, match="reaches over the border"):
            search(service.context(), Refinement(region=Box(x=60, y=0, w=40, h=40)), png(both))
        with pytest.raises(BadQuestion, match="send the image"):
            search(service.context(), Refinement(region=box, item=entries[0].item.id))
    finally:
        service.close()


def test_a_region_of_an_encoder_without_patches_is_refused(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    encoder = load("colour")
    library = Library.open(tmp_path)
    library.create("cells", encoder.card).close()
    service = Service(library, Settings(library=tmp_path))
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    try:
        with pytest.raises(BadQuestion, match="no patch tokens"):
            search(service.context(), Refinement(region=Box(x=0, y=0, w=9, h=9)), png(image))
    finally:
        service.close()
