"""Logs and metrics: what the operator needs, and nothing of a patient."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from benchmarks.fuzz_api import Stored, png, small_library
from search.api.access import Reads, api_router
from search.api.app import create_app
from search.api.middleware import Parts
from search.api.observe import Metrics, callers_id, make_log, only_known_fields
from search.service import Service
from search.settings import Settings

CANARIES = ("Jane-Roe", "P3", "C3", "squares", "scan_of_jane.png")


class Kept(logging.Handler):
    """Lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(name="stored", scope="module")
def _stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stored]:
    folder = tmp_path_factory.mktemp("observe") / "library"
    return folder, small_library(folder, 40)


def application(folder: Path) -> tuple[FastAPI, Service]:
    router = api_router()

    @router.get("/broken")
    def broken(access: Reads) -> None:
        raise RuntimeError(f"cannot read scan_of_jane.png of {access.caller.id}")

    service = Service.open(Settings(library=folder, log_level="info"))
    return create_app(service, routers=[router]), service


def test_nothing_of_a_patient_is_logged_audited_or_counted(
    stored: tuple[Path, Stored],
) -> None:
    folder, known = stored
    app, service = application(folder)
    kept = Kept()
    with TestClient(app, raise_server_exceptions=False) as client:
        parts: Parts = app.state.parts
        parts.log = make_log("info", kept)
        where = {"patient": ["Jane-Roe"], "dataset": ["squares"]}
        client.post(
            "/v1/search",
            files={"image": ("scan_of_jane.png", png((9, 9, 9), 1))},
            data={"question": json.dumps({"about": {"patient": "Jane-Roe"}, "where": where})},
        )
        client.post("/v1/search", json={"item": known.ids[31], "k": 3})
        client.get("/v1/cases/C3", params={"by": "case"})
        client.get("/v1/collections/Jane-Roe/facets/patient")
        client.get("/v1/Jane-Roe")
        fault = client.get("/v1/broken")
        metrics = client.get("/metrics").text
    service.close()
    audited = "".join(path.read_text() for path in (folder / "audit").glob("*.jsonl"))

    written = {"log": "\n".join(kept.lines), "audit": audited, "metrics": metrics}
    found = [
        (name, canary) for name, text in written.items() for canary in CANARIES if canary in text
    ]
    assert found == []
    assert fault.status_code == 500
    assert "scan_of_jane" not in fault.text
    assert known.ids[31] not in metrics + written["log"]
    lines = [json.loads(line) for line in kept.lines]
    (error,) = (line for line in lines if line["event"] == "failed")
    assert (error["error"], error["level"]) == ("RuntimeError", "error")
    assert error["request_id"] == fault.headers["x-request-id"]
    assert any("test_observe.py" in frame for frame in error["where"])


def test_the_audit_log_records_caller_query_and_what_was_shown(
    stored: tuple[Path, Stored],
) -> None:
    folder, known = stored
    app, service = application(folder)
    with TestClient(app) as client:
        question = {"item": known.ids[0], "k": 4, "where": {"label": ["EO"]}}
        answer = client.post("/v1/search", json=question)
        client.put("/v1/collections/cells/shards", content=known.shard)
    service.close()

    lines = [
        json.loads(line)
        for path in (folder / "audit").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    (line,) = (x for x in lines if x.get("request") == answer.headers["x-request-id"])
    assert line["caller"] == "open"
    assert (line["route"], line["status"], line["collection"]) == ("/v1/search", 200, "cells")
    assert (line["query"], line["k"], line["where"]) == ("item", 4, ["label"])
    assert line["items"] == [hit["item"]["id"] for hit in answer.json()["hits"]]
    assert line["hits"] == len(line["items"]) > 0
    assert any(x.get("written") == 0 and x["route"].endswith("/shards") for x in lines)


def test_a_log_line_is_json_and_holds_known_fields_only() -> None:
    kept = Kept()

    make_log("info", kept).info("answered", route="/v1/search", patient="Jane-Roe")
    make_log("warning", kept).info("not said")

    (line,) = map(json.loads, kept.lines)
    assert line["route"] == "/v1/search"
    assert set(line) == {"event", "level", "timestamp", "route"}
    assert only_known_fields(None, "", {"path": "/x"}) == {}


def test_metrics_count_by_route_and_status_and_know_the_sizes(
    stored: tuple[Path, Stored],
) -> None:
    app, service = application(stored[0])
    with TestClient(app) as client:
        for id in stored[1].ids[:3]:
            client.get(f"/v1/items/{id}")
        client.get("/v1/items/nonsense")
        text = client.get("/metrics").text
    service.close()

    route = 'method="GET",route="/v1/items/{id}"'
    assert f'hemaseek_requests_total{{{route},status="200"}} 3.0' in text
    assert f'hemaseek_requests_total{{{route},status="422"}} 1.0' in text
    assert f"hemaseek_request_seconds_count{{{route}}} 4.0" in text
    assert 'hemaseek_collection_items{collection="cells"} 40.0' in text
    assert "hemaseek_requests_in_progress 1.0" in text


def test_two_applications_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.began()
    first.ended("GET", "/health", 200, 0.1)

    assert b"/health" in first.text(dict)
    assert b"/health" not in second.text(dict)


@pytest.mark.parametrize("came", [None, "", "short", "a" * 65, "with space 123", "x\r\ny: z-123"])
def test_a_request_id_that_is_not_short_and_plain_is_dropped(came: str | None) -> None:
    assert callers_id(came) is None


def test_a_request_has_an_id_of_ours_and_keeps_that_of_its_caller_beside_it(
    stored: tuple[Path, Stored],
) -> None:
    app, service = application(stored[0])
    with TestClient(app) as client:
        mine = client.get("/v1/collections", headers={"X-Request-ID": "trace-0123456789"})
        theirs = client.get("/v1/collections", headers={"X-Request-ID": "<script>"})
    service.close()
    audited = "".join(path.read_text() for path in (stored[0] / "audit").glob("*.jsonl"))

    assert len(mine.headers["x-request-id"]) == len(theirs.headers["x-request-id"]) == 32
    assert mine.headers["x-callers-request-id"] == "trace-0123456789"
    assert "x-callers-request-id" not in theirs.headers
    assert '"callers_request":"trace-0123456789"' in audited.replace(": ", ":")
    assert "<script>" not in audited
