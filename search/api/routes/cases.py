"""Routes of cases: similar cases and cell counts."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from search.api.access import Reads, api_router
from search.api.bodies import body_of, read_question
from search.api.routes.collections import CollectionName
from search.schemas.cases import CaseAnswer, CaseFacts, CaseQuestion
from search.schemas.questions import BagField

router = api_router()

MOST_IMAGES = 500
"""Images of one case."""


async def case_question(request: Request, service: Reads) -> tuple[CaseQuestion, list[bytes]]:
    """The question about cases in a request, with its images; their cap is that of a shard."""
    cap = service.settings.max_shard_mb
    return await read_question(request, CaseQuestion, "images", MOST_IMAGES, cap)


@router.post(
    "/cases/similar",
    openapi_extra=body_of(
        CaseQuestion, "images", True, {"case": "C-0117", "k": 5, "distance": "max_sim"}
    ),
)
async def similar_cases(
    asked: Annotated[tuple[CaseQuestion, list[bytes]], Depends(case_question)], service: Reads
) -> CaseAnswer:
    """The cases (or slides, or patients) whose cells look like the cells of the query."""
    question, images = asked
    service.note(
        query="case" if question.case else "images" if images else "items",
        k=question.k,
        where=sorted(question.where.model_fields_set),
        exclude=sorted({*question.exclude, *question.not_these.model_fields_set}),
    )
    answer = await run_in_threadpool(service.similar_cases, question, images)
    service.note(items=[pair.item.id for case in answer.cases for pair in case.pairs])
    return answer


@router.get("/cases/{case:path}")
def case(
    case: Annotated[
        str,
        Path(min_length=1, max_length=200, description="Name of the case.", examples=["C-0117"]),
    ],
    service: Reads,
    collection: CollectionName = None,
    by: Annotated[
        BagField, Query(description="A case, a patient, or a source: for tiles, a slide.")
    ] = "case",
) -> CaseFacts:
    """What there is of one case, with its differential count."""
    return service.case(case, collection, by)
