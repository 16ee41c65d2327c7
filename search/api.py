"""The HTTP service: assembled from parts, nothing opened until it starts."""

from __future__ import annotations

import hmac
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from encoder.card import EncoderCard
from search.knn import Weighting
from search.library import Collection
from search.problems import NotAllowed, Problem, TooLarge, add_handlers
from search.records import DISCLAIMER, Answer, Item, ItemId, Question, Record, VoteAnswer
from search.service import BadQuestion, Service, announce
from search.settings import Settings

MIB = 1024 * 1024


class Health(Record):
    """Whether the service can answer, and with which encoder."""

    status: Literal["ok", "empty"]
    version: str
    collections: int
    encoder: str | None
    """Id of the default collection's encoder; `None` while there is no such collection."""
    fingerprint: str | None
    disclaimer: str = DISCLAIMER


class CollectionFacts(Record):
    """One collection."""

    name: str
    items: int
    encoder: str
    fingerprint: str
    dim: int
    default: bool
    """Whether it is searched when none is named."""


class Facets(Record):
    """Values of a field with their counts, most frequent first."""

    field: str
    values: dict[str, int]


class Ids(Record):
    """Ids to look up."""

    ids: Annotated[tuple[ItemId, ...], Field(max_length=20_000)]


class Known(Record):
    """Payload digests of the ids that are stored."""

    known: dict[str, str]


class Items(Record):
    """Items whose metadata is to be replaced."""

    items: Annotated[tuple[Item, ...], Field(max_length=20_000)]


class Written(Record):
    """What a write changed."""

    stored: int
    updated: int
    unchanged: int


class Built(Record):
    """What a build of the index measured."""

    points: int
    seconds: float
    recall: float
    filtered_recall: float
    sample: int


class Asked(BaseModel):
    """A question as it came over HTTP."""

    question: Question
    image: bytes | None


def served(request: Request) -> Service:
    """The service that answers; also the gate that asks for the key."""
    service: Service = request.app.state.service
    key = service.settings.api_key
    if key is not None:
        came = request.headers.get("x-api-key", "")
        if not hmac.compare_digest(came.encode(), key.get_secret_value().encode()):
            raise NotAllowed("this service wants its key in the header X-API-Key")
    return service


Served = Annotated[Service, Depends(served)]


