"""The Python client: typed both ways, and every refusal in the service's own words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live import Live

from search.client.client import Client
from search.client.transport import ServiceDown, ServiceError
from search.schemas.filters import Filter
from search.schemas.questions import Question
from ui.cli.demo import free_port


@pytest.fixture(name="client")
def _client(live: Live) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


def test_an_answer_comes_back_typed(client: Client, live: Live) -> None:
    picture = next(live.folder.rglob("*.png"))

    answer = client.search(Question(k=3), picture)
    vote = client.vote(Question(item=answer.hits[0].item.id, k=5))

    assert len(answer.hits) == 3
    assert client.item(answer.hits[0].item.id) == answer.hits[0].item
    assert client.image(answer.hits[0].item.id).startswith(b"\xff\xd8")
    assert vote.answer.collection == "cells"
    assert client.similar(answer.hits[0].item.id, k=2, where=Filter(kind=("cell",))).k == 2


def test_what_is_served_is_listed(client: Client) -> None:
    (cells,) = client.collections()

    assert client.health().status == "ok"
    assert sum(client.facets("cells", "kind").values()) == cells.items


def test_a_refusal_has_the_message_of_the_service(client: Client) -> None:
    missing = "00000000-0000-5000-8000-000000000000"

    with pytest.raises(ServiceError, match=f"no item {missing}") as raised:
        client.item(missing)

    assert (raised.value.status, raised.value.title) == (404, "No such item")


def test_a_service_that_does_not_answer_is_an_error_with_what_to_do() -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}", timeout=2) as nobody,
        pytest.raises(ServiceDown, match="hemaseek serve"),
    ):
        nobody.health()


def test_the_key_goes_with_every_call(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1", api_key="secret") as client:
        assert client._http.headers["x-api-key"] == "secret"


@pytest.mark.parametrize(("method", "calls"), [("GET", 2), ("POST", 1)])
def test_a_connection_that_was_closed_meanwhile_is_opened_again_for_what_only_reads(
    method: str, calls: int
) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        if len(seen) == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, json=[])

    with Client("http://127.0.0.1:1") as client:
        client._http = httpx.Client(
            transport=httpx.MockTransport(answer), base_url="http://127.0.0.1:1"
        )
        if method == "GET":
            assert client.collections() == []
        else:
            with pytest.raises(ServiceDown):
                client.similar("3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11")
    assert seen == [method] * calls
