"""Reviews, counts and pages of items over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from versioned import fill

from search.api.app import create_app
from search.cases.count import count_case
from search.index.contract import scroll_all
from search.library.library import Library
from search.library.reviews import Reviews
from search.schemas.cases import CountQuestion
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id, source_id
from search.security.keys import Keys
from search.service import Service
from search.settings import Settings

CELLS = "/v1/collections/cells"


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return fill(tmp_path)


@pytest.fixture(name="client")
def _client(library: Library) -> Iterator[TestClient]:
    service = Service(library, Settings(library=library.folder))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client
    service.close()


def page(client: TestClient, **wanted: object) -> dict[str, object]:
    found: dict[str, object] = client.post(f"{CELLS}/items/page", json=wanted).json()
    return found


def test_items_are_listed_page_by_page_each_once(client: TestClient) -> None:
    where = {"patient": ["patient 0-0", "patient 0-1"]}
    seen, after = [], None
    while True:
        found = page(client, where=where, limit=5, after=after)
        seen += [item["id"] for item in found["items"]]
        after = found["next"]
        if after is None:
            break

    assert found["total"] == 12
    assert len(seen) == len(set(seen)) == 12
    assert seen == sorted(seen)


def test_a_review_never_changes_the_label_of_the_source(client: TestClient) -> None:
    item = page(client, limit=1)["items"][0]
    body = {"reviews": [{"item": item["id"], "label": "blast"}], "reviewer": "Ada"}

    assert client.post(f"{CELLS}/reviews", json=body).json() == {"written": 1, "unchanged": 0}
    assert client.post(f"{CELLS}/reviews", json=body).json() == {"written": 0, "unchanged": 1}
    reviewed = client.get(f"/v1/items/{item['id']}/reviews").json()

    assert reviewed["item"] == client.get(f"/v1/items/{item['id']}").json() == item
    assert reviewed["label"] == "blast"
    assert reviewed["history"][0]["source_label"] == item["label"]
    assert (reviewed["history"][0]["caller"], reviewed["history"][0]["reviewer"]) == ("open", "Ada")
    assert client.get(f"{CELLS}/reviews").json()["reviewed"] == [reviewed]


def test_the_facts_of_a_collection_change_with_every_review(client: TestClient) -> None:
    item = page(client, limit=1)["items"][0]
    states = [client.get("/v1/collections").json()[0]["reviews_state"]]
    for label in ("blast", "monocyte"):
        body = {"reviews": [{"item": item["id"], "label": label}], "reviewer": "Ada"}
        client.post(f"{CELLS}/reviews", json=body)
        states.append(client.get("/v1/collections").json()[0]["reviews_state"])

    assert states[0] == ""
    assert len(set(states)) == 3


def test_a_review_of_an_item_that_is_not_there_writes_none_of_them(client: TestClient) -> None:
    item = page(client, limit=1)["items"][0]
    lost = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
    body = {"reviews": [{"item": id, "label": "blast"} for id in (item["id"], lost)]}

    answer = client.post(f"{CELLS}/reviews", json=body)

    assert answer.status_code == 404
    assert lost in answer.json()["detail"]
    assert client.get(f"{CELLS}/reviews").json() == {"reviewed": [], "next": None}


def test_a_reader_reads_reviews_and_writes_none(library: Library) -> None:
    settings = Settings(library=library.folder)
    _, reader = Keys(library.folder / "keys.json").add("reader", {"cells": "read"})
    with TestClient(create_app(settings=settings), base_url="http://localhost") as client:
        client.headers["x-api-key"] = reader
        item = page(client, limit=1)["items"][0]
        body = {"reviews": [{"item": item["id"], "label": "blast"}]}

        assert client.post(f"{CELLS}/reviews", json=body).status_code == 403
        assert client.get(f"/v1/items/{item['id']}/reviews").json()["history"] == []


def test_a_count_shows_source_reviewer_and_neighbours_side_by_side(client: TestClient) -> None:
    question = {"case": "patient 0-0", "by": "patient", "k": 5}
    before = client.post(f"{CELLS}/cases/count", json=question).json()
    cell = before["cells"][0]
    body = {"reviews": [{"item": cell["item"]["id"], "label": "blast"}]}
    client.post(f"{CELLS}/reviews", json=body)

    after = client.post(f"{CELLS}/cases/count", json=question).json()
    rows = {row["label"]: row for row in after["rows"]}
    source = rows[cell["item"]["label"]]

    assert before["patient_exclusion"] == "applied"
    assert (before["items"], before["recorded"], before["complete"]) == (6, 6, True)
    assert {row["label"]: row["recorded"] for row in before["rows"]} == {
        "eosinophil": 2,
        "lymphocyte": 2,
        "monocyte": 2,
    }
    assert sum(row["voted"] for row in before["rows"]) + before["not_sure"] == 6
    assert (source["recorded"], source["reviewed"]) == (2, 1)
    assert (rows["blast"]["recorded"], rows["blast"]["reviewed"]) == (0, 1)
    assert after["reviewed"] == 1


def test_a_case_that_is_not_there_is_named(client: TestClient) -> None:
    answer = client.post(f"{CELLS}/cases/count", json={"case": "C-9"})

    assert answer.status_code == 404
    assert "no item of case 'C-9'" in answer.json()["detail"]


def test_a_tile_of_tissue_is_called_nothing_by_cells(library: Library) -> None:
    service = Service(library, Settings(library=library.folder))
    with closing(service):
        collection = service.collection("cells")
        (cell,) = list(scroll_all(collection.store, Filter()))[:1]
        source = source_id(b"a slide")
        tile = Item(
            id=item_id("wsi", source, None, "tile"), dataset="wsi", source=source, kind="tile",
            case="slide 1",
        )  # fmt: skip
        collection.store.upsert([tile], cell.vector[None])

        counted = count_case(
            collection, Reviews(collection.versions), CountQuestion(case="slide 1", k=5)
        )

    assert [one.voted for one in counted.cells] == [None]
    assert counted.not_sure == 1


def test_reviews_count_in_votes_and_counts_and_recorded_labels_answer_as_before(
    client: TestClient,
) -> None:
    item = page(client, limit=1)["items"][0]  # type: ignore[index]
    question = {"item": item["id"], "k": 5}
    before = client.post("/v1/vote", json=question).json()
    voters = [hit["item"]["id"] for hit in before["answer"]["hits"]]

    said = [{"item": id, "label": "blast"} for id in voters]
    client.post(f"{CELLS}/reviews", json={"reviews": said, "reviewer": "Ada"})
    said[0] = {"item": voters[0], "label": "myeloblast"}
    client.post(f"{CELLS}/reviews", json={"reviews": said, "reviewer": "Ben"})
    after = client.post("/v1/vote", json=question).json()
    recorded = client.post("/v1/vote", json={**question, "labels": "recorded"}).json()
    count = {"by": "patient", "case": item["patient"], "k": 5}
    counted = client.post(f"{CELLS}/cases/count", json=count).json()

    for one in (before, recorded):
        one["answer"].pop("seconds")
        one["answer"].pop("labels")
    assert recorded == before
    assert after["vote"]["label"] == "blast"
    assert [hit["item"] for hit in after["answer"]["hits"]] == [
        hit["item"] for hit in before["answer"]["hits"]
    ]
    assert (after["answer"]["labels"], after["answer"]["reviewed"]) == ("reviewed", 5)
    first = after["answer"]["hits"][0]["reviewed"]
    assert (first["label"], first["by"], first["disputed"]) == ("myeloblast", "Ben", True)
    assert "blast" in {cell["voted"] for cell in counted["cells"]}


def test_the_agreement_of_two_reviewers_is_kappa(client: TestClient) -> None:
    ids = [item["id"] for item in page(client, limit=4)["items"]]  # type: ignore[index]
    for reviewer, labels in (("Ada", "aabb"), ("Ben", "aaba")):
        said = [{"item": id, "label": one} for id, one in zip(ids, labels, strict=True)]
        client.post(f"{CELLS}/reviews", json={"reviews": said, "reviewer": reviewer})

    found = client.get(f"{CELLS}/reviews/agreement").json()

    assert (found["items"], found["disputed"]) == (4, 1)
    (pair,) = found["pairs"]
    assert (pair["one"], pair["other"], pair["items"], pair["agreed"]) == ("Ada", "Ben", 4, 3)
    assert pair["kappa"] == pytest.approx(0.5)  # 3/4 seen, 1/2 by chance
