"""The middleware: limits, headers, faults, a store that is down, an audit log that is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from benchmarks.fuzz_api import Stored, small_library
from search.api.app import create_app
from search.api.middleware import Parts
from search.errors import StoreDown
from search.security import ratelimit
from search.security.audit import AuditLog, verify
from search.service import Service
from search.settings import Settings
from ui.cli.demo import free_port


@pytest.fixture(autouse=True)
def _one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """No window of the rate limit ends while a test counts calls."""
    monkeypatch.setattr(ratelimit, "time", SimpleNamespace(time=lambda: 6000.0))


@pytest.fixture(name="stored")
def _stored(tmp_path: Path) -> Stored:
    return small_library(tmp_path / "library", 12)


@pytest.fixture(name="settings")
def _settings(tmp_path: Path) -> Settings:
    return Settings(library=tmp_path / "library", rate_limit="5/hour")


@pytest.fixture(name="client")
def _client(settings: Settings, stored: Stored) -> Iterator[TestClient]:
    with TestClient(create_app(settings=settings)) as client:
        yield client


def test_more_calls_than_the_limit_get_the_time_of_the_next_try(client: TestClient) -> None:
    answers = [client.get("/v1/collections") for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["ratelimit-remaining"] == "4"
    assert int(answers[5].headers["retry-after"]) >= 1
    assert answers[5].headers["content-type"] == "application/problem+json"
    assert client.get("/health").status_code == 200


def test_an_address_that_guesses_keys_is_slowed_and_a_good_key_is_not(
    settings: Settings, stored: Stored
) -> None:
    locked = settings.model_copy(update={"rate_limit": ""})
    app = create_app(settings=Settings(library=locked.library, api_key="right", rate_limit=""))
    with TestClient(app) as client:
        wrong = [
            client.get("/v1/collections", headers={"X-API-Key": f"guess {at}"}).status_code
            for at in range(61)
        ]
        right = client.get("/v1/collections", headers={"X-API-Key": "right"}).status_code

    assert (wrong[0], wrong[-1], right) == (401, 429, 200)


def test_every_answer_has_the_headers_of_safety_and_nothing_is_shared_across_origins(
    client: TestClient,
) -> None:
    for path in ("/health", "/v1/collections", "/v1/items/nonsense", "/nowhere"):
        headers = client.get(path, headers={"Origin": "https://evil.example"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    assert client.options("/v1/collections/cells", headers=headers).status_code == 401


def test_an_answer_that_cannot_be_audited_is_not_given(
    client: TestClient, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: Parts = client.app.state.parts  # type: ignore[attr-defined]
    short = os.write

    def full(handle: int, content: bytes) -> int:
        return short(handle, content[:10]) if handle == parts.audit._file else 0

    with monkeypatch.context() as patch:
        patch.setattr("search.security.audit.os.write", full)
        answer = client.post("/v1/search", json={"item": stored.ids[0]})
    again = client.post("/v1/search", json={"item": stored.ids[0]})

    assert answer.status_code == 503
    assert "audit" in answer.json()["detail"]
    assert "hits" not in answer.text
    assert again.status_code == 200
    assert verify(parts.audit.folder).lines == 2  # opened, and the one that was answered


def test_a_library_on_a_server_that_is_down_answers_503_until_it_is_up(
    settings: Settings, stored: Stored
) -> None:
    dead = Settings(
        library=settings.library, qdrant_url=f"http://127.0.0.1:{free_port()}", rate_limit=""
    )
    with TestClient(create_app(settings=dead)) as client:
        calls: list[Any] = [
            client.get("/health"),
            client.get("/v1/collections"),
            client.post("/v1/search", json={"item": stored.ids[0]}),
            client.put("/v1/collections/cells/shards", content=stored.shard),
        ]
        parts: Parts = client.app.state.parts  # type: ignore[attr-defined]
        parts.open_service = lambda: Service.open(settings)  # the store is up
        parts._closed_until = 0
        up = client.post("/v1/search", json={"item": stored.ids[0]})

    for call in calls:
        assert call.status_code == 503, call.text
        assert int(call.headers["retry-after"]) >= 1
        assert call.json()["title"] == "The store does not answer"
    assert up.status_code == 200


def test_a_store_that_dies_under_the_service_is_a_503_with_retry_after(
    settings: Settings, stored: Stored
) -> None:
    from qdrant_client import QdrantClient

    from search.index.contract import IndexSettings
    from search.index.recorded import RecordedStore
    from search.index.server import ServerStore

    service = Service.open(settings)
    cells = service.collection("cells")
    embedded = cells.store
    url = f"http://127.0.0.1:{free_port()}"
    dead = QdrantClient(url=url, check_compatibility=False, timeout=2)
    down = ServerStore(dead, "cells", cells.card, IndexSettings())
    cells.store = RecordedStore(down, cells.cases)
    with TestClient(create_app(service)) as client:
        refused = client.post("/v1/search", json={"item": stored.ids[0]})
        facets = client.get("/v1/collections/cells/facets/label")
        cells.store = embedded
        again = client.post("/v1/search", json={"item": stored.ids[0]})
    dead.close()
    service.close()

    for answer in (refused, facets):
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "5"
    assert again.status_code == 200


def test_a_store_that_is_down_is_not_tried_by_every_call(settings: Settings) -> None:
    tried = []

    def never() -> Service:
        tried.append(1)
        raise StoreDown("nobody answers")

    parts = Parts.of(settings, never)
    try:
        for _ in range(5):
            with pytest.raises(StoreDown, match="nobody answers"):
                parts.opened()
    finally:
        parts.audit.close()

    assert len(tried) == 1


def test_damaged_keys_stop_the_start_in_words(settings: Settings) -> None:
    settings.library.mkdir(parents=True)
    (settings.library / "keys.json").write_text("{")

    with (
        pytest.raises(ValueError, match="restore the file"),
        TestClient(create_app(settings=settings)),
    ):
        pass


def test_the_audit_log_can_lie_in_a_folder_of_its_own(tmp_path: Path, settings: Settings) -> None:
    apart = Settings(library=settings.library, audit=tmp_path / "elsewhere")
    with TestClient(create_app(settings=apart)) as client:
        client.get("/v1/collections")

    assert verify(tmp_path / "elsewhere").lines == 3
    AuditLog(tmp_path / "elsewhere").close()


def test_a_json_body_is_capped_while_it_streams(client: TestClient) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"ids": ['
        for _ in range(40):
            yield b" " * (1024 * 1024)

    answer = client.post(
        "/v1/collections/cells/known", content=body(), headers={"content-type": "application/json"}
    )

    assert answer.status_code == 413
    assert "32 MiB" in answer.json()["detail"]
