"""Records of cases over HTTP: written, listed, shown with the case, and noted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from random_library import random_entries, random_service

from search.api.app import create_app

RECORDS = "/v1/collections/cells/cases/records"


@pytest.fixture(name="client")
def _client(tmp_path: Path, rng: np.random.Generator) -> Iterator[TestClient]:
    service = random_service(tmp_path, random_entries(rng))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client
    service.close()


def test_records_are_written_listed_by_diagnosis_and_shown_with_their_case(
    client: TestClient, tmp_path: Path
) -> None:
    changes = [{"case": f"P{at}-0", "diagnosis": "AML" if at < 3 else "CLL"} for at in range(1, 5)]
    written = client.post(RECORDS, json={"changes": changes, "author": "AB"}).json()
    where = {"where": {"diagnosis": ["AML"]}, "limit": 1}
    first = client.post(f"{RECORDS}/page", json=where).json()
    second = client.post(f"{RECORDS}/page", json={**where, "after": first["next"]}).json()
    facts = client.get("/v1/cases/P3-0").json()

    assert (written["written"], written["unchanged"]) == (4, 0)
    assert [one["case"] for one in first["records"] + second["records"]] == ["P1-0", "P2-0"]
    assert (first["total"], second["next"]) == (2, None)
    assert facts["records"][0]["diagnosis"] == "CLL"
    assert facts["records"][0]["edits"][0]["author"] == "AB"
    logs = "".join(
        path.read_text()
        for path in (tmp_path / "library").rglob("*.jsonl")
        if path.name != "cases.jsonl"
    )
    line = next(json.loads(one) for one in logs.splitlines() if 'cases/records"' in one)
    assert line["fields"] == ["diagnosis"]
    assert "AML" not in logs


def test_a_record_that_cannot_be_kept_is_refused_in_a_sentence(client: TestClient) -> None:
    bad = [{"case": "P1-0", "diagnosis": "AML"}, {"case": "nobody", "diagnosis": "AML"}]
    refused = client.post(RECORDS, json={"changes": bad})
    none = client.post(RECORDS, json={"changes": [{"case": "P1-0", "date": "2024-13-40"}]})

    assert refused.status_code == 422
    assert "'nobody'" in refused.json()["detail"]
    assert none.status_code == 422
    assert client.post(f"{RECORDS}/page", json={}).json()["total"] == 0
