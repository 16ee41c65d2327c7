"""Routes of cases: similar cases, and what there is of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.concurrency import run_in_threadpool

from search.api.access import Reads, api_router
from search.api.bodies import Posted, body_of, posted
from search.api.routes.collections import CollectionName
from search.cases import similar
from search.cases.relabelled import relabelled
from search.schemas.cases import CaseAnswer, CaseFacts, CaseQuestion
from search.schemas.questions import BagField, Labels

MOST_IMAGES = 500
"""Images of one case."""
router = api_router()


@router.post(
    "/cases/similar",
    openapi_extra=body_of(
        CaseQuestion, {"case": "C-0117", "k": 5, "distance": "composition"}, "images", many=True
    ),
)
async def similar_cases(
    posted: Annotated[Posted[CaseQuestion], Depends(posted(CaseQuestion, "images", MOST_IMAGES))],
    access: Reads,
) -> CaseAnswer:
    """The cases (or slides, or patients) whose cells look like the cells of the query."""
    answer = await run_in_threadpool(
        similar.similar_cases, posted.context, posted.question, posted.images
    )
    access.note(items=[pair.item.id for case in answer.cases for pair in case.pairs])
    return answer


@router.get("/cases/{case:path}")
def case(
    case: Annotated[
        str,
        Path(min_length=1, max_length=200, description="Name of the case.", examples=["C-0117"]),
    ],
    access: Reads,
    collection: CollectionName = None,
    by: Annotated[
        BagField, Query(description="A case, a patient, or a source: for tiles, a slide.")
    ] = "case",
    labels: Annotated[
        Labels,
        Query(description="A reviewer's label before the recorded one, or recorded ones alone."),
    ] = "reviewed",
) -> CaseFacts:
    """What there is of one case, with its differential count."""
    context = access.context(collection)
    return similar.case_facts(context.collection, by, case, relabelled(context, labels))
