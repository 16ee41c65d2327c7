"""The routes of refined searches, similar cases, calibration, and counts under a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Body, Depends, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Reads, api_router
from search.api.bodies import QUESTION_BODY, Asked, asked, body_of, read_question
from search.schemas.answers import Answer, VoteAnswer
from search.schemas.cases import CaseQuestion
from search.schemas.collections import Facets
from search.schemas.filters import Filter
from search.schemas.items import Keyword
from search.schemas.questions import Refinement, Weighting

MODELS: tuple[type[BaseModel], ...] = (Refinement, CaseQuestion)
"""Bodies that are parsed by hand: their schemas belong into the OpenAPI file as well."""


async def refinement(request: Request, service: Reads) -> tuple[Refinement, list[bytes]]:
    """The refinement in a request, with at most one image."""
    cap = service.settings.max_upload_mb
    return await read_question(request, Refinement, "image", 1, cap)


ITEM = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
OTHER = "8a4d3b52-1f6e-5b1c-8d7a-6b1d0c2e9f45"
router = api_router()


@router.post(
    "/refine",
    openapi_extra=body_of(
        Refinement,
        "image",
        False,
        {"item": ITEM, "like": [OTHER], "strategy": "best_score", "k": 10},
    ),
)
async def refine(
    asked: Annotated[tuple[Refinement, list[bytes]], Depends(refinement)], service: Reads
) -> Answer:
    """More like these, less like those, or by a region of the uploaded image."""
    question, images = asked
    return await run_in_threadpool(service.refine, question, images[0] if images else None)


@router.post("/collections/{name}/facets/{field}")
def facets_under(
    name: str,
    field: Keyword,
    service: Reads,
    where: Annotated[Filter, Body(examples=[{"label": ["eosinophil"], "site": ["A"]}])],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Facets:
    """Values of a field with their counts, among the items that meet a filter."""
    return Facets(field=field, values=service.facet(field, where, name, limit))


__all__: Sequence[str] = ["MODELS", "router"]


@router.post("/search", openapi_extra=QUESTION_BODY)
async def search(asked: Annotated[Asked, Depends(asked)], service: Reads) -> Answer:
    """The stored items most similar to an image, a stored item, or a vector."""
    return await run_in_threadpool(service.search, asked.question, asked.image)


@router.post("/vote", openapi_extra=QUESTION_BODY)
async def vote(
    asked: Annotated[Asked, Depends(asked)],
    service: Reads,
    weighting: Annotated[Weighting, Query(description="Weight of each neighbour.")] = "similarity",
    temperature: Annotated[
        float, Query(gt=0, le=10, allow_inf_nan=False, description="Of the softmax weighting.")
    ] = 0.07,
) -> VoteAnswer:
    """The label that the neighbours carry, and whether it is clear enough to be shown."""
    return await run_in_threadpool(
        service.vote, asked.question, asked.image, weighting, temperature
    )
