"""The service over HTTP: honest neighbours, and every refusal in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import enumerate as enumerate_threads
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from random_library import random_entries, random_service

from encoder.card import EncoderCard
from encoder.image import read_rgb
from encoder.registry import load
from search.api.app import create_app
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes, make_thumbnail
from search.library.sources import crop
from search.schemas.items import Box, Item, item_id, source_id
from search.service import Service
from search.settings import Settings

COLOURS = {"eosinophil": (200, 90, 60), "lymphocyte": (70, 60, 160), "platelet": (190, 160, 200)}


def square(colour: tuple[int, int, int], seed: int) -> np.ndarray[Any, Any]:
    noise = np.random.default_rng(seed).normal(0, 25, (40, 40, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def png(image: np.ndarray[Any, Any]) -> bytes:
    out = BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def make_entries(folder: Path) -> list[Entry]:
    """24 squares of three colours: patients P0 to P3, the platelets of no known patient."""
    encoder = load("colour")
    made = []
    for at in range(24):
        label = list(COLOURS)[at % 3]
        image = square(COLOURS[label], at)
        path = folder / f"{at}.png"
        path.write_bytes(png(image))
        source = source_id(path.read_bytes())
        patient = None if label == "platelet" else f"P{at % 4}"
        item = Item(
            id=item_id("squares", source),
            dataset="squares",
            source=source,
            label=label,
            patient=patient,
            case=patient and f"case {patient}",
            site=f"site {at % 2}",
        )
        vector = encoder.embed([image])[0]
        made.append(Entry(item, vector, make_thumbnail(image), str(path)))
    return made


@pytest.fixture(name="entries")
def _entries(tmp_path: Path) -> list[Entry]:
    return make_entries(tmp_path)


@pytest.fixture(name="service")
def _service(tmp_path: Path, entries: list[Entry]) -> Iterator[Service]:
    settings = Settings(library=tmp_path / "library", max_upload_mb=1, max_megapixels=1)
    library = Library.open(settings.library)
    with library.create("cells", load("colour").card) as cells:
        cells.add(entries)
    service = Service.open(settings)
    yield service
    service.close()


@pytest.fixture(name="client")
def _client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service)) as client:
        yield client


def upload(client: TestClient, image: bytes, path: str = "/v1/search", **question: Any) -> Any:
    files = {"image": ("cell.png", image, "image/png")}
    return client.post(path, files=files, data={"question": json.dumps(question)})


def refusal(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    return str(problem["detail"])


def test_an_uploaded_image_comes_back_with_cells_of_its_colour(client: TestClient) -> None:
    answer = upload(client, png(square(COLOURS["eosinophil"], 99)), k=5).json()

    assert [hit["item"]["label"] for hit in answer["hits"]] == ["eosinophil"] * 5
    assert answer["collection"] == "cells"
    assert answer["encoder"] == "colour"
    assert answer["items"] == 24
    assert "Research use only" in answer["disclaimer"]


def test_the_neighbours_vote_for_their_label(client: TestClient) -> None:
    found = upload(client, png(square(COLOURS["lymphocyte"], 99)), "/v1/vote", k=8).json()

    assert found["vote"]["label"] == "lymphocyte"
    assert found["sure"] is True
    assert sum(found["vote"]["shares"].values()) == pytest.approx(1)


def test_an_image_between_two_colours_is_not_given_one_label(client: TestClient) -> None:
    half = square(COLOURS["lymphocyte"], 99)
    half[:20] = square(COLOURS["eosinophil"], 98)[:20]

    found = upload(client, png(half), "/v1/vote", k=16).json()

    assert found["sure"] is False
    assert found["reason"].startswith("Not sure")


def test_a_stored_item_never_finds_itself_or_its_patient(
    client: TestClient, entries: list[Entry]
) -> None:
    for entry in entries:
        question = {"item": entry.item.id, "k": 24}
        answer = client.post("/v1/search", json=question).json()

        assert answer["hits"]
        for hit in answer["hits"]:
            assert hit["item"]["id"] != entry.item.id
            assert hit["item"]["source"] != entry.item.source
            if entry.item.patient:
                assert hit["item"]["patient"] != entry.item.patient


def test_the_same_bytes_uploaded_again_do_not_find_themselves(
    client: TestClient, entries: list[Entry]
) -> None:
    content = Path(str(entries[0].path)).read_bytes()

    kept_out = upload(client, content, k=24).json()
    let_in = upload(client, content, k=24, exclude=[]).json()

    assert entries[0].item.id not in [hit["item"]["id"] for hit in kept_out["hits"]]
    assert let_in["hits"][0]["item"]["id"] == entries[0].item.id


@pytest.mark.parametrize(
    ("question", "exclusion"),
    [
        ({}, "impossible"),
        ({"about": {"patient": "P1"}, "where": {"label": ["eosinophil"]}}, "applied"),
        ({"about": {"patient": "P1"}}, "partial"),
        ({"about": {"patient": "P1"}, "where": {"label": ["platelet"]}}, "impossible"),
        ({"about": {"patient": "P1"}, "exclude": ["source"]}, "off"),
    ],
)
def test_the_answer_says_whether_the_patient_was_kept_out(
    client: TestClient, question: dict[str, Any], exclusion: str
) -> None:
    answer = upload(client, png(square(COLOURS["eosinophil"], 99)), k=24, **question).json()

    assert answer["patient_exclusion"] == exclusion
    assert bool(answer["warnings"]) == (exclusion != "applied") or "Only" in answer["warnings"][0]
    if exclusion == "partial":
        assert "P1" not in [hit["item"]["patient"] for hit in answer["hits"]]


def test_every_hit_meets_the_filter_and_a_shortage_is_reported(client: TestClient) -> None:
    where = {"label": ["eosinophil", "platelet"], "site": ["site 1"]}

    answer = upload(client, png(square(COLOURS["lymphocyte"], 9)), k=24, where=where).json()

    assert {hit["item"]["label"] for hit in answer["hits"]} == {"eosinophil", "platelet"}
    assert {hit["item"]["site"] for hit in answer["hits"]} == {"site 1"}
    assert any("Only 8 of the 24" in warning for warning in answer["warnings"])


def test_a_vector_is_searched_only_with_its_fingerprint(
    client: TestClient, entries: list[Entry]
) -> None:
    vector = entries[0].vector.tolist()
    fingerprint = load("colour").card.fingerprint

    good = client.post("/v1/search", json={"vector": vector, "fingerprint": fingerprint, "k": 1})
    without = client.post("/v1/search", json={"vector": vector})
    other = client.post("/v1/search", json={"vector": vector, "fingerprint": "0" * 16})

    assert good.json()["hits"][0]["item"]["id"] == entries[0].item.id
    assert fingerprint in refusal(without, 422)
    assert "cannot be compared" in refusal(other, 409)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity"])
def test_a_vector_that_is_not_finite_is_refused(client: TestClient, bad: str) -> None:
    card = load("colour").card
    numbers = ", ".join([bad, *["0.5"] * (card.dim - 1)])
    body = f'{{"vector": [{numbers}], "fingerprint": "{card.fingerprint}"}}'

    response = client.post("/v1/search", content=body, headers={"content-type": "application/json"})

    assert response.status_code == 422
    refusal(response, 422)


def test_zero_and_short_vectors_are_refused(client: TestClient) -> None:
    card = load("colour").card
    zero = {"vector": [0.0] * card.dim, "fingerprint": card.fingerprint}
    short = {"vector": [1.0, 2.0], "fingerprint": card.fingerprint}

    assert "is zero" in refusal(client.post("/v1/search", json=zero), 422)
    assert "(1, 2)" in refusal(client.post("/v1/search", json=short), 422)


@pytest.mark.parametrize("k", [0, -1, 1001, "many"])
def test_k_out_of_range_is_refused(client: TestClient, k: object) -> None:
    assert "k:" in refusal(upload(client, png(square((9, 9, 9), 1)), k=k), 422)


def test_what_is_not_an_image_is_refused(client: TestClient) -> None:
    whole = png(square(COLOURS["platelet"], 5))

    assert "not an image" in refusal(upload(client, b"%PDF-1.7 hello"), 415)
    assert "damaged" in refusal(upload(client, whole[: len(whole) // 2]), 415)
    assert "not an image" in refusal(upload(client, b""), 415)


def test_a_file_over_the_cap_is_refused_while_it_streams(client: TestClient) -> None:
    big = b"\x89PNG" + bytes(2 * 1024 * 1024)

    assert "larger than 1 MiB" in refusal(upload(client, big), 413)

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(64 * 1024)

    streamed = client.post(
        "/v1/search", content=chunks(), headers={"content-type": "application/json"}
    )
    assert "larger than 1 MiB" in refusal(streamed, 413)


def test_too_many_pixels_are_refused_before_decoding(client: TestClient) -> None:
    out = BytesIO()
    Image.new("L", (4000, 4000)).save(out, "PNG")

    assert "4000 x 4000 pixels" in refusal(upload(client, out.getvalue()), 413)


def test_a_tiny_image_is_answered_with_a_warning(client: TestClient) -> None:
    answer = upload(client, png(np.full((1, 1, 3), 120, np.uint8)), k=3).json()

    assert any("too small" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"{", "application/json", "JSON"),
        (b'{"k": 3}', "application/json", "exactly one of image, item and vector, got 0"),
        (b'{"item": "x", "kk": 3}', "application/json", "kk"),
        (b"a=b", "application/x-www-form-urlencoded", "got application/x-www-form-urlencoded"),
        (b"x", "multipart/form-data", "boundary"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_in_words(
    client: TestClient, body: bytes, kind: str, words: str
) -> None:
    response = client.post("/v1/search", content=body, headers={"content-type": kind})

    assert words in refusal(response, 422)


def test_items_and_their_pictures_are_served(client: TestClient, entries: list[Entry]) -> None:
    wanted = entries[4]

    item = client.get(f"/v1/items/{wanted.item.id}").json()
    small = client.get(f"/v1/items/{wanted.item.id}/image")
    full = client.get(f"/v1/items/{wanted.item.id}/image", params={"size": "full"})

    assert Item.model_validate(item) == wanted.item
    assert "path" not in item
    assert small.content == wanted.thumbnail
    assert full.headers["x-hemaseek-picture"] == "source"
    assert full.headers["content-type"] == "image/jpeg"


def test_a_source_that_changed_is_not_passed_off_as_the_item(
    client: TestClient, entries: list[Entry]
) -> None:
    Path(str(entries[4].path)).write_bytes(png(square((0, 0, 0), 1)))

    full = client.get(f"/v1/items/{entries[4].item.id}/image", params={"size": "full"})

    assert full.headers["x-hemaseek-picture"] == "thumbnail"
    assert full.content == entries[4].thumbnail


def test_what_is_not_there_is_named(client: TestClient) -> None:
    missing = "00000000-0000-5000-8000-000000000000"

    assert missing in refusal(client.get(f"/v1/items/{missing}"), 404)
    assert missing in refusal(client.post("/v1/search", json={"item": missing}), 404)
    assert "nosuch" in refusal(
        client.post("/v1/search", json={"item": missing, "collection": "nosuch"}), 404
    )
    refusal(client.get("/v1/items/not-a-uuid"), 422)
    refusal(client.post("/v1/search", json={"item": "not-a-uuid"}), 422)
    refusal(client.get("/nowhere"), 404)


def test_collections_facets_and_health_say_what_is_served(client: TestClient) -> None:
    card = load("colour").card

    (cells,) = client.get("/v1/collections").json()
    counts = client.get("/v1/collections/cells/facets/label").json()["values"]
    health = client.get("/health").json()

    assert (cells["name"], cells["items"], cells["default"]) == ("cells", 24, True)
    assert counts == {"eosinophil": 8, "lymphocyte": 8, "platelet": 8}
    assert (health["status"], health["encoder"], health["fingerprint"]) == (
        "ok",
        "colour",
        card.fingerprint,
    )


def test_shards_come_in_through_the_service(client: TestClient, entries: list[Entry]) -> None:
    card = load("colour").card
    assert client.put("/v1/collections/more", content=card.to_json()).json()["items"] == 0
    shard = make_shard_bytes(entries[:10], card)

    first = client.put("/v1/collections/more/shards", content=shard).json()
    again = client.put("/v1/collections/more/shards", content=shard).json()
    ids = [entry.item.id for entry in entries]
    known = client.post("/v1/collections/more/known", json={"ids": ids}).json()["known"]
    changed = entries[0].item.model_copy(update={"label": "seen again"}).model_dump(mode="json")
    updated = client.patch("/v1/collections/more/items", json={"items": [changed]}).json()
    built = client.post("/v1/collections/more/build").json()

    assert first == {"stored": 10, "updated": 0, "unchanged": 0}
    assert again == {"stored": 0, "updated": 0, "unchanged": 10}
    assert set(known) == set(ids[:10])
    assert updated["updated"] == 1
    assert built["points"] == 10
    assert client.get(f"/v1/items/{ids[0]}", params={"collection": "more"}).json() == changed


def test_a_shard_or_card_of_another_encoder_is_refused(
    client: TestClient, entries: list[Entry]
) -> None:
    other = EncoderCard(id="other", architecture="other-v1", dim=4)
    vector = np.ones(4, np.float32)
    shard = make_shard_bytes([Entry(entries[0].item, vector, b"", None)], other)

    assert "other" in refusal(client.put("/v1/collections/cells/shards", content=shard), 409)
    assert "other" in refusal(client.put("/v1/collections/cells", content=other.to_json()), 409)
    refusal(client.put("/v1/collections/cells/shards", content=b"junk"), 422)
    refusal(client.put("/v1/collections/cells", content=b"junk"), 422)
    refusal(client.put("/v1/collections/NOT OK", content=other.to_json()), 422)


def test_an_encoder_that_changed_since_the_ingest_is_refused(
    service: Service, client: TestClient
) -> None:
    service.encoders._load = lambda _: _changed()
    service.encoders._loaded.clear()

    assert "cannot be compared" in refusal(upload(client, png(square((9, 9, 9), 1))), 409)


def _changed() -> Any:
    from dataclasses import replace

    encoder = load("colour")
    encoder.card = replace(encoder.card, input_px=32)
    return encoder


def test_with_a_key_every_call_needs_it(tmp_path: Path) -> None:
    settings = Settings(library=tmp_path / "locked", api_key="secret")
    service = Service.open(settings)
    try:
        with TestClient(create_app(service)) as client:
            assert "X-API-Key" in refusal(client.get("/v1/collections"), 401)
            wrong = client.get("/v1/collections", headers={"X-API-Key": "guess"})
            right = client.get("/v1/collections", headers={"X-API-Key": "secret"})

            refusal(wrong, 401)
            assert right.json() == []
            assert client.get("/health").json()["status"] == "empty"
    finally:
        service.close()


def test_the_service_says_in_the_library_that_it_owns_it(tmp_path: Path) -> None:
    settings = Settings(library=tmp_path / "library", port=8123)
    note = settings.library / "service.json"

    with TestClient(create_app(settings=settings)):
        assert json.loads(note.read_text())["url"] == "http://127.0.0.1:8123"

    assert not note.exists()


@pytest.mark.parametrize("preload", [True, False])
def test_the_encoder_is_there_before_the_first_question(
    tmp_path: Path, entries: list[Entry], preload: bool
) -> None:
    folder = tmp_path / "library"
    filled = Service.open(Settings(library=folder))
    filled.create("cells", load("colour").card).collection.add(entries)
    filled.close()

    app = create_app(settings=Settings(library=folder, preload=preload))
    with TestClient(app):
        ahead = [one for one in enumerate_threads() if one.name == "preload"]
        for thread in ahead:
            thread.join()
        assert bool(app.state.parts.service.encoders._loaded) == preload


def test_an_encoder_that_cannot_be_loaded_does_not_stop_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    made = Service.open(Settings(library=folder))
    made.create("cells", EncoderCard(id="gone", architecture="gone-v1", dim=4))
    made.close()

    with TestClient(create_app(settings=Settings(library=folder))) as client:
        assert client.get("/health").status_code == 200


def test_a_tile_of_a_slide_is_shown_as_its_thumbnail(
    service: Service, client: TestClient, entries: list[Entry]
) -> None:
    entry, box = entries[0], Box(x=0, y=0, w=8, h=8)
    id = item_id("squares", entry.item.source, box, "tile")
    item = entry.item.model_copy(update={"id": id, "bbox": box, "kind": "tile"})
    service.collection("cells").add([Entry(item, entry.vector, entry.thumbnail, entry.path)])

    shown = client.get(f"/v1/items/{id}/image", params={"size": "full"})

    assert shown.headers["x-hemaseek-picture"] == "thumbnail"


def test_a_crop_over_the_border_is_filled_with_the_colour_of_the_glass(
    service: Service, client: TestClient, entries: list[Entry]
) -> None:
    entry = entries[0]
    box = Box(x=-10, y=-10, w=30, h=30)
    item = entry.item.model_copy(
        update={"id": item_id("squares", entry.item.source, box), "bbox": box}
    )
    service.collection("cells").add([Entry(item, entry.vector, entry.thumbnail, entry.path)])

    content = client.get(f"/v1/items/{item.id}/image", params={"size": "full"}).content

    with Image.open(BytesIO(content)) as picture:
        assert picture.size == (30, 30)
        found = np.asarray(picture.convert("RGB")).astype(int)
    expected = crop(read_rgb(Path(str(entry.path))), box).astype(int)
    assert (expected[:10] == expected[0, 0]).all()
    assert expected[0, 0].min() < 240, "not white: the colour of the glass"
    assert np.abs(found - expected)[:8].mean() < 3


def test_the_openapi_file_describes_the_question(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    assert document["components"]["schemas"]["Question"]["properties"]["k"]["maximum"] == 1000
    assert (
        "multipart/form-data" in document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    )


@pytest.mark.parametrize(
    "damage", ["card", "shard", "catalogue", "current"], ids=lambda kind: f"damaged-{kind}"
)
def test_a_collection_that_cannot_be_opened_is_set_aside_and_the_others_answer(
    tmp_path: Path, damage: str
) -> None:
    service = random_service(tmp_path, random_entries(np.random.default_rng(0)))
    with service.library.create("other", service.context().collection.card):
        pass
    service.close()
    version = service.library.folder / "collections" / "other" / "versions" / "1"
    if damage == "current":
        (version.parents[1] / "current.json").write_text("{")
    elif damage == "catalogue":
        (version / "catalogue.sqlite").write_bytes(b"no database" * 100)
    elif damage == "shard":
        (version / "shards").mkdir(exist_ok=True)
        (version / "shards" / "00000001-0123456789abcdef.parquet").write_bytes(b"PAR1 no PAR1")
    else:
        for path in version.glob("*.json"):
            path.write_text('{"dim": 1.5}')

    with TestClient(
        create_app(settings=Settings(library=service.library.folder, preload=False)),
        base_url="http://localhost",
    ) as client:
        health = client.get("/health").json()
        listed = [one["name"] for one in client.get("/v1/collections").json()]
        search = client.post("/v1/search", json={"vector": [1.0] * 6, "k": 1})
        refused = client.get("/v1/collections/other/card")

    assert listed == ["cells"]
    assert search.status_code in {200, 422}
    assert health["set_aside"] == 1
    assert refused.status_code == 503
    assert "hemaseek doctor" in refused.json()["detail"]
