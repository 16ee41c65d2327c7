"""Who may do what: every route states a role, and reaches collections through `Access` alone.

A router of its own looks like this; `search.api.app.ROUTERS` lists it, or, where it lies in a part
above this one, it is handed to `create_app(routers=...)`::

    router = api_router()

    @router.post("/collections/{name}/cases")
    def cases(name: str, wanted: Wanted, access: Reads) -> Cases:
        return cases_of(access.context(name), wanted)

`Reads`, `Writes`, `Admins` and `Lists` are one dependency: it finds the caller, checks the role on
the collection that the path (`{name}`) or the query (`collection`) names, and begins the audit
line, before the body is read. A collection that the body names is checked when
`search.api.bodies.posted` has read it, before the route runs. Whatever a route reaches later goes
through `Access` too, which refuses (403) every collection on which the caller lacks the role.
`Lists` is for routes that name no collection and show what the caller may see. A route under
`/v1` that states no role stops the application from starting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from encoder.card import EncoderCard
from search.api.observe import Seen
from search.api.problems import PROBLEMS
from search.errors import NoSuchCollection
from search.evaluation.kept import Evaluations
from search.library.jobs import Job, NoSuchJob, Run
from search.library.library import Library
from search.mil.models import Models
from search.query.context import Context
from search.query.pictures import BodyMemory, Pictures
from search.security.audit import NOTED
from search.security.keys import Caller, Forbidden, Role
from search.service import Service
from search.settings import Settings

PARSED = 8
"""Bytes that one byte of JSON takes when it is parsed."""
JSON_MB = 32
"""Largest JSON body, in MiB; what is larger goes through `read_body` with a cap of its own."""


@dataclass(frozen=True)
class Access:
    """What one call may reach, and what the audit log will say of it."""

    caller: Caller
    role: Role
    """What the caller must have on every collection that is reached."""
    facts: dict[str, Any]
    """The audit line so far; see `note`."""
    _service: Service
    _seen: Seen

    @property
    def settings(self) -> Settings:
        """Of the service."""
        return self._service.settings

    @property
    def pictures(self) -> Pictures:
        """Decodes what is uploaded, within the memory of the service."""
        return self._service.pictures

    def default(self) -> str:
        """Name of the collection that is meant where none is named; it need not exist."""
        return self._service.default()

    def note(self, **facts: Any) -> None:
        """Add to the audit line: `collection`, `beside` (what is searched with it), `query`, `k`,
        `where` and `exclude` (names of fields, never values), `items` (ids), `written` (a count).

        Raises:
            TypeError: anything else.
        """
        if not set(facts) <= set(NOTED):
            raise TypeError(f"the audit log takes {', '.join(NOTED)}; got {', '.join(facts)}")
        self.facts.update(facts)

    def check(self, name: str) -> None:
        """Raises `Forbidden` unless the caller has the route's role on this collection."""
        if not self.caller.may(self.role, name):
            raise Forbidden(f"this key does not have the role {self.role!r} on collection {name!r}")

    def names(self) -> list[str]:
        """The collections that the caller may reach, in alphabetical order."""
        return [name for name in self._service.names() if self.caller.may(self.role, name)]

    def context(self, name: str | None = None) -> Context:
        """A collection by name, or the default one.

        Raises:
            Forbidden: the caller lacks the role on it.
            NoSuchCollection: it does not exist.
        """
        if name is not None:
            self.check(name)
        try:
            found = self._service.context(name)
        except NoSuchCollection:  # its message names collections that the caller may not know of
            raise NoSuchCollection(name or self.settings.collection, self.names()) from None
        self.check(found.collection.name)
        self.note(collection=found.collection.name)
        self._seen.note(found.collection)
        return found

    def create(self, name: str, card: EncoderCard, encoder: str = "") -> Context:
        """A collection for an encoder, as `Service.create`.

        Raises:
            Forbidden: the caller lacks the role on that name.
        """
        self.check(name)
        found = self._service.create(name, card, encoder)
        self.note(collection=found.collection.name)
        return found

    def library(self, name: str) -> tuple[Library, str]:
        """The library, for work on the versions of one collection, and the collection's name.

        Raises:
            Forbidden, NoSuchCollection: as `context`.
        """
        return self._service.library, self.context(name).collection.name

    def follow(self, name: str) -> None:
        """Return when the version of a collection that was just switched to serves here.

        Raises:
            Forbidden: the caller lacks the role on it.
        """
        self.check(name)
        self._service.follow(name)

    @property
    def evaluations(self) -> Evaluations:
        """The evaluations of the collections that the caller may reach."""
        return replace(self._service.evaluations, open_context=self.context)

    @property
    def models(self) -> Models:
        """The case models; each call names the collection that the caller was let into."""
        return self._service.models

    def start(self, kind: str, name: str, work: Callable[[Run], Mapping[str, Any]]) -> Job:
        """Queue a job on a collection.

        Raises:
            Forbidden: the caller lacks the role on it.
        """
        self.check(name)
        return self._service.jobs.start(kind, name, work)

    def jobs(self) -> list[Job]:
        """The jobs on collections that the caller may reach, oldest first."""
        names = set(self.names())
        return [job for job in self._service.jobs.all() if job.collection in names]

    def job(self, id: str) -> Job:
        """A job, as it stands.

        Raises:
            NoSuchJob: it is not known, or on a collection that the caller may not reach.
        """
        found = self._service.jobs.get(id)
        if not self.caller.may(self.role, found.collection):
            raise NoSuchJob(id)
        return found

    def cancel(self, id: str) -> Job:
        """Ask a job to stop.

        Raises:
            NoSuchJob: as `job`.
        """
        return self._service.jobs.stop(self.job(id).id)


