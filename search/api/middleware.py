"""Before every route: who calls, how often, and what is logged about it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.api.observe import Metrics, Seen, callers_id, make_log, where_raised
from search.api.problems import TooMany, problem, refusal
from search.errors import StoreDown
from search.query.pictures import BodyMemory, MemoryBudget
from search.security.audit import AuditLog
from search.security.keys import COLLECTION, Auth, Caller, NotAllowed
from search.security.ratelimit import RateLimit, Verdict

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

    from search.service import Service
    from search.settings import Settings

WRONG_KEYS = "60/minute"
"""After this many wrong keys an address is refused until it has waited."""
GUARDED = re.compile(r"/v1(/|$)|/metrics$")
SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""On every answer."""
NOTHING_LOADS = "default-src 'none'; frame-ancestors 'none'"
DOCS = {"/docs", "/redoc", "/docs/oauth2-redirect"}
"""The pages of the documentation load their scripts from elsewhere."""
READS = {"GET", "HEAD", "OPTIONS"}


@dataclass
class Parts:
    """What one running application has beside its routes."""

    auth: Auth
    limit: RateLimit
    wrong_keys: RateLimit
    audit: AuditLog
    log: BoundLogger
    metrics: Metrics
    open_service: Callable[[], Service]
    bodies: MemoryBudget
    health_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    service: Service | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _closed_until: float = 0.0
    _why: str = ""

    @classmethod
    def of(cls, settings: Settings, open_service: Callable[[], Service]) -> Parts:
        """The parts that the settings name."""
        from search.security.oidc import Issuer

        auth = Auth(settings, Issuer.of(settings))
        auth.keys.all()  # a damaged file stops the start
        return cls(
            auth=auth,
            limit=RateLimit(settings.rate_limit),
            wrong_keys=RateLimit(WRONG_KEYS),
            audit=AuditLog(settings.audit_folder),
            log=make_log(settings.log_level),
            metrics=Metrics(),
            open_service=open_service,
            bodies=MemoryBudget(settings.body_bytes),
        )

    def opened(self) -> Service:
        """The service; opened when its store answers, tried at most every few seconds.

        Raises:
            StoreDown: its store does not answer.
        """
        with self._opening:
            if self.service is None:
                if time.monotonic() < self._closed_until:
                    raise StoreDown(self._why)
                try:
                    self.service = self.open_service()
                except StoreDown as error:
                    self._why, self._closed_until = str(error), time.monotonic() + 2
                    raise
            return self.service


