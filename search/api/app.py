"""The HTTP service: assembled from parts, nothing opened until it starts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version
from threading import Thread
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Lists, stated, whole_service
from search.api.middleware import Guard, Parts
from search.api.problems import PROBLEMS, Expected, Problem, add_handlers
from search.api.routes import (
    atlas,
    calibration,
    case_groups,
    case_records,
    cases,
    collections,
    evaluations,
    explain,
    exports,
    gates,
    mil,
    questions,
    reviews,
    versions,
)
from search.errors import StoreDown
from search.schemas.collections import Health
from search.schemas.items import DISCLAIMER
from search.schemas.questions import Question
from search.service import FromAbove, Service, announce
from search.settings import Settings

ROUTERS: Sequence[APIRouter] = tuple(
    module.router
    for module in (
        collections,
        questions,
        case_groups,
        case_records,
        cases,
        calibration,
        versions,
        reviews,
        atlas,
        evaluations,
        explain,
        exports,
        gates,
        mil,
    )
)
"""Every router of this part under `/v1`; `search.api.access` says how one states its roles."""
MODELS: Sequence[type[BaseModel]] = (
    Question,
    Problem,
    *questions.MODELS,
    *atlas.MODELS,
    *evaluations.MODELS,
    *explain.MODELS,
    *mil.MODELS,
)
"""Bodies that are read or written by hand, for the OpenAPI file."""


async def health(request: Request) -> Health:
    """Whether the service can answer, and with which encoder."""
    parts: Parts = request.app.state.parts  # threads of its own: others may all be busy
    return await to_thread.run_sync(_health, request, limiter=parts.health_threads)


def _health(request: Request) -> Health:
    service = whole_service(request)
    names = service.names()
    default = next((n for n in (service.default(), *names) if n in names), None)
    card = None if default is None else service.library.card(default)
    return Health(
        status="ok" if names else "empty",
        version=version("hemaseek"),
        collections=len(names),
        set_aside=len(service.set_aside),
        encoder=None if card is None else card.id,
        fingerprint=None if card is None else card.fingerprint,
    )


def metrics(request: Request, access: Lists) -> Response:
    """Counts, latencies and sizes in the Prometheus text format."""
    parts: Parts = request.app.state.parts
    text = parts.metrics.text(
        lambda: {name: access.context(name).count() for name in access.names()}
    )
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@asynccontextmanager
async def _running(
    app: FastAPI,
    service: Service | None,
    settings: Settings | None,
    above: FromAbove | None,
) -> AsyncIterator[None]:
    """From start to stop: the parts of the application, and a service unless one is given."""
    chosen = settings or (service.settings if service else Settings())
    with ExitStack() as last:
        parts = await run_in_threadpool(Parts.of, chosen, lambda: Service.open(chosen, above))
        last.callback(parts.audit.close)
        app.state.parts = parts
        if service is not None:
            parts.service = service
        else:
            try:
                await run_in_threadpool(parts.opened)
            except StoreDown as error:
                parts.log.warning("store down", error=type(error).__name__)
            last.callback(lambda: parts.service.close() if parts.service else None)
            if chosen.preload and parts.service:
                loading = Thread(target=_preload, args=(parts, parts.service), name="preload")
                loading.start()
                last.callback(loading.join)
            announced = announce(chosen, os.getpid())
            last.callback(lambda: announced.unlink(missing_ok=True))
        yield


def create_app(
    service: Service | None = None,
    settings: Settings | None = None,
    routers: Sequence[APIRouter] = (),
    models: Sequence[type[BaseModel]] = (),
    problems: Sequence[Expected] = (),
    above: FromAbove | None = None,
) -> FastAPI:
    """Assemble the application.

    Args:
        service: A service to answer with; it is not closed. `None` opens the one that the
            settings name when the application starts, and closes it when it stops.
        settings: `None` reads them from the environment at start.
        routers: More routers under `/v1`, from parts that this one does not know.
        models: Bodies that those routers read by hand.
        problems: Errors that those routers raise, with status and title.
        above: What parts above this one do for it; `None` reads plain images alone, not slides,
            and estimates no scale.
    """

    app = FastAPI(
        title="Hemaseek",
        version=version("hemaseek"),
        summary="Find the historical cells and cases that look like the one under the microscope.",
        description=DISCLAIMER,
        lifespan=lambda app: _running(app, service, settings, above),
    )
    for router in (*ROUTERS, *routers):
        include(app, router)
    app.get("/health", tags=["service"], responses={503: PROBLEMS[503]})(health)
    app.get(
        "/metrics",
        tags=["service"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **{status: PROBLEMS[status] for status in (401, 403, 429, 503)},
        },
        openapi_extra={ROLE: "read", LISTING: True},
    )(metrics)
    app.add_middleware(Guard)
    add_handlers(app, problems)
    _complete_openapi(app, (*MODELS, *models))
    return app


def _preload(parts: Parts, service: Service) -> None:
    """Load an encoder beside the first questions; one that cannot be loaded is refused later."""
    try:
        service.preload()
    except Exception as error:
        parts.log.warning("no encoder loaded ahead", error=type(error).__name__)


ROLE, LISTING = "x-hemaseek-role", "x-hemaseek-listing"
"""What the OpenAPI file says of a route's role; the matrix of who may do what is made from it."""


def include(app: FastAPI, router: APIRouter) -> None:
    """Add a router, each of whose routes states the role that it needs.

    Raises:
        TypeError: a route states none, and would be open to every key.
    """
    for route in router.routes:
        role = stated(route) if isinstance(route, APIRoute) else None
        if role is None or not isinstance(route, APIRoute):
            raise TypeError(f"{route} states no role; take the access as `Reads` or the like")
        more = {ROLE: role[0], LISTING: True} if role[1] else {ROLE: role[0]}
        route.openapi_extra = {**(route.openapi_extra or {}), **more}
    app.include_router(router)


def _complete_openapi(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Put what is parsed or answered by hand into the OpenAPI file."""
    plain = app.openapi

    def completed() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            parts = document.setdefault("components", {}).setdefault("schemas", {})
            for model in models:
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                for name, part in schema.pop("$defs", {}).items():
                    parts.setdefault(name, part)
                parts[model.__name__] = schema
        return app.openapi_schema or plain()

    app.openapi = completed  # type: ignore[method-assign]
