"""Routes of reviews, of the count of a case, and of items listed page by page."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query

from search.api.access import Reads, Writes, api_router
from search.cases.count import count_case
from search.errors import NoSuchItem
from search.library.reviews import Reviewed, Reviews, agreement
from search.query.stored import stored
from search.schemas.cases import CaseCount, CountQuestion
from search.schemas.items import Item, ItemId
from search.schemas.reviews import (
    ItemPage,
    ItemsWanted,
    ReviewAgreement,
    ReviewedPage,
    ReviewedRecord,
    ReviewRecord,
    ReviewsWanted,
    ReviewsWritten,
)

router = api_router()


@router.post("/collections/{name}/reviews")
def add_reviews(name: str, wanted: ReviewsWanted, access: Writes) -> ReviewsWritten:
    """Add reviewers' labels. Nothing is overwritten: the source's label stays, and every label is
    kept with its reviewer and time. The same label of the same reviewer changes nothing."""
    collection = access.context(name).collection
    ids = [review.item for review in wanted.reviews]
    there = {one.item.id: one.item for one in collection.store.get(ids)}
    for review in wanted.reviews:
        if review.item not in there:
            raise NoSuchItem(review.item, name)
    written = Reviews(collection.versions).add(
        [(there[one.item], one.label, one.note) for one in wanted.reviews],
        access.caller.id,
        wanted.reviewer,
    )
    access.note(written=written, items=ids)
    return ReviewsWritten(written=written, unchanged=len(ids) - written)


@router.get("/collections/{name}/reviews")
def list_reviews(
    name: str,
    access: Reads,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[ItemId | None, Query(description="The `next` of the page before.")] = None,
) -> ReviewedPage:
    """Every item that reviewers have labelled, with its history."""
    collection = access.context(name).collection
    left = [one for one in Reviews(collection.versions).all() if after is None or one.item > after]
    page, more = left[:limit], len(left) > limit
    found = {one.item.id: one.item for one in collection.store.get([r.item for r in page])}
    access.note(items=list(found))
    return ReviewedPage(
        reviewed=tuple(_record(found[one.item], one) for one in page if one.item in found),
        next=page[-1].item if more else None,
    )


@router.get("/collections/{name}/reviews/agreement")
def review_agreement(name: str, access: Reads) -> ReviewAgreement:
    """How far the reviewers of a collection agree, each two over what both labelled."""
    reviewed = Reviews(access.context(name).collection.versions).all()
    return ReviewAgreement(
        items=sum(one.label is not None for one in reviewed),
        disputed=sum(one.disputed for one in reviewed),
        pairs=tuple(agreement(reviewed)),
    )


@router.get("/items/{id}/reviews")
def item_reviews(
    id: ItemId,
    access: Reads,
    collection: Annotated[
        str | None, Query(description="Collection; the default if left out.")
    ] = None,
) -> ReviewedRecord:
    """The reviewers' labels of one item; an empty history where there are none."""
    opened = access.context(collection).collection
    item = stored(opened, id).item
    access.note(items=[id])
    return _record(item, Reviews(opened.versions).of([id]).get(id, Reviewed(item=id, history=())))


@router.post("/collections/{name}/cases/count")
def count(
    name: str,
    access: Reads,
    question: Annotated[CountQuestion, Body(examples=[{"case": "C-0117", "k": 20}])],
) -> CaseCount:
    """The differential count of a case: by its source, by reviewers, and by the neighbours of
    each cell, none of them of the same patient."""
    collection = access.context(name).collection
    access.note(query="case", k=question.k, where=sorted(question.where.model_fields_set))
    found = count_case(collection, Reviews(collection.versions), question)
    access.note(items=[cell.item.id for cell in found.cells])
    return found


@router.post("/collections/{name}/items/page")
def page_of_items(
    name: str,
    access: Reads,
    wanted: Annotated[ItemsWanted, Body(examples=[{"where": {"case": ["C-0117"]}}])],
) -> ItemPage:
    """Items that meet a filter, in order of id, a page at a time."""
    store = access.context(name).collection.store
    found = store.scroll(wanted.where, wanted.limit, wanted.after)
    items = tuple(one.item for one in found.items)
    access.note(items=[item.id for item in items], where=sorted(wanted.where.model_fields_set))
    return ItemPage(items=items, total=store.count(wanted.where), next=found.cursor)


def _record(item: Item, reviewed: Reviewed) -> ReviewedRecord:
    return ReviewedRecord(
        item=item,
        label=reviewed.label,
        disputed=reviewed.disputed,
        history=tuple(
            ReviewRecord.model_validate(one, from_attributes=True) for one in reviewed.history
        ),
    )
