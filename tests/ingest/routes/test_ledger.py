"""What was brought in, over HTTP: counts, runs, files set aside, and no name of any of them."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from versioned import fill

from ingest.pipeline.ledger import Ledger, Row, ledger_path
from ingest.sources.report import Progress
from search.library.library import Library
from search.security.keys import Keys
from search.settings import Settings
from ui.cli.serving import application

AT = "/v1/collections/cells/ingests"


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return fill(tmp_path)


@pytest.fixture(name="client")
def _client(library: Library, tmp_path: Path) -> Iterator[TestClient]:
    seen = tmp_path / "CANARY-seen.png"
    Image.new("RGB", (600, 300), (180, 90, 150)).save(seen)
    broken = tmp_path / "CANARY-broken.SVS"
    broken.write_bytes(b"II*\0 broken")
    with Ledger(ledger_path(library.folder), "cells", "0123") as ledger:
        ledger.begin({"paths": ["/CANARY"]})
        ledger.write(
            [
                Row(path="/CANARY/whole.png", dataset="made", state="done", items=4),
                Row(path=str(seen), dataset="made", state="quarantined", reason="no tissue"),
                Row(
                    path=str(broken),
                    dataset="made",
                    state="quarantined",
                    reason="the reader gave up",
                    size=11,
                    attempts=2,
                ),
            ]
        )
        ledger.end("failed", "it stopped at /CANARY/whole.png")
        ledger.begin({"paths": ["/CANARY"]})
        ledger.end("done", "4 items")
        ledger.begin({"paths": ["/CANARY"]})
        ledger.note(str(Progress(done=3, total=7, items=3, rate=2.0, eta=None)))
    keys = Keys(library.folder / "keys.json")
    _, text = keys.add("writer", {"cells": "write"})
    app = application(Settings(library=library.folder))
    with TestClient(app, base_url="http://localhost") as client:
        client.headers["x-api-key"] = text
        yield client


def test_counts_runs_and_reasons_are_told_without_names(client: TestClient) -> None:
    answer = client.get(AT)
    found = answer.json()

    assert (found["done"], found["pending"], found["quarantined"]) == (1, 0, 2)
    assert [run["summary"] for run in found["runs"]] == [
        "3 of 7 files, 3 items, 2 a second",
        "4 items",
        "`hemaseek jobs` says why",
    ]
    assert {(one["ending"], one["reason"]) for one in found["set_aside"]} == {
        (".png", "no tissue"),
        (".svs", "the reader gave up"),
    }
    assert "CANARY" not in answer.text


def test_a_thumbnail_is_shown_of_what_can_be_read(client: TestClient) -> None:
    keys = {one["ending"]: one["key"] for one in client.get(AT).json()["set_aside"]}

    seen = client.get(f"{AT}/{keys['.png']}/thumbnail")
    broken = client.get(f"{AT}/{keys['.svs']}/thumbnail")
    unknown = client.get(f"{AT}/{'0' * 16}/thumbnail")

    assert Image.open(BytesIO(seen.content)).size == (150, 75)
    assert (broken.status_code, unknown.status_code) == (404, 404)
    assert "CANARY" not in broken.text


def test_what_was_set_aside_can_be_asked_for_again(client: TestClient) -> None:
    key = client.get(AT).json()["set_aside"][0]["key"]

    assert client.post(f"{AT}/release", json={"keys": [key]}).json() == {"released": 1}
    after = client.get(AT).json()
    assert (after["pending"], after["quarantined"]) == (1, 1)
    assert client.post(f"{AT}/release", json={}).json() == {"released": 1}
    assert client.post(f"{AT}/release", json={}).json() == {"released": 0}


def test_a_library_without_a_ledger_has_nothing_to_tell(library: Library) -> None:
    app = application(Settings(library=library.folder))
    with TestClient(app, base_url="http://localhost") as client:
        found = client.get(AT).json()

    assert (found["done"], found["runs"], found["set_aside"]) == (0, [], [])
    assert not ledger_path(library.folder).exists()