def whole_service(request: Request) -> Service:
    """The service itself, opened now if its store was down until now.

    Raises:
        StoreDown: it still is.
    """
    service: Service = request.app.state.parts.opened()
    return service


def needs(role: Role, *, listing: bool = False) -> Callable[..., Awaitable[Access]]:
    """A dependency that lets in only who has the role; see the top of this module.

    Args:
        role: What the caller must have on the collection that the call is about.
        listing: The route names no collection; it shows what the caller may see.
    """

    async def access(
        request: Request,
        _key: Annotated[str | None, Security(_api_key)] = None,
        _token: Annotated[Any, Security(_bearer)] = None,
    ) -> Access:
        caller: Caller = request.state.caller
        service = request.app.state.parts.service or await run_in_threadpool(whole_service, request)
        found = Access(caller, role, request.state.facts, service, request.state.seen)
        named = request.path_params.get("name") or request.query_params.get("collection")
        if named is not None:
            found.check(named)
        elif not caller.may_anywhere(role):
            raise Forbidden(f"this key does not have the role {role!r} on any collection")
        return found

    access.states_role = (role, listing)  # type: ignore[attr-defined]
    return access


_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of this service.")
_bearer = HTTPBearer(auto_error=False, description="A key, or a token of the OIDC issuer.")
reads, writes = needs("read"), needs("write")
Reads = Annotated[Access, Security(reads)]
Writes = Annotated[Access, Security(writes)]
Admins = Annotated[Access, Security(needs("admin"))]
Lists = Annotated[Access, Security(needs("read", listing=True))]


def stated(route: APIRoute) -> tuple[Role, bool] | None:
    """The role that a route states, and whether it is a listing; `None` if it states none."""
    left = list(route.dependant.dependencies)
    while left:
        one = left.pop()
        found: tuple[Role, bool] | None = getattr(one.call, "states_role", None)
        if found is not None:
            return found
        left += one.dependencies
    return None


class CappedRoute(APIRoute):
    """A route whose JSON body is refused as soon as more than the cap has come in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, reading through the cap where FastAPI reads the whole body."""
        handler = super().get_route_handler()
        if self.body_field is None:
            return handler

        async def capped(request: Request) -> Response:
            memory: BodyMemory = request.state.memory
            return await handler(Request(request.scope, _capped(request.receive, memory)))

        return capped


def _capped(receive: Receive, memory: BodyMemory) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > JSON_MB * 1024 * 1024:
            raise HTTPException(413, f"a JSON body is at most {JSON_MB} MiB; send it in parts")
        memory.take(PARSED * len(message.get("body", b"")))
        return message

    return counted


def api_router() -> APIRouter:
    """A router under `/v1` that declares every refusal and caps every JSON body."""
    return APIRouter(prefix="/v1", responses=PROBLEMS, route_class=CappedRoute)
