"""Slow and many connections: each is bounded, and others go on."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from search.api.connections import ConnectionLimits, bounded

LIMITS = ConnectionLimits(
    connections=12, per_address=8, header_s=0.5, body_s=0.5, body_bytes_per_s=1000
)
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(name="port", scope="module")
def _port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
        config = uvicorn.Config(echo, http=bounded(LIMITS), lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.02)
        yield port
        server.should_exit = True
        thread.join(10)


def opened(port: int, sent: bytes, address: str = "127.0.0.1") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), 10, source_address=(address, 0))
    one.sendall(sent)
    return one


def answered(one: socket.socket) -> bytes:
    """Everything until the other side closes or has sent its 200."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := one.recv(4096):
            got += part
            if got.startswith(b"HTTP/1.1 200") and got.partition(b"\r\n\r\n")[2]:
                break
    one.close()
    return got


def test_a_plain_request_is_answered_and_its_connection_is_kept(port: int) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    kept.request("POST", "/", b"abc")
    assert kept.getresponse().read() == b"3"
    connection = kept.sock
    time.sleep(0.8)  # longer than a header may take: nothing is owed between two requests
    kept.request("POST", "/", b"abcd")
    assert kept.getresponse().read() == b"4"
    assert kept.sock is connection
    kept.close()


def test_a_header_that_does_not_end_is_closed_in_time(port: int) -> None:
    began = time.monotonic()

    got = answered(opened(port, b"GET / HTTP/1.1\r\nhost: loc"))

    assert got.startswith(b"HTTP/1.1 408")
    assert 0.3 < time.monotonic() - began < 5


def test_a_connection_that_says_nothing_is_closed_in_time(port: int) -> None:
    assert answered(opened(port, b"")).startswith(b"HTTP/1.1 408")


def test_a_header_that_comes_byte_by_byte_gets_no_more_time(port: int) -> None:
    one = opened(port, b"GET / HTTP/1.1\r\n")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(30):
            one.sendall(b"x")
            time.sleep(0.05)
    assert not answered(one).startswith(b"HTTP/1.1 200")


def test_a_body_that_trickles_is_ended(port: int) -> None:
    one = opened(port, b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(40):
            one.sendall(b"x")
            time.sleep(0.05)
    assert not answered(one).startswith(b"HTTP/1.1 200")


def test_a_long_body_that_keeps_its_rate_is_taken(port: int) -> None:
    one = opened(port, b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 80000\r\n\r\n")
    for _ in range(20):
        one.sendall(b"x" * 4000)
        time.sleep(0.06)
    assert answered(one).endswith(b"80000")


def test_one_address_gets_only_its_share_of_connections_and_another_is_served(port: int) -> None:
    posting = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n"
    greedy = [opened(port, posting, "127.0.0.2") for _ in range(8)]
    time.sleep(0.2)  # until their headers are read
    try:
        refused = answered(opened(port, b"", "127.0.0.2"))
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in refused
        assert answered(opened(port, GET, "127.0.0.3")).startswith(b"HTTP/1.1 200")
    finally:
        for one in greedy:
            one.close()


def test_half_sent_headers_make_room_for_a_request_of_the_same_address(port: int) -> None:
    slow = [opened(port, b"GET / HTTP/1.1\r\n") for _ in range(8)]
    try:
        assert answered(opened(port, GET)).startswith(b"HTTP/1.1 200")
    finally:
        for one in slow:
            one.close()


def test_half_sent_headers_from_many_addresses_lock_nobody_out(port: int) -> None:
    slow = [opened(port, b"GET / HTTP/1.1\r\n", f"127.0.1.{at + 1}") for at in range(12)]
    try:
        assert answered(opened(port, GET)).startswith(b"HTTP/1.1 200")
    finally:
        for one in slow:
            one.close()
