"""Routes of collections: items and their pictures, counts, and writes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request, Response
from starlette.concurrency import run_in_threadpool

from encoder.card import EncoderCard
from search.api.access import Access, Lists, Reads, Writes, api_router
from search.api.bodies import read_body
from search.cases.represented import prepare
from search.library.collection import Added, Collection
from search.library.reviews import Reviews
from search.library.uploads import check_shard
from search.query.context import Context
from search.query.stored import picture, stored, thumbnail
from search.schemas.collections import Built, CollectionFacts, Facets, Ids, Items, Known, Written
from search.schemas.items import Item, ItemId
from search.votes import calibration as calibrations

router = api_router()
CollectionName = Annotated[str | None, Query(description="Collection; the default if left out.")]


@router.get("/items/{id}")
def item(id: ItemId, access: Reads, collection: CollectionName = None) -> Item:
    """One stored item."""
    found = stored(access.context(collection).collection, id).item
    access.note(items=[id])
    return found


@router.get(
    "/items/{id}/image",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}, "description": "The picture of the item"}},
)
def item_image(
    id: ItemId,
    access: Reads,
    collection: CollectionName = None,
    size: Annotated[
        Literal["thumbnail", "full"],
        Query(description="At most 160 pixels a side, or cut from its source where that is there."),
    ] = "thumbnail",
) -> Response:
    """The picture of a stored item, as JPEG."""
    context = access.context(collection)
    if size == "thumbnail":
        content, of_source = thumbnail(context.collection, id), False
    else:
        content, of_source = picture(context, id)
    access.note(items=[id])
    headers = {
        "Cache-Control": "private, max-age=3600",
        "X-Hemaseek-Picture": "source" if of_source else "thumbnail",
    }
    return Response(content, media_type="image/jpeg", headers=headers)


@router.get("/collections")
def collections(access: Lists) -> list[CollectionFacts]:
    """Every collection, with its encoder and how much it holds."""
    return [facts(access, access.context(name)) for name in access.names()]


@router.get("/collections/{name}/facets/{field}")
def facets(
    name: str,
    field: Literal[
        "kind", "dataset", "source", "label", "case", "patient", "site", "stain", "scanner"
    ],
    access: Reads,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Facets:
    """Values of a field with their counts."""
    return Facets(
        field=field, values=access.context(name).collection.store.facet(field, limit=limit)
    )


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
    access: Writes,
    encoder: Annotated[
        str, Query(max_length=500, description="What loads the encoder; the card's id if empty.")
    ] = "",
) -> CollectionFacts:
    """Make a collection for the encoder whose card is the body; again changes nothing."""
    body = await read_body(request, "the card", 1)
    card = EncoderCard.from_json(body.decode(errors="replace"), "the card")
    made = await run_in_threadpool(access.create, name, card, encoder)
    return await run_in_threadpool(facts, access, made)


@router.post("/collections/{name}/known")
def known(name: str, wanted: Ids, access: Reads) -> Known:
    """Which of some ids are stored, with the digests of their payloads."""
    return Known(known=access.context(name).collection.known(wanted.ids))


@router.put("/collections/{name}/shards", openapi_extra=SHARD_BODY)
async def add_shard(name: str, request: Request, access: Writes) -> Written:
    """Store a shard of embeddings (Parquet); durable when it answers, again changes nothing."""
    context = await run_in_threadpool(access.context, name)
    body = await read_body(request, "the shard", access.settings.max_shard_mb)
    return _written(access, await run_in_threadpool(_add_checked, context.collection, body))


@router.patch("/collections/{name}/items")
def update_items(name: str, changed: Items, access: Writes) -> Written:
    """Replace the metadata of stored items; their vectors stay."""
    return _written(access, access.context(name).collection.update(changed.items))


@router.post("/collections/{name}/build")
def build(name: str, access: Writes) -> Built:
    """Build the search graph over everything stored, and measure its recall; and what represents
    the cases of a large collection."""
    collection = access.context(name).collection
    report = collection.build()
    prepare(collection)
    return Built.model_validate(report, from_attributes=True)


def _add_checked(collection: Collection, shard: bytes) -> Added:
    check_shard(shard, collection.base.to_json())
    return collection.add_shard(shard)


def _written(access: Access, added: Added) -> Written:
    access.note(written=added.stored + added.updated)
    return Written.model_validate(added, from_attributes=True)


def facts(access: Access, context: Context) -> CollectionFacts:
    """A collection, as it is answered."""
    collection, default = context.collection, access.default()
    touched = Reviews(collection.versions).touched()
    reviews = "" if touched is None else "-".join(f"{one:x}" for one in touched[:2])
    writes = (*calibrations.touched(collection.folder), *collection.cases.revision)
    return CollectionFacts(
        name=collection.name,
        items=context.count(),
        encoder=collection.card.id,
        fingerprint=collection.card.fingerprint,
        dim=collection.card.dim,
        default=collection.name == default,
        state="-".join([collection.version.id, *(f"{one:x}" for one in writes), reviews]),
        reviews_state=reviews,
    )
