"""Versions over HTTP: listed, built as a job, switched, pruned; each answer by one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptable import encoder_of, fill_sites
from fastapi.testclient import TestClient
from versioned import fill, mixed

from encoder.contract import Encoder
from encoder.registry import load
from search.api.app import create_app
from search.library.contents import Truth
from search.library.library import Library
from search.maintenance.checks import Limits
from search.maintenance.reindex import ReindexPlan, reindex
from search.maintenance.rollback import rollback
from search.query.answer import answer as search
from search.schemas.questions import Question
from search.security.keys import Keys
from search.service import Service
from search.settings import Settings

PLAN = ReindexPlan(limits=Limits(knn_margin=1.0, bias_margin=1.0))


def by_name(id: str) -> Encoder:
    return mixed(int(id.split("-")[1])) if id.startswith("mixed-") else load(id)


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return fill(tmp_path)


@pytest.fixture(name="service")
def _service(library: Library, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr("search.api.routes.versions.load", lambda id, device: by_name(id))
    service = Service(library, Settings(library=library.folder), by_name)
    yield service
    service.close()


@pytest.fixture(name="client")
def _client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client


def ended(client: TestClient, path: str) -> dict[str, Any]:
    for _ in range(3000):
        job: dict[str, Any] = client.get(path).json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.01)
    raise AssertionError(job)


def build(client: TestClient, encoder: str, **more: object) -> dict[str, Any]:
    answer = client.post("/v1/collections/cells/reindex", json={"encoder": encoder, **more})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return ended(client, answer.headers["location"])


def test_a_version_is_built_as_a_job_and_answers_when_it_has_passed(client: TestClient) -> None:
    job = build(client, "mixed-1", force=True)

    assert (job["state"], job["done"], job["total"]) == ("done", 24, 24)
    assert job["result"]["switched"]
    first, second = client.get("/v1/collections/cells/versions").json()
    assert (first["encoder"], first["previous"]) == ("colour", True)
    assert (second["encoder"], second["served"], second["items"]) == ("mixed-1", True, 24)
    assert {check["name"] for check in second["gates"]} >= {"collapse", "golden", "recall", "knn"}
    answer = client.get("/v1/collections").json()
    assert answer[0]["fingerprint"] == mixed(1).card.fingerprint


def test_a_refused_version_does_not_answer_and_the_job_says_which_gate(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.api.routes.versions.load", lambda id, device: mixed(1, bias=1000.0))
    job = build(client, "mixed-1")

    assert job["state"] == "done"
    assert not job["result"]["switched"]
    assert "collapse" in job["result"]["refused_by"]
    assert client.get("/v1/collections").json()[0]["encoder"] == "colour"
    refused = client.post("/v1/collections/cells/rollback", json={"version": "2"})
    assert refused.status_code == 422
    assert "did not pass its checks" in refused.json()["detail"]


def test_missing_items_are_counted_without_naming_files(client: TestClient, tmp_path: Path) -> None:
    fields = sorted((tmp_path / "drawn").glob("*.png"))
    fields[0].unlink()
    job = build(client, "mixed-1", allow_missing=True, force=True)
    assert (job["state"], job["result"]["missing"]) == ("done", 6)
    assert len(job["result"]["missing_ids"]) == 6
    assert "field-" not in str(job)

    for field in fields[1:]:
        field.unlink()
    job = build(client, "mixed-2", allow_missing=True, force=True)
    assert job["state"] == "failed", "a version of nothing never answers"
    assert "18 of 18 items" in job["error"]
    assert "field-" not in job["error"]


def test_a_rollback_answers_at_once_by_the_version_before(client: TestClient) -> None:
    build(client, "mixed-1", force=True)
    done = client.post("/v1/collections/cells/rollback", json={})

    assert done.status_code == 200, done.text
    assert (done.json()["left"], done.json()["served"], done.json()["lacking"]) == ("2", "1", 0)
    assert client.get("/v1/collections").json()[0]["encoder"] == "colour"
    assert client.post("/v1/collections/cells/rollback", json={"version": "9"}).status_code == 404
    assert (
        client.post("/v1/collections/cells/rollback", json={"version": "../1"}).status_code == 422
    )


def test_items_are_removed_and_the_index_is_proved_and_old_versions_pruned(
    client: TestClient, service: Service
) -> None:
    build(client, "mixed-1", force=True)
    ids = [s.item.id for s in service.collection("cells").store.scroll(limit=3).items]
    removed = client.post("/v1/collections/cells/items/remove", json={"ids": [*ids, ids[0]]})
    assert removed.json() == {"removed": 3}
    assert client.get("/v1/collections").json()[0]["items"] == 21
    found = client.post("/v1/collections/cells/reconcile").json()
    assert found["equal"]
    assert found["points"] == 21
    assert client.post("/v1/collections/cells/prune?keep=0").json() == {"pruned": ["1"]}
    assert len(client.get("/v1/collections/cells/versions").json()) == 1


def test_what_was_left_by_a_switch_elsewhere_is_pruned_at_once(
    client: TestClient, library: Library
) -> None:
    build(client, "mixed-1", force=True)
    assert rollback(library, "cells").served == "1"  # the service has not been asked since

    pruned = client.post("/v1/collections/cells/prune?keep=0")

    assert pruned.json() == {"pruned": ["2"]}


def test_only_an_administrator_changes_versions_and_readers_see_their_own_jobs(
    library: Library, service: Service
) -> None:
    keys = Keys(library.folder / "keys.json")
    text = {
        role: keys.add(role, roles)[1]
        for role, roles in {
            "reader": {"cells": "read"},
            "writer": {"cells": "write"},
            "stranger": {"other": "admin"},
            "admin": {"cells": "admin"},
        }.items()
    }

    def headers(role: str) -> dict[str, str]:
        return {"X-API-Key": text[role]}

    with TestClient(create_app(service), base_url="http://localhost") as client:
        for role in ("reader", "writer", "stranger"):
            for verb in ("reindex", "rollback", "prune", "reconcile"):
                body = {"encoder": "mixed-1"} if verb == "reindex" else {}
                path = f"/v1/collections/cells/{verb}"
                assert client.post(path, json=body, headers=headers(role)).status_code == 403
        started = client.post(
            "/v1/collections/cells/reindex",
            json={"encoder": "mixed-1", "force": True},
            headers=headers("admin"),
        )
        job = started.headers["location"]
        assert client.get(job, headers=headers("reader")).status_code == 200
        assert client.get(job, headers=headers("stranger")).status_code == 404
        assert client.get("/v1/jobs", headers=headers("stranger")).json() == []
        assert len(client.get("/v1/jobs", headers=headers("reader")).json()) == 1
        assert client.delete(job, headers=headers("reader")).status_code == 403
        assert client.get("/v1/jobs/nothing", headers=headers("reader")).status_code == 404
        assert client.delete(job, headers=headers("admin")).status_code == 200


def test_under_switches_every_answer_is_of_one_version(library: Library) -> None:
    """Each fingerprint is that of the vectors that were searched: the scores are theirs."""
    reindex(library, "cells", mixed(1), plan=PLAN)
    rows = {}
    for version in library.versions("cells").all():
        truth = Truth.read(library.versions("cells").path(version.id), version.card)
        _, items, vectors = truth.table()
        rows[version.card.fingerprint] = {
            item.id: row for item, row in zip(items, vectors, strict=True)
        }
    service = Service(library, Settings(library=library.folder), by_name)
    service.encoders._loaded[load("colour").card.fingerprint] = load("colour")
    wrong: list[str] = []
    seen: set[str] = set()
    stop = threading.Event()

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        known = sorted(next(iter(rows.values())))
        while not stop.is_set():
            id = known[rng.integers(len(known))]
            try:
                answer = search(service.context(), Question(item=id, k=5, exclude=("item",)))
            except Exception as error:  # any at all is a wrong answer here
                wrong.append(repr(error))
                return
            table = rows[answer.fingerprint]
            seen.add(answer.fingerprint)
            for hit in answer.hits:
                if abs(float(table[hit.item.id] @ table[id]) - hit.score) > 1e-5:
                    wrong.append(f"{hit.item.id} in {answer.fingerprint}")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        served = rollback(library, "cells").served
        end = time.monotonic() + 30
        while service.collection("cells").version.id != served:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    service.close()

    assert wrong == []
    assert seen == set(rows)


def test_an_adapted_version_is_built_as_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = fill_sites(tmp_path / "sites")
    monkeypatch.setattr("search.api.routes.versions.load", lambda id, device: encoder_of(id))
    service = Service(library, Settings(library=library.folder), encoder_of)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        sent = client.post("/v1/collections/cells/adapt", json={"kind": "metric"})
        job = ended(client, sent.headers["location"])
        first, second = client.get("/v1/collections/cells/versions").json()
        card = client.get("/v1/collections/cells/card").json()
    service.close()

    assert (job["kind"], job["state"]) == ("adapt", "done"), job
    assert (job["result"]["copied"], job["result"]["embedded"]) == (240, 0)
    assert second["served"]
    assert card["fingerprint"] == second["fingerprint"] != first["fingerprint"]
    assert card["adapted"].startswith("metric ")


def test_a_collection_that_cannot_be_adapted_ends_the_job_with_the_reason(
    client: TestClient,
) -> None:
    sent = client.post("/v1/collections/cells/adapt", json={"kind": "align"})
    job = ended(client, sent.headers["location"])

    assert job["state"] == "failed"
    assert "aligning needs 50 of each site" in job["error"]
