"""Bounds on connections: how many, and how long a client may take to send a request.

uvicorn waits for ever for the rest of a header. Here a header must be complete within seconds, a
body must keep a minimum rate, and one address holds only a part of the connections. A proxy in
front sees to this as well (docs/operations.md); without one, this is what keeps slow clients from
locking everybody out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 21\r\n\r\ntoo many connections\n"
)
LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """How many connections there may be, and how slow they may be."""

    connections: int = 512
    """At once; a new one takes the place of the oldest that has sent no complete header."""
    per_address: int = 128
    """At once from one address; room is made in the same way."""
    header_s: float = 10.0
    """Seconds until the header of a request is complete."""
    body_s: float = 30.0
    """Seconds that a body may take before its rate counts."""
    body_bytes_per_s: float = 16_384.0
    """Least mean rate of a body after `body_s`, while the service is reading."""


def bounded(limits: ConnectionLimits) -> type[H11Protocol]:
    """The HTTP protocol of uvicorn with these limits: `uvicorn.Config(http=bounded(limits))`."""
    return type("BoundedProtocol", (_Bounded,), {"limits": limits})


class _Bounded(H11Protocol):
    limits: ConnectionLimits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for = ""
        self._since = 0.0
        self._came = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer 503 where there are too many."""
        super().connection_made(transport)
        address = self.client[0] if self.client else None
        others = [one for one in self.connections if isinstance(one, _Bounded) and one is not self]
        near = [one for one in others if one.client and one.client[0] == address]
        if (len(near) >= self.limits.per_address and not _make_room(near)) or (
            len(others) >= self.limits.connections and not _make_room(others)
        ):
            transport.write(REFUSED)
            transport.close()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand data on, and set the clock for what has to come next."""
        if self.transport.is_closing():
            return
        self._came += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Set the clock for the next request, if a part of it is here already."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        """Start, keep or stop the clock, by what the client still has to send."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            wanted = "body"
        elif state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            wanted = "header"
        else:  # the request is complete, or uvicorn's keep-alive clock runs
            self._stop()
            return
        if wanted != self._waits_for:
            self._stop()
            self._waits_for, self._since, self._came = wanted, self.loop.time(), 0
            self._timer = self.loop.call_later(self._patience(), self._check)

    def _patience(self) -> float:
        return self.limits.header_s if self._waits_for == "header" else self.limits.body_s

    def _check(self) -> None:
        """End the connection where it is too slow; look again later where it is not."""
        if self._waits_for == "body":
            if self.flow.read_paused:  # the service is busy, the client is not to blame
                self._since, self._came = self.loop.time(), 0
            rate = self._came / max(1e-9, self.loop.time() - self._since)
            if self.flow.read_paused or rate >= self.limits.body_bytes_per_s:
                self._timer = self.loop.call_later(self.limits.body_s, self._check)
                return
        self._end()

    def _end(self) -> None:
        self._stop()
        if not self.transport.is_closing():
            if self.conn.our_state is h11.IDLE:
                self.transport.write(LATE)
            self.transport.close()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._waits_for = None, ""


def _make_room(crowd: Sequence[_Bounded]) -> bool:
    """Close the oldest connection that is still waiting for its header, if there is one."""
    waiting = [one for one in crowd if one._waits_for == "header"]
    if waiting:
        min(waiting, key=lambda one: one._since)._end()
    return bool(waiting)
