"""What a caller may reach: every route states its role here, and sees a service cut to it.

A router of its own looks like this; `search.api.app.ROUTERS` lists it, or, where it lies in a part
above this one, it is handed to `create_app(routers=...)`::

    router = api_router()

    @router.post("/collections/{name}/cases")
    def cases(name: str, wanted: Wanted, service: Reads) -> Cases:
        return service.cases(name, wanted)

`Reads`, `Writes` and `Admins` are the service as that caller sees it: its `collection(...)`,
and so everything in `Service` that goes through it, refuses (403) a collection on which the
caller does not have the role that the route states. A collection in the path is called
`{name}`, in the query `collection`, in a body it is whatever is handed to the service. A
route under `/v1` that states no role stops the application from starting. `listing(...)` is
for the routes that name no collection and show what the caller may see.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from encoder.card import EncoderCard
from search.errors import NoSuchCollection
from search.library.collection import Collection
from search.schemas.answers import Answer
from search.schemas.items import Item
from search.schemas.questions import Question
from search.security.keys import Caller, Forbidden, Role
from search.service import Service

JSON_MB = 32
"""Largest JSON body, in MiB; what is larger goes through `read_body` with a cap of its own."""


class Scoped(Service):
    """The service as one caller sees it, on one call.

    It shares everything with the whole service and owns nothing.
    """

    def __init__(self, whole: Service, caller: Caller, role: Role, facts: dict[str, Any]) -> None:
        self.__dict__.update(whole.__dict__)
        self.__dict__["_access"] = (whole, caller, role, facts)

    def __setattr__(self, name: str, value: object) -> None:
        """Whatever the service remembers, the whole service remembers."""
        setattr(self.__dict__["_access"][0], name, value)
        self.__dict__[name] = value

    @property
    def caller(self) -> Caller:
        """Who asks."""
        caller: Caller = self.__dict__["_access"][1]
        return caller

    @property
    def facts(self) -> dict[str, Any]:
        """What the audit log will say of this call; see `note`."""
        facts: dict[str, Any] = self.__dict__["_access"][3]
        return facts

    def note(self, **facts: Any) -> None:
        """Tell the audit log: `collection`, `query`, `k`, `where` and `exclude` (names of
        fields, never values), `items` (ids), `written` (a count). Anything else is refused.
        """
        from search.security.audit import NOTED

        if not set(facts) <= set(NOTED):
            raise TypeError(f"the audit log takes {', '.join(NOTED)}; got {', '.join(facts)}")
        self.facts.update(facts)

    def check(self, name: str) -> None:
        """Raises `Forbidden` unless the caller has the route's role on this collection."""
        _, caller, role, _ = self.__dict__["_access"]
        if not caller.may(role, name):
            raise Forbidden(f"this key does not have the role {role!r} on collection {name!r}")

    def collection(self, name: str | None = None) -> Collection:
        """A collection that the caller may use, by name; or the default one."""
        if name is not None:
            self.check(name)
        try:
            held = super().collection(name)
        except NoSuchCollection:
            raise NoSuchCollection(name or self.settings.collection, self.names()) from None
        self.check(held.name)
        self.note(collection=held.name)
        return held

    def create(self, name: str, card: EncoderCard, encoder: str = "") -> Collection:
        """A collection for an encoder, under a name on which the caller has the role."""
        self.check(name)
        held = super().create(name, card, encoder)
        self.note(collection=held.name)
        return held

    def names(self) -> list[str]:
        """The collections that the caller may use."""
        _, caller, role, _ = self.__dict__["_access"]
        return [name for name in super().names() if caller.may(role, name)]

    def search(self, question: Question, image: bytes | None = None) -> Answer:
        """The neighbours of a query; the audit log learns which were shown."""
        asked = "image" if image is not None else "item" if question.item else "vector"
        self.note(
            query=asked,
            k=question.k,
            where=sorted(question.where.model_fields_set),
            exclude=sorted({*question.exclude, *question.not_these.model_fields_set}),
        )
        answer = super().search(question, image)
        self.note(items=[hit.item.id for hit in answer.hits])
        return answer

    def item(self, id: str, collection: str | None = None) -> Item:
        """A stored item; the audit log learns which."""
        found = super().item(id, collection)
        self.note(items=[id])
        return found

    def thumbnail(self, id: str, collection: str | None = None) -> bytes:
        """The small picture of an item; the audit log learns which."""
        content = super().thumbnail(id, collection)
        self.note(items=[id])
        return content


def whole_service(request: Request) -> Service:
    """The service itself, opened now if its store was down until now.

    Raises:
        StoreDown: it still is.
    """
    service: Service = request.app.state.parts.service()
    return service


def needs(role: Role, *, listing: bool = False) -> Callable[..., Awaitable[Scoped]]:
    """A dependency that lets in only who has the role; see the top of this module.

    Args:
        role: What the caller must have on the collection that the call is about.
        listing: The route names no collection; it shows what the caller may see.
    """

    async def scoped(
        request: Request,
        _key: Annotated[str | None, Security(_api_key)] = None,
        _token: Annotated[Any, Security(_bearer)] = None,
    ) -> Scoped:
        caller: Caller = request.state.caller
        whole = request.app.state.parts.held or await run_in_threadpool(whole_service, request)
        service = Scoped(whole, caller, role, request.state.facts)
        named = request.path_params.get("name") or request.query_params.get("collection")
        if named is not None:
            service.check(named)
        elif not caller.may_anywhere(role):
            raise Forbidden(f"this key does not have the role {role!r} on any collection")
        return service

    scoped.states_role = (role, listing)  # type: ignore[attr-defined]
    return scoped


_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of this service.")
_bearer = HTTPBearer(auto_error=False, description="A key, or a token of the OIDC issuer.")
Reads = Annotated[Scoped, Security(needs("read"))]
Writes = Annotated[Scoped, Security(needs("write"))]
Admins = Annotated[Scoped, Security(needs("admin"))]
Lists = Annotated[Scoped, Security(needs("read", listing=True))]


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
            return await handler(Request(request.scope, _capped(request.receive)))

        return capped


def _capped(receive: Receive) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > JSON_MB * 1024 * 1024:
            raise HTTPException(413, f"a JSON body is at most {JSON_MB} MiB; send it in parts")
        return message

    return counted


def api_router() -> APIRouter:
    """A router under `/v1` that declares every refusal and caps every JSON body."""
    from search.api.problems import PROBLEMS

    return APIRouter(prefix="/v1", responses=PROBLEMS, route_class=CappedRoute)
