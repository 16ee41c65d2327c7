"""The route that explains why hits were found."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Reads, api_router
from search.api.bodies import Posted, body_of, posted
from search.query.explain import explain
from search.schemas.explanations import ExplainQuestion, Explanation

MODELS: tuple[type[BaseModel], ...] = (ExplainQuestion,)
"""Bodies that are parsed by hand: their schemas belong into the OpenAPI file as well."""
ITEM = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
OTHER = "8a4d3b52-1f6e-5b1c-8d7a-6b1d0c2e9f45"
router = api_router()


@router.post(
    "/explain",
    openapi_extra=body_of(ExplainQuestion, {"item": ITEM, "hits": [OTHER], "maps": ["causal"]}),
)
async def explain_hits(
    posted: Annotated[Posted[ExplainQuestion], Depends(posted(ExplainQuestion))], access: Reads
) -> Explanation:
    """Why some stored items are near a query: maps that were compared with chance."""
    access.note(items=sorted(set(posted.question.hits)))
    return await run_in_threadpool(explain, posted.context, posted.question, posted.image)