async def read_body(request: Request, what: str, cap_mb: float) -> bytes:
    """A body, refused as soon as more than the cap has come in.

    Raises:
        TooLarge: whatever Content-Length said.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > cap_mb * MIB:
            raise TooLarge(what, cap_mb)
        parts.append(part)
    return b"".join(parts)


async def asked(request: Request, service: Served) -> Asked:
    """The question in a request: JSON, or a form with an image and the question beside it.

    Raises:
        BadQuestion: another content type, no image in the form, or a form that is damaged.
        TooLarge: over the cap, counted while it streams.
    """
    cap = service.settings.max_upload_mb
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await read_body(request, "the uploaded image", cap)
    if kind == "application/json":
        return Asked(question=Question.model_validate_json(body), image=None)
    if kind != "multipart/form-data":
        raise BadQuestion(
            "send application/json with an item or a vector, or multipart/form-data with the "
            f"fields 'image' and 'question'; got {kind or 'no content type'}"
        )
    replay = Request(request.scope, _once(body))
    try:
        form = await replay.form(max_files=1, max_fields=1, max_part_size=MIB)
    except (MultiPartException, HTTPException) as error:
        why = error.message if isinstance(error, MultiPartException) else error.detail
        raise BadQuestion(f"the form is damaged: {why}") from error
    try:
        upload, text = form.get("image"), form.get("question")
        if not isinstance(upload, UploadFile):
            raise BadQuestion("the form has no file in the field 'image'")
        text = "{}" if text is None else text
        if not isinstance(text, str):
            raise BadQuestion("the field 'question' must hold JSON text, got a file")
        return Asked(question=Question.model_validate_json(text), image=await upload.read())
    finally:
        await form.close()


def _once(body: bytes) -> Callable[[], Any]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


QUESTION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Question"},
                "example": {"item": "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11", "k": 10},
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "string",
                            "format": "binary",
                            "description": "A crop of one cell: JPEG, PNG, TIFF, BMP, WebP, GIF.",
                        },
                        "question": {
                            "type": "string",
                            "description": "A Question as JSON; {} if left out.",
                        },
                    },
                }
            },
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}, "description": words}
    for status, words in {
        401: "No key, or a wrong one",
        404: "No such collection or item",
        409: "The encoder is not the collection's",
        413: "Too large, or too many pixels",
        415: "Not an image that is read",
        422: "The request does not fit, in words",
        503: "The store or the encoder is not available now",
    }.items()
}
router = APIRouter(prefix="/v1", responses=PROBLEMS)
CollectionName = Annotated[str | None, Query(description="Collection; the default if left out.")]


@router.post("/search", openapi_extra=QUESTION_BODY)
async def search(asked: Annotated[Asked, Depends(asked)], service: Served) -> Answer:
    """The stored items most similar to an image, a stored item, or a vector."""
    return await run_in_threadpool(service.search, asked.question, asked.image)


@router.post("/vote", openapi_extra=QUESTION_BODY)
async def vote(
    asked: Annotated[Asked, Depends(asked)],
    service: Served,
    weighting: Annotated[Weighting, Query(description="Weight of each neighbour.")] = "similarity",
    temperature: Annotated[
        float, Query(gt=0, le=10, allow_inf_nan=False, description="Of the softmax weighting.")
    ] = 0.07,
) -> VoteAnswer:
    """The label that the neighbours carry, and whether it is clear enough to be shown."""
    return await run_in_threadpool(
        service.vote, asked.question, asked.image, weighting, temperature
    )


@router.get("/items/{id}")
def item(id: ItemId, service: Served, collection: CollectionName = None) -> Item:
    """One stored item."""
    return service.item(id, collection)


@router.get(
    "/items/{id}/image",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}, "description": "The picture of the item"}},
)
def item_image(
    id: ItemId,
    service: Served,
    collection: CollectionName = None,
    size: Annotated[
        Literal["thumbnail", "full"],
        Query(description="At most 160 pixels a side, or cut from its source where that is there."),
    ] = "thumbnail",
) -> Response:
    """The picture of a stored item, as JPEG."""
    if size == "thumbnail":
        content, of_source = service.thumbnail(id, collection), False
    else:
        content, of_source = service.picture(id, collection)
    headers = {
        "Cache-Control": "private, max-age=3600",
        "X-Hemaseek-Picture": "source" if of_source else "thumbnail",
    }
    return Response(content, media_type="image/jpeg", headers=headers)


@router.get("/collections")
def collections(service: Served) -> list[CollectionFacts]:
    """Every collection, with its encoder and how much it holds."""
    return [facts(service, service.collection(name)) for name in service.names()]


@router.get("/collections/{name}/facets/{field}")
def facets(
    name: str,
    field: Literal[
        "kind", "dataset", "source", "label", "case", "patient", "site", "stain", "scanner"
    ],
    service: Served,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Facets:
    """Values of a field with their counts."""
    return Facets(field=field, values=service.collection(name).store.facet(field, limit=limit))


@router.put("/collections/{name}")
async def create_collection(
    name: str,
    request: Request,
    service: Served,
    encoder: Annotated[
        str, Query(max_length=500, description="What loads the encoder; the card's id if empty.")
    ] = "",
) -> CollectionFacts:
    """Make a collection for the encoder whose card is the body; again changes nothing."""
    body = await read_body(request, "the card", 1)
    card = EncoderCard.from_json(body.decode(errors="replace"), "the card")
    made = await run_in_threadpool(service.create, name, card, encoder)
    return await run_in_threadpool(facts, service, made)


@router.post("/collections/{name}/known")
def known(name: str, wanted: Ids, service: Served) -> Known:
    """Which of some ids are stored, with the digests of their payloads."""
    return Known(known=service.collection(name).known(wanted.ids))


@router.put("/collections/{name}/shards")
async def add_shard(name: str, request: Request, service: Served) -> Written:
    """Store a shard of embeddings (Parquet); durable when it answers, again changes nothing."""
    collection = await run_in_threadpool(service.collection, name)
    body = await read_body(request, "the shard", service.settings.max_shard_mb)
    return await run_in_threadpool(write, service, collection, body)


@router.patch("/collections/{name}/items")
def update_items(name: str, changed: Items, service: Served) -> Written:
    """Replace the metadata of stored items; their vectors stay."""
    collection = service.collection(name)
    added = collection.update(changed.items)
    return Written(stored=added.stored, updated=added.updated, unchanged=added.unchanged)


@router.post("/collections/{name}/build")
def build(name: str, service: Served) -> Built:
    """Build the search graph over everything stored, and measure its recall."""
    report = service.collection(name).build()
    return Built(
        points=report.points,
        seconds=report.seconds,
        recall=report.recall,
        filtered_recall=report.filtered_recall,
        sample=report.sample,
    )


def write(service: Service, collection: Collection, body: bytes) -> Written:
    """Add a shard and forget the counts that it made stale."""
    added = collection.add_shard(body)
    service.written(collection)
    return Written(stored=added.stored, updated=added.updated, unchanged=added.unchanged)


def facts(service: Service, collection: Collection) -> CollectionFacts:
    """What there is to say of a collection."""
    names = service.names()
    default = service.settings.collection
    return CollectionFacts(
        name=collection.name,
        items=service.count(collection),
        encoder=collection.card.id,
        fingerprint=collection.card.fingerprint,
        dim=collection.card.dim,
        default=collection.name == default or (default not in names and len(names) == 1),
    )


def health(request: Request) -> Health:
    """Whether the service can answer, and with which encoder."""
    service: Service = request.app.state.service
    names = service.names()
    default = next((n for n in (service.settings.collection, *names) if n in names), None)
    card = None if default is None else service.library.card(default)
    return Health(
        status="ok" if names else "empty",
        version=version("hemaseek"),
        collections=len(names),
        encoder=None if card is None else card.id,
        fingerprint=None if card is None else card.fingerprint,
    )


def create_app(service: Service | None = None, settings: Settings | None = None) -> FastAPI:
    """Assemble the application.

    Args:
        service: A service to answer with; it is not closed. `None` opens the one that the
            settings name when the application starts, and closes it when it stops.
        settings: `None` reads them from the environment at start.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if service is not None:
            app.state.service = service
            yield
            return
        chosen = settings or Settings()
        app.state.service = opened = await run_in_threadpool(Service.open, chosen)
        announced = announce(chosen, os.getpid())
        try:
            yield
        finally:
            announced.unlink(missing_ok=True)
            opened.close()

    app = FastAPI(
        title="Hemaseek",
        version=version("hemaseek"),
        summary="Find the historical cells and cases that look like the one under the microscope.",
        description=DISCLAIMER,
        lifespan=lifespan,
    )
    app.include_router(router)
    app.get("/health", tags=["service"])(health)
    add_handlers(app)
    _describe_question(app)
    return app


def _describe_question(app: FastAPI) -> None:
    """Put the schema of `Question`, which is parsed by hand, into the OpenAPI file."""
    plain = app.openapi

    def with_question() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            schema = Question.model_json_schema(ref_template="#/components/schemas/{model}")
            parts = document.setdefault("components", {}).setdefault("schemas", {})
            for name, part in schema.pop("$defs", {}).items():
                parts.setdefault(name, part)
            parts["Question"] = schema
        return app.openapi_schema or plain()

    app.openapi = with_question  # type: ignore[method-assign]
