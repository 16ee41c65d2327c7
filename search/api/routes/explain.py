"""The route that explains why hits were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Reads, api_router
from search.api.bodies import body_of, read_question
from search.query.explain import explain
from search.schemas.explanations import ExplainQuestion, Explanation

MODELS: tuple[type[BaseModel], ...] = (ExplainQuestion,)
"""Bodies that are parsed by hand: their schemas belong into the OpenAPI file as well."""
ITEM = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
OTHER = "8a4d3b52-1f6e-5b1c-8d7a-6b1d0c2e9f45"
router = api_router()


async def explained(request: Request, service: Reads) -> tuple[ExplainQuestion, list[bytes]]:
    """The question in a request, with at most one image."""
    cap = service.settings.max_upload_mb
    return await read_question(request, ExplainQuestion, "image", 1, cap)


@router.post(
    "/explain",
    openapi_extra=body_of(
        ExplainQuestion, "image", False, {"item": ITEM, "hits": [OTHER], "maps": ["causal"]}
    ),
)
async def explain_hits(
    asked: Annotated[tuple[ExplainQuestion, list[bytes]], Depends(explained)], service: Reads
) -> Explanation:
    """Why some stored items are near a query: maps that were held against chance."""
    question, images = asked
    service.note(
        query="image" if images else "item", k=question.k, items=sorted(set(question.hits))
    )
    return await run_in_threadpool(explain, service, question, images[0] if images else None)


__all__: Sequence[str] = ["MODELS", "router"]