class Guard:
    """ASGI middleware: admits, answers for and logs every call, by means of `app.state.parts`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one call on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = Call(scope, send, scope["app"].state.parts)
        try:
            if not GUARDED.match(scope["path"]) or await call.admitted(receive):
                await self.app(scope, receive, call.send)
        except Exception as error:
            await call.broke(error, receive)
        finally:
            call.over()


class Call:
    """One call on its way through the middleware."""

    def __init__(self, scope: Scope, send: Send, parts: Parts) -> None:
        self.scope, self.parts, self._send = scope, parts, send
        self.headers = Headers(scope=scope)
        self.id = uuid4().hex
        self.callers_id = callers_id(self.headers.get("x-request-id"))
        self.facts: dict[str, Any] = {}
        self.caller: Caller | None = None
        self.verdict = Verdict(True, {})
        self.status = 0
        self._refused = False
        self._began = time.perf_counter()
        self._until_answer = 0.0
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        self.memory = BodyMemory(parts.bodies)
        self.seen = Seen()
        state.update(request_id=self.id, facts=self.facts, memory=self.memory, seen=self.seen)
        parts.metrics.began()

    async def admitted(self, receive: Receive) -> bool:
        """Whether the caller is known and within the limit; if not, the refusal has been sent."""
        try:
            auth = self.parts.auth
            if auth.slow(self.headers):
                self.caller = await run_in_threadpool(auth.identify, self.headers)
            else:
                self.caller = auth.identify(self.headers)
            self.verdict = self.parts.limit.call(self._who(self.caller.id))
        except NotAllowed as error:
            refused: Exception = error
            if self.headers.get("x-api-key") or self.headers.get("authorization"):
                self.verdict = self.parts.wrong_keys.call(self._address)
        except Exception as error:
            refused = error
            if refusal(error) is None:
                raise
        if not self.verdict.allowed:
            refused = TooMany("this is more than the rate limit allows; wait as Retry-After says")
        elif self.caller is not None:
            self.scope["state"]["caller"] = self.caller
            return True
        answer = refusal(refused)
        if answer is not None:
            await answer(self.scope, receive, self.send)
        return False

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on; the audit line is written before the first."""
        if self._refused:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._until_answer = time.perf_counter() - self._began
            self._add_headers(MutableHeaders(scope=message))
            if self._audited and not await self._audit():
                return
        await self._send(message)

    async def broke(self, error: Exception, receive: Receive) -> None:
        """Answer an error that nothing expected; its message stays out of the log."""
        hint = str(error) if self.parts.log.isEnabledFor(10) else None
        self.parts.log.error(
            "failed",
            request_id=self.id,
            route=self.route,
            error=type(error).__name__,
            where=where_raised(error),
            **({"event_detail": hint} if hint else {}),
        )
        if self.status == 0:
            why = f"this is a fault of the service; it is logged as {self.id}"
            await problem(500, "Internal Server Error", why)(self.scope, receive, self.send)

    def over(self) -> None:
        """Count the call and log it; its body takes no memory any more."""
        self.memory.give_back()
        method = str(self.scope["method"])
        known = method if method in READS | {"POST", "PUT", "PATCH", "DELETE"} else "other"
        self.parts.metrics.ended(known, self.route, self.status, self._until_answer)
        self.parts.log.info(
            "answered",
            request_id=self.id,
            callers_id=self.callers_id,
            method=known,
            route=self.route,
            status=self.status,
            seconds=round(time.perf_counter() - self._began, 6),
            caller=self.caller.id if self.caller else None,
            collection=self.facts.get("collection"),
            k=self.facts.get("k"),
            hits=len(self.facts["items"]) if "items" in self.facts else None,
        )

    @property
    def route(self) -> str:
        """The template of the route, never the path."""
        path = getattr(self.scope.get("route"), "path_format", None)
        return str(path) if path else ("/v1/..." if GUARDED.match(self.scope["path"]) else "...")

    @property
    def _address(self) -> str:
        client = self.scope.get("client")
        return f"address {client[0]}" if client else "address unknown"

    @property
    def _audited(self) -> bool:
        return self.status != 429 and self.scope["path"].startswith("/v1")

    def _who(self, id: str) -> str:
        return self._address if id == "open" else f"key {id}"

    def _add_headers(self, headers: MutableHeaders) -> None:
        headers["x-request-id"] = self.id
        if self.callers_id:
            headers["x-callers-request-id"] = self.callers_id
        if (state := self.seen.words()) is not None:
            headers["x-hemaseek-state"] = state
        headers.update(SAFE)
        headers.update(self.verdict.headers)
        if self.scope["path"] not in DOCS:
            headers["content-security-policy"] = NOTHING_LOADS
        headers.setdefault("cache-control", "no-store")

    async def _audit(self) -> bool:
        """Write the line; an answer about which nothing can be written is not given."""
        name = self.scope.get("path_params", {}).get("name")
        tried = {"collection": name} if name and COLLECTION.fullmatch(name) else {}
        line = {
            "request": self.id,
            **({"callers_request": self.callers_id} if self.callers_id else {}),
            "caller": self.caller.id if self.caller else None,
            "method": self.scope["method"],
            "route": self.route,
            "status": self.status,
            **tried,
            **self.facts,
            "hits": len(self.facts.get("items", ())),
        }
        write = self.scope["method"] not in READS and "written" in self.facts
        try:
            if write:
                await run_in_threadpool(self.parts.audit.add, line, durable=True)
            else:
                self.parts.audit.add(line)
        except OSError as error:
            self.parts.log.error("audit failed", request_id=self.id, error=type(error).__name__)
            self.status, self._refused = 503, True
            why = "the audit log cannot be written, so nothing is answered; free some space"
            answer = problem(503, "The audit log cannot be written", why)
            await answer(self.scope, _nothing, self._send)
            return False
        return True


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
