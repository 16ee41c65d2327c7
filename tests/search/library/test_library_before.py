"""A library written by an earlier version opens, and answers as it did then.

`library_before.tar.xz` holds 102 drawn cells in `library/`, with a calibration and one review, and
in `answer.json` a question and the hits that the version which wrote them gave.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from search.api.app import create_app
from search.settings import Settings

CELLS = "/v1/collections/cells"


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(Path(__file__).with_name("library_before.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(name="client", scope="module")
def _client(folder: Path) -> Iterator[TestClient]:
    app = create_app(settings=Settings(library=folder / "library"))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture(name="answer", scope="module")
def _answer(folder: Path) -> Any:
    return json.loads((folder / "answer.json").read_text(encoding="utf-8"))


def test_every_item_is_there(client: TestClient, answer: Any) -> None:
    found = client.post(f"{CELLS}/items/page", json={"limit": 1}).json()

    assert found["total"] == answer["total"] == 102


def test_the_same_question_gets_the_same_hits_and_scores(client: TestClient, answer: Any) -> None:
    found = client.post("/v1/search", json=answer["question"]).json()

    hits = [[hit["item"]["id"], hit["score"]] for hit in found["hits"]]
    assert [id for id, _ in hits] == [id for id, _ in answer["hits"]]
    assert [score for _, score in hits] == pytest.approx([score for _, score in answer["hits"]])


def test_its_calibration_holds_for_the_recorded_labels_that_it_was_fitted_on(
    client: TestClient, answer: Any
) -> None:
    states = {
        labels: client.post("/v1/vote", json=answer["question"] | {"labels": labels}).json()
        for labels in ("recorded", "reviewed")
    }

    assert states["recorded"]["calibration"] != "stale", states
    assert states["reviewed"]["calibration"] == "stale"


def test_its_review_is_there(client: TestClient) -> None:
    (review,) = client.get(f"{CELLS}/reviews").json()["reviewed"]

    assert review["item"]["label"] == "platelet"
    assert review["label"] == "neutrophil"
