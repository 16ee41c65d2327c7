"""Where a run writes to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import pytest
import uvicorn
from pydantic import SecretStr

from encoder.contract import Encoder
from encoder.features import colour
from encoder.registry import load
from ingest.pipeline.sink import TRIES, LibrarySink, ServiceSink
from search.api.app import create_app
from search.errors import NoSuchCollection, StoreDown, StoreError, WrongEncoder
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail, payload_digest
from search.schemas.items import Item, item_id, source_id
from search.service import Service
from search.settings import Settings

KEY = "a-key-for-tests"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture(name="tmp_path")
def _tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a store syncs to the disk."""
    if MEMORY is None:
        yield tmp_path
        return
    with TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(name="encoder", scope="module")
def _encoder() -> Encoder:
    return load("colour")


@pytest.fixture(name="service", scope="module")
def _service() -> Iterator[Service]:
    """A service over an empty library."""
    with TemporaryDirectory(dir=MEMORY) as folder:
        service = Service.open(Settings(library=Path(folder), api_key=SecretStr(KEY)))
        yield service
        service.close()


@pytest.fixture(name="url", scope="module")
def _url(service: Service) -> Iterator[str]:
    """That service on a real socket."""
    config = uvicorn.Config(create_app(service), port=0, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end, "the service did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


def entries(encoder: Encoder, count: int, seed: int = 0) -> list[Entry]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        image = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        source = source_id(image.tobytes())
        item = Item(id=item_id("d", source), dataset="d", source=source, label=f"L{number % 2}")
        vector = encoder.embed([image])[0]
        made.append(Entry(item, vector, make_thumbnail(image), f"/cells/{number}.png"))
    return made


def test_a_service_takes_what_a_library_takes(
    encoder: Encoder, service: Service, url: str, tmp_path: Path
) -> None:
    made = entries(encoder, 20)
    ids = [entry.item.id for entry in made]
    changed = made[3].item.model_copy(update={"label": "other"})

    library = Library.open(tmp_path / "library")
    with (
        LibrarySink.open(library, "both", encoder.card) as here,
        ServiceSink(url, "both", encoder.card, api_key=KEY) as there,
    ):
        seen = []
        for sink in (here, there):
            assert sink.known(ids) == {}
            sink.put(made[:12])
            sink.put(made[8:])  # four of them again
            sink.update([changed])
            seen.append(sink.known([*ids, item_id("d", "nothing")]))
            sources = [entry.item.source for entry in made[:2]]
            assert sorted(one.id for one in sink.of_sources("d", sources)) == sorted(ids[:2])
            assert sink.of_sources("other", sources) == []
            sink.remove([ids[19]])
        points = [sink.build().points for sink in (here, there)]

    assert seen[0] == seen[1]
    assert seen[0][changed.id] == payload_digest(changed) != payload_digest(made[3].item)
    assert points == [19, 19]
    held = service.collection("both").rows.entry(ids[0])
    assert held is not None
    assert (held.vector == made[0].vector).all()
    assert held.path == "/cells/0.png"


def test_empty_writes_send_nothing(encoder: Encoder, url: str) -> None:
    with ServiceSink(url, "nothing", encoder.card, api_key=KEY) as sink:
        sink.put([])
        sink.update([])
        assert sink.known([]) == {}


def test_another_encoder_is_refused_by_both(encoder: Encoder, url: str, tmp_path: Path) -> None:
    other = replace(encoder.card, resample="lanczos")
    library = Library.open(tmp_path / "library")
    LibrarySink.open(library, "mine", encoder.card).close()
    ServiceSink(url, "mine", encoder.card, api_key=KEY).close()

    with pytest.raises(WrongEncoder, match="ingest into a new collection"):
        LibrarySink.open(library, "mine", other)
    with pytest.raises(WrongEncoder, match="ingest into a new collection") as refused:
        ServiceSink(url, "mine", other, api_key=KEY)
    assert encoder.card.fingerprint in refused.value.__notes__[0]


def test_a_wrong_key_is_said(encoder: Encoder, url: str) -> None:
    with pytest.raises(StoreError, match="X-API-Key"):
        ServiceSink(url, "cells", encoder.card, api_key="wrong")


def test_a_service_that_is_not_there_is_said_after_some_tries() -> None:
    with pytest.raises(StoreDown, match=f"tried {TRIES} times") as down:
        ServiceSink("http://127.0.0.1:9", "cells", colour.CARD, pause_s=0)
    assert "run the same command: it goes on where it stopped" in str(down.value)


def answering(answer: Callable[[int], httpx.Response]) -> tuple[httpx.Client, list[httpx.Request]]:
    """A client of a service that answers by the number of the request."""
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(len(asked))

    return httpx.Client(transport=httpx.MockTransport(handle)), asked


def test_an_overloaded_service_is_asked_again() -> None:
    client, asked = answering(lambda n: httpx.Response(503 if n < 3 else 200, json={"known": {}}))

    sink = ServiceSink("http://service/", "a b", colour.CARD, client=client, pause_s=0)

    assert len(asked) == 3
    assert str(asked[0].url) == "http://service/v1/collections/a%20b"
    assert sink.known(["x"]) == {}


def test_a_connection_that_breaks_is_tried_again() -> None:
    def broken(n: int) -> httpx.Response:
        if n == 1:
            raise httpx.ReadError("reset")
        return httpx.Response(200, json={})

    client, asked = answering(broken)
    ServiceSink("http://service", "cells", colour.CARD, client=client, pause_s=0)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, {"detail": "gone"}, NoSuchCollection, "no collection 'cells'"),
        (422, {"detail": "the shard is damaged"}, StoreError, "422: the shard is damaged"),
        (500, "a page", StoreError, "answered 500"),
        (507, {"title": "Disk full"}, StoreError, "507: Disk full"),
    ],
)
def test_a_refusal_is_passed_on_in_words_and_not_tried_again(
    status: int, body: object, kind: type[StoreError], words: str
) -> None:
    client, asked = answering(lambda _: httpx.Response(status, json=body))

    with pytest.raises(kind, match=words):
        ServiceSink("http://service", "cells", colour.CARD, client=client, pause_s=0)
    assert len(asked) == 1
