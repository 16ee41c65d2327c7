"""Routes of questions: searches, votes, refined searches, and counts under a filter."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Depends, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Access, Reads, api_router
from search.api.bodies import Posted, body_of, posted
from search.query.answer import answer, answer_with_vote
from search.query.facets import facet
from search.schemas.answers import Answer, VoteAnswer
from search.schemas.cases import CaseQuestion
from search.schemas.collections import Facets
from search.schemas.filters import Filter
from search.schemas.items import Keyword
from search.schemas.questions import Question, Refinement, Weighting

MODELS: tuple[type[BaseModel], ...] = (Refinement, CaseQuestion)
"""Bodies that are parsed by hand: their schemas belong into the OpenAPI file as well."""
ITEM = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
OTHER = "8a4d3b52-1f6e-5b1c-8d7a-6b1d0c2e9f45"
QUESTION = body_of(
    Question,
    {"item": ITEM, "k": 10},
    words="A crop of one cell: JPEG, PNG, TIFF, BMP, WebP, GIF.",
)
Searched = Annotated[Posted[Question], Depends(posted(Question))]
router = api_router()


@router.post("/search", openapi_extra=QUESTION)
async def search(posted: Searched, access: Reads) -> Answer:
    """The stored items most similar to an image, a stored item, or a vector."""
    return await _answered(access, posted)


@router.post(
    "/refine",
    openapi_extra=body_of(
        Refinement, {"item": ITEM, "like": [OTHER], "strategy": "best_score", "k": 10}
    ),
)
async def refine(
    posted: Annotated[Posted[Refinement], Depends(posted(Refinement))], access: Reads
) -> Answer:
    """More like these, less like those, or by a region of the uploaded image."""
    return await _answered(access, posted)


@router.post("/vote", openapi_extra=QUESTION)
async def vote(
    posted: Searched,
    access: Reads,
    weighting: Annotated[Weighting, Query(description="Weight of each neighbour.")] = "similarity",
    temperature: Annotated[
        float, Query(gt=0, le=10, allow_inf_nan=False, description="Of the softmax weighting.")
    ] = 0.07,
) -> VoteAnswer:
    """The label that the neighbours carry, and whether it is clear enough to be shown."""
    found = await run_in_threadpool(
        answer_with_vote,
        posted.context,
        posted.question,
        posted.image,
        weighting,
        temperature,
        posted.beside,
    )
    access.note(items=[hit.item.id for hit in found.answer.hits])
    return found


@router.post("/collections/{name}/facets/{field}")
def facets_under(
    name: str,
    field: Keyword,
    access: Reads,
    where: Annotated[Filter, Body(examples=[{"label": ["eosinophil"], "site": ["A"]}])],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Facets:
    """Values of a field with their counts, among the items that meet a filter."""
    store = access.context(name).collection.store
    return Facets(field=field, values=facet(store, field, where, Filter(), limit))


async def _answered(access: Access, posted: Posted[Any]) -> Answer:
    found = await run_in_threadpool(
        answer, posted.context, posted.question, posted.image, posted.beside
    )
    access.note(items=[hit.item.id for hit in found.hits])
    return found
