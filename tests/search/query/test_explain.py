"""Why this hit, through the service: with patches, without them, and what is withheld."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder, NoPatchTokens
from encoder.features.colour import CARD, Colour
from encoder.image import resize
from ingest.samples.synthetic import draw_cell
from search.api.app import create_app
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.schemas.explanations import ExplainQuestion, Explanation
from search.schemas.items import Box, Item, item_id
from search.service import Service
from search.settings import Settings

LABELS = ("eosinophil", "lymphocyte")
PATCHED = EncoderCard(
    id="patched", architecture="test", dim=12, input_px=64, patch_px=8, pooling="mean"
)


class Patched:
    """Patch tokens made of colours; the vector is their mean."""

    def vectors(self, images: Sequence[RGB]) -> np.ndarray:
        return self.tokens(images)[0]

    def tokens(self, images: Sequence[RGB]) -> tuple[np.ndarray, np.ndarray]:
        small = np.stack([resize(one, 8, "bilinear") for one in images]) / 255.0
        dark = (1 - small) ** 2
        grid = np.concatenate([small, dark, small * dark, np.roll(dark, 1, axis=3)], axis=3)
        return grid.mean(axis=(1, 2)), grid.astype(np.float32)


@pytest.fixture(name="encoder", params=["colour", "patched"])
def _encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(CARD, Colour(CARD)) if request.param == "colour" else Encoder(PATCHED, Patched())


@pytest.fixture(name="client")
def _client(encoder: Encoder, tmp_path: Path) -> Iterator[TestClient]:
    entries = []
    for at in range(16):
        image = draw_cell(LABELS[at % 2], 50 + at, patient=at, size=96)
        item = Item(
            id=item_id("d", f"{at}"),
            dataset="d",
            source=f"{at}",
            label=LABELS[at % 2],
            patient=f"P{at}",
        )
        entries.append(Entry(item, encoder.embed([image])[0], make_thumbnail(image), None))
    library = Library.open(tmp_path / "library")
    with library.create("cells", encoder.card) as cells:
        cells.add(entries)
    service = Service(library, Settings(library=tmp_path / "library"), lambda _: encoder)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client
    service.close()


def png(image: RGB) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def ask(client: TestClient, image: bytes | None = None, **question: Any) -> Explanation:
    response = (
        client.post("/v1/explain", json=question)
        if image is None
        else client.post(
            "/v1/explain", files={"image": image}, data={"question": json.dumps(question)}
        )
    )
    assert response.status_code == 200, response.text
    return Explanation.model_validate(response.json())


EVERY = ["colours", "correspondence", "causal", "attention", "vote"]


def test_every_map_is_shown_or_its_absence_is_explained(
    client: TestClient, encoder: Encoder
) -> None:
    query = png(draw_cell("eosinophil", 7, patient=3, size=96))
    hits = [item_id("d", "0"), item_id("d", "2")]

    found = ask(client, query, hits=hits, maps=EVERY, k=6)

    assert [pair.item for pair in found.pairs] == hits
    assert found.label == "eosinophil"
    kinds = {one.kind for pair in found.pairs for one in pair.maps}
    if encoder.card.patch_px is None:
        assert kinds == {"causal"}
        assert set(found.left_out) == {"colours", "correspondence", "attention"}
        assert "no patch tokens" in found.left_out["colours"]
    else:
        assert kinds == {"causal", "correspondence"}
        assert set(found.left_out) == {"attention"}
        assert len(found.colours) == 3
        assert all(pair.matches for pair in found.pairs)


def test_a_map_is_shown_only_where_it_beats_every_random_one(client: TestClient) -> None:
    query = png(draw_cell("eosinophil", 7, patient=3, size=96))

    found = ask(client, query, hits=[item_id("d", "0"), item_id("d", "1")], maps=EVERY)

    maps = [one for pair in found.pairs for one in pair.maps]
    assert maps
    for one in maps:
        assert one.check is not None
        beats = one.check.insertion - one.check.deletion > max(one.check.random)
        assert one.check.better == beats
        assert (one.values is not None) == beats
        assert (one.withheld is None) == beats


def test_the_causal_map_of_a_cell_beats_chance_and_lies_on_the_cell(client: TestClient) -> None:
    query = png(draw_cell("eosinophil", 7, patient=3, size=96))

    found = ask(client, query, hits=[item_id("d", "0")], maps=["causal"])

    mine = next(one for one in found.pairs[0].maps if one.of is None)
    assert mine.values is not None
    grid = np.array(mine.values)
    rows = len(grid)
    middle = grid[rows // 4 : -rows // 4, rows // 4 : -rows // 4]
    assert middle.mean() > grid[[0, -1]].mean()
    assert (grid.min(), grid.max()) == (0, 1)


def test_the_same_question_has_the_same_explanation(client: TestClient) -> None:
    id, hit = item_id("d", "0"), item_id("d", "2")

    one = ask(client, item=id, hits=[hit], maps=["causal", "vote"])
    again = ask(client, item=id, hits=[hit], maps=["causal", "vote"])

    assert one.pairs == again.pairs
    assert one.vote == again.vote


def test_a_part_of_an_image_is_explained_as_that_part(client: TestClient) -> None:
    cell = draw_cell("eosinophil", 7, patient=3, size=96)
    wide = np.full((96, 300, 3), 240, np.uint8)
    wide[:, 100:196] = cell
    box = Box(x=100, y=0, w=96, h=96).model_dump()

    part = ask(client, png(wide), crop=box, hits=[item_id("d", "0")], maps=["causal"])
    alone = ask(client, png(cell), hits=[item_id("d", "0")], maps=["causal"])

    assert part.pairs == alone.pairs


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"item": item_id("d", "0"), "hits": []}, "hits"),
        ({"item": item_id("d", "0"), "hits": [item_id("d", "99")]}, "may have been deleted"),
        ({"hits": [item_id("d", "0")]}, "exactly one of image, item and vector"),
        (
            {"vector": [1.0] * 12, "fingerprint": "x", "hits": [item_id("d", "0")]},
            "a vector shows nothing",
        ),
    ],
    ids=["no hits", "a deleted hit", "no query", "a vector"],
)
def test_what_cannot_be_explained_is_refused_in_words(
    client: TestClient, question: dict[str, Any], words: str
) -> None:
    response = client.post("/v1/explain", json=question)

    assert response.status_code in {404, 422}
    assert words in response.json()["detail"]


def test_a_question_is_read_as_it_is_written() -> None:
    question = ExplainQuestion(item=item_id("d", "0"), hits=(item_id("d", "1"),))

    assert ExplainQuestion.model_validate_json(question.model_dump_json()) == question


def test_an_encoder_without_patches_refuses_tokens() -> None:
    with pytest.raises(NoPatchTokens):
        Encoder(CARD, Colour(CARD)).tokens([np.zeros((8, 8, 3), np.uint8)])
