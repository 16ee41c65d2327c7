"""Selections over HTTP: kept under a name, with the collection and in its snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from versioned import fill

from search.api.app import create_app
from search.library.library import Library
from search.maintenance.snapshots import restore, snapshot
from search.service import Service
from search.settings import Settings

CELLS = "/v1/collections/cells"
AT = f"{CELLS}/selections"


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return fill(tmp_path_factory.mktemp("selections"))


@pytest.fixture(name="client", scope="module")
def _client(library: Library) -> Iterator[TestClient]:
    service = Service(library, Settings(library=library.folder))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client
    service.close()


def test_a_selection_is_kept_under_a_name_exported_and_forgotten(client: TestClient) -> None:
    page = client.post(f"{CELLS}/items/page", json={"limit": 5}).json()["items"]
    ids = [one["id"] for one in page][::-1]
    made = client.put(f"{AT}/to discuss", json={"items": [*ids, ids[0]], "note": "odd nuclei"})
    assert made.status_code == 200, made.text
    client.put(f"{AT}/a", json={"items": ids[:2]})
    client.put(f"{AT}/a", json={"items": ids[:1]})
    listed = client.get(AT).json()["selections"]

    assert [(one["name"], one["items"], one["note"]) for one in listed] == [
        ("a", ids[:1], ""),
        ("to discuss", ids, "odd nuclei"),
    ]
    wanted = {"format": "safetensors", "items": listed[1]["items"]}
    assert client.post(f"{CELLS}/export", json=wanted).status_code == 200

    gone = "00000000-0000-0000-0000-000000000000"
    refused = client.put(f"{AT}/b", json={"items": [ids[0], gone]})
    assert refused.status_code == 422
    assert "lacks 1 of the 2 items" in refused.text
    left = client.delete(f"{AT}/a").json()["selections"]
    assert [one["name"] for one in left] == ["to discuss"]
    missing = client.delete(f"{AT}/a")
    assert missing.status_code == 404
    assert "there is no selection 'a'; kept are to discuss" in missing.text


def test_a_snapshot_brings_selections_back_and_leaves_later_ones(
    client: TestClient, library: Library, tmp_path: Path
) -> None:
    ids = [
        one["id"] for one in client.post(f"{CELLS}/items/page", json={"limit": 3}).json()["items"]
    ]
    for name, items in (("kept", ids[:1]), ("lost", ids[:2])):
        client.put(f"{AT}/{name}", json={"items": items})
    snapshot(library, "cells", tmp_path / "snapshot")
    client.delete(f"{AT}/lost")
    client.put(f"{AT}/kept", json={"items": ids})
    restore(library, tmp_path / "snapshot")

    found = {one["name"]: one["items"] for one in client.get(AT).json()["selections"]}
    assert (found["kept"], found["lost"]) == (ids, ids[:2])
