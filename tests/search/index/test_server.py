"""What the server store promises beyond the contract: order of creation, and words for failures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from encoder.card import EncoderCard
from search.errors import NoSuchCollection, StoreDown, StoreError
from search.index.contract import IndexSettings, checked_vectors
from search.index.server import ServerStore, connect, described
from search.maintenance.checks import Limits, recall
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, RANGES, Item, item_id, source_id

pytestmark = [
    # The client's imitation of a server compares everything: it says so, and means no harm.
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact .* search:UserWarning"),
]
CARD = EncoderCard(id="colour-16", architecture="test", dim=16)


@pytest.fixture(name="client")
def _client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


class Stub(BaseHTTPRequestHandler):
    """A server that answers every request alike, and records the requests."""

    status, answer = 200, "{}"
    requests: list[tuple[str, str, Any]]

    @classmethod
    def answer_to(cls, path: str, body: Any) -> str:
        """What is answered; always the same, unless a test wants more."""
        return cls.answer

    def answer_alike(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.requests.append((self.command, self.path, body))
        self.answer = self.answer_to(self.path, body)
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer.encode())

    do_GET = do_PUT = do_POST = do_DELETE = answer_alike

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(name="stub")
def _stub() -> Iterator[tuple[str, type[Stub]]]:
    handler = type("Handler", (Stub,), {"requests": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def plain_client(url: str) -> QdrantClient:
    return QdrantClient(url=url, check_compatibility=False, timeout=5)


def test_the_card_and_the_settings_are_kept_with_the_collection(client: QdrantClient) -> None:
    settings = IndexSettings(m=24, ef=96)
    ServerStore.create(client, "cells", CARD, settings)

    assert described(client, "cells") == (CARD, settings)
    assert ServerStore.open(client, "cells", CARD).settings == settings


def test_a_collection_that_something_else_made_is_not_opened(client: QdrantClient) -> None:
    client.create_collection(
        "cells", vectors_config=models.VectorParams(size=16, distance=models.Distance.COSINE)
    )

    with pytest.raises(StoreError, match="made by something else"):
        ServerStore.open(client, "cells", CARD)


def test_payload_indexes_are_made_right_after_the_collection(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []
    create, index = client.create_collection, client.create_payload_index

    def create_collection(name: str, **facts: Any) -> bool:
        calls.append(("collection", facts))
        return create(name, **facts)

    def create_payload_index(name: str, field: str, **facts: Any) -> object:
        calls.append((field, facts))
        return index(name, field, **facts)

    monkeypatch.setattr(client, "create_collection", create_collection)
    monkeypatch.setattr(client, "create_payload_index", create_payload_index)
    ServerStore.create(client, "cells", CARD)

    assert [name for name, _ in calls] == ["collection", *KEYWORDS, *RANGES]
    assert all(facts["wait"] is True for _, facts in calls[1:])
    assert dict(calls)["label"]["field_schema"] == models.PayloadSchemaType.KEYWORD
    assert dict(calls)["acquired"]["field_schema"] == models.PayloadSchemaType.INTEGER
    assert calls[0][1]["vectors_config"].distance == models.Distance.COSINE


def test_a_server_that_drops_metadata_is_refused_and_left_clean(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = client.create_collection

    def old_server(name: str, metadata: object = None, **facts: Any) -> bool:
        return create(name, **facts)

    monkeypatch.setattr(client, "create_collection", old_server)

    with pytest.raises(StoreError, match="did not keep the metadata"):
        ServerStore.create(client, "cells", CARD)
    assert not client.collection_exists("cells")


def test_a_widened_search_is_kept_with_the_collection(client: QdrantClient) -> None:
    ServerStore.create(client, "cells", CARD)._widen(256)

    assert ServerStore.open(client, "cells", CARD).settings.ef == 256


def test_closing_the_store_leaves_the_client_to_its_owner(client: QdrantClient) -> None:
    with ServerStore.create(client, "cells", CARD):
        pass

    assert ServerStore.open(client, "cells", CARD).count() == 0


def test_no_server_at_the_address_is_an_error_in_a_sentence() -> None:
    with pytest.raises(StoreDown, match=r"does not answer \(http://127.0.0.1:1\).*is it running"):
        connect("http://127.0.0.1:1", timeout=2)


def test_a_server_that_stops_is_an_error_in_a_sentence() -> None:
    client = plain_client("http://127.0.0.1:1")
    store = ServerStore(client, "cells", CARD, IndexSettings())
    item = Item(id=item_id("d", source_id(b"1")), dataset="d", source=source_id(b"1"))
    vector = np.eye(16, dtype=np.float32)[:1]

    for ask in (
        lambda: store.upsert([item], vector),
        lambda: store.nearest(vector[0], 1),
        lambda: store.get([item.id]),
        lambda: store.scroll(),
        lambda: store.count(),
        lambda: store.facet("label"),
        lambda: store.delete([item.id]),
        lambda: store.build(),
        lambda: ServerStore.open(client, "cells", CARD),
        lambda: ServerStore.create(client, "cells", CARD),
    ):
        with pytest.raises(StoreDown, match=r"does not answer \(cells\)"):
            ask()
    client.close()


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, StoreError, "refuses the API key"),
        (403, StoreError, "refuses the API key"),
        (404, StoreError, "refused with 404"),
        (503, StoreDown, "failed with 503"),
    ],
)
def test_what_a_server_refuses_is_an_error_in_words(
    stub: tuple[str, type[Stub]], status: int, kind: type[StoreError], says: str
) -> None:
    url, handler = stub
    handler.status, handler.answer = status, '{"status": {"error": "no"}}'

    with pytest.raises(kind, match=says):
        connect(url)


def test_writes_wait_until_they_are_applied(stub: tuple[str, type[Stub]]) -> None:
    url, handler = stub
    handler.answer = json.dumps(
        {"result": {"operation_id": 1, "status": "completed"}, "status": "ok", "time": 0.1}
    )
    client = plain_client(url)
    store = ServerStore(client, "cells", CARD, IndexSettings())
    source = source_id(b"1")
    item = Item(id=item_id("d", source), dataset="d", source=source, label="好中球")

    store.upsert([item], np.eye(16, dtype=np.float32)[:1])
    client.close()

    ((method, path, body),) = handler.requests
    assert (method, path) == ("PUT", "/collections/cells/points?wait=true")
    assert body["batch"]["ids"] == [item.id]
    assert body["batch"]["payloads"][0]["label"] == "好中球"


@pytest.mark.parametrize(("left", "ef"), [(400, 32), (401, 64)])
def test_beyond_forty_of_a_hundred_a_mixed_filter_is_walked_by_the_whole_of_ef(
    stub: tuple[str, type[Stub]], monkeypatch: pytest.MonkeyPatch, left: int, ef: int
) -> None:
    url, handler = stub
    client = plain_client(url)
    store = ServerStore(client, "cells", CARD, IndexSettings())

    def answer_to(path: str, body: Any) -> str:
        source = source_id(b"1")
        fixed = {"id": item_id("d", source), "payload": {"dataset": "d", "source": source}}
        points = [fixed | {"version": 1, "score": score} for score in (0.5, 0.4)]
        count = {"count": left if body.get("filter") else 1000}
        result: object = count if path.endswith("/count") else [{"points": points}]
        return json.dumps({"status": "ok", "time": 0.1, "result": result})

    monkeypatch.setattr(handler, "answer_to", staticmethod(answer_to))
    where = Filter(label=("a", "b"))

    store.nearest_batch(np.eye(16, dtype=np.float32)[:1], 1, where)
    store.nearest(np.eye(16, dtype=np.float32)[0], 1, Filter(label=("a",)))
    client.close()

    counts = [body for _, path, body in handler.requests if path.endswith("/count")]
    walks = [body["searches"][0]["params"] for _, path, body in handler.requests if "query" in path]
    assert [body["exact"] for body in counts] == [False, False], "one value has links of its own"
    assert [one["hnsw_ef"] for one in walks] == [ef, 64]
    assert bool(walks[0].get("acorn")) is (ef == 32)


@pytest.mark.server
def test_a_real_server_builds_a_true_graph() -> None:
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("no server: set QDRANT_URL")
    client, name = connect(url, os.environ.get("QDRANT_API_KEY")), f"test-{uuid4().hex[:8]}"
    rng = np.random.default_rng(0)
    try:
        settings = IndexSettings(graph_from_kb=100, scan_below_kb=10)
        store = ServerStore.create(client, name, CARD, settings)
        sources = [source_id(str(at).encode()) for at in range(4000)]
        store.upsert(
            [
                Item(id=item_id("d", s), dataset="d", source=s, case=f"{at % 100}")
                for at, s in enumerate(sources)
            ],
            checked_vectors(rng.standard_normal((4000, 16)), 16),
        )

        report = store.build()

        assert report.points == 4000
        assert report.sample > 0
        assert recall(report, Limits()).passed
        with pytest.raises(NoSuchCollection):
            ServerStore.open(client, f"{name}-not", replace(CARD))
    finally:
        client.delete_collection(name)
        client.close()
