"""The routes of the service under `/v1`: questions, items, collections and writes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request, Response
from starlette.concurrency import run_in_threadpool

from encoder.card import EncoderCard
from search.api.access import Lists, Reads, Scoped, Writes, api_router
from search.api.bodies import read_body
from search.library.collection import Collection
from search.library.uploads import check_shard
from search.schemas.collections import Built, CollectionFacts, Facets, Ids, Items, Known, Written
from search.schemas.items import Item, ItemId

router = api_router()
CollectionName = Annotated[str | None, Query(description="Collection; the default if left out.")]


@router.get("/items/{id}")
def item(id: ItemId, service: Reads, collection: CollectionName = None) -> Item:
    """One stored item."""
    return service.item(id, collection)


@router.get(
    "/items/{id}/image",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}, "description": "The picture of the item"}},
)
def item_image(
    id: ItemId,
    service: Reads,
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
def collections(service: Lists) -> list[CollectionFacts]:
    """Every collection, with its encoder and how much it holds."""
    return [facts(service, service.collection(name)) for name in service.names()]


@router.get("/collections/{name}/facets/{field}")
def facets(
    name: str,
    field: Literal[
        "kind", "dataset", "source", "label", "case", "patient", "site", "stain", "scanner"
    ],
    service: Reads,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Facets:
    """Values of a field with their counts."""
    return Facets(field=field, values=service.collection(name).store.facet(field, limit=limit))


CARD_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
SHARD_BODY = {
    "requestBody": {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    }
}
"""What is read as it streams in, for the OpenAPI file."""


@router.put("/collections/{name}", openapi_extra=CARD_BODY)
async def create_collection(
    name: str,
    request: Request,
    service: Writes,
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
def known(name: str, wanted: Ids, service: Reads) -> Known:
    """Which of some ids are stored, with the digests of their payloads."""
    return Known(known=service.collection(name).known(wanted.ids))


@router.put("/collections/{name}/shards", openapi_extra=SHARD_BODY)
async def add_shard(name: str, request: Request, service: Writes) -> Written:
    """Store a shard of embeddings (Parquet); durable when it answers, again changes nothing."""
    collection = await run_in_threadpool(service.collection, name)
    body = await read_body(request, "the shard", service.settings.max_shard_mb)
    return await run_in_threadpool(write, service, collection, body)


@router.patch("/collections/{name}/items")
def update_items(name: str, changed: Items, service: Writes) -> Written:
    """Replace the metadata of stored items; their vectors stay."""
    collection = service.collection(name)
    added = collection.update(changed.items)
    service.note(written=added.stored + added.updated)
    return Written(stored=added.stored, updated=added.updated, unchanged=added.unchanged)


@router.post("/collections/{name}/build")
def build(name: str, service: Writes) -> Built:
    """Build the search graph over everything stored, and measure its recall."""
    report = service.collection(name).build()
    return Built(
        points=report.points,
        seconds=report.seconds,
        recall=report.recall,
        filtered_recall=report.filtered_recall,
        sample=report.sample,
    )


def write(service: Scoped, collection: Collection, body: bytes) -> Written:
    """Check a shard whole, add it, and forget the counts that it made stale."""
    check_shard(body, collection.card.to_json())
    added = collection.add_shard(body)
    service.written(collection)
    service.note(written=added.stored + added.updated)
    return Written(stored=added.stored, updated=added.updated, unchanged=added.unchanged)


def facts(service: Scoped, collection: Collection) -> CollectionFacts:
    """What there is to say of a collection."""
    names = service.library.names()
    default = service.settings.collection
    return CollectionFacts(
        name=collection.name,
        items=service.count(collection),
        encoder=collection.card.id,
        fingerprint=collection.card.fingerprint,
        dim=collection.card.dim,
        default=collection.name == default or (default not in names and len(names) == 1),
    )
