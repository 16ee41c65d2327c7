"""Every route of the OpenAPI file, and a call of each that would be answered, were it allowed."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from benchmarks.fuzz_api import Stored
from search.settings import Settings
from ui.cli.serving import application


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    document = application(Settings()).openapi()
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def ask(client: TestClient, method: str, path: str, stored: Stored, key: str) -> Any:
    """A call about the collection `cells` that would be answered, were it allowed."""
    filled = path
    for name, value in {
        "name": "cells",
        "id": "0" * 32 if "/sources/" in path else stored.ids[0],
        "other": "0" * 32,
        "case": "C0",
        "gate": "Gate 1",
        "selection": "to discuss",
        "field": "label",
        "key": "0" * 16,
        **dict.fromkeys(("level", "column", "row"), "0"),
    }.items():
        filled = filled.replace(f"{{{name}}}", value)
    assert "{" not in filled, f"{path} has a part that this matrix does not fill"
    body: dict[str, Any] = {}
    if method in {"POST", "PUT", "PATCH"}:
        if path.endswith("/shards"):
            body = {"content": stored.shard}
        elif path == "/v1/collections/{name}":
            body = {"content": stored.card}
        elif path.endswith("/known"):
            body = {"json": {"ids": stored.ids}}
        elif path.endswith("/items"):
            body = {"json": {"items": []}}
        elif path.startswith("/v1/cases"):
            body = {"json": {"items": stored.ids[:3]}}
        elif "{name}" in path or path == "/v1/evaluations":
            body = {"json": {}}
        elif path == "/v1/cells":
            body = {"files": {"image": stored.image}}
        elif path == "/v1/explain":
            body = {"json": {"item": stored.ids[0], "hits": stored.ids[1:2]}}
        else:
            body = {"json": {"item": stored.ids[0]}}
    if path.endswith(("/answers", "/against/{other}")):
        body = {"params": {"method": "1-NN"}}
    headers = {"X-API-Key": key} if key else {}
    return client.request(method, filled, headers=headers, **body)
