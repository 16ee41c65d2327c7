"""The routes of evaluations: started as jobs, watched, read, and every answer of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Lists, Reads, Writes, api_router
from search.api.bodies import body_of, read_question
from search.api.problems import TooMany
from search.api.routes.collections import CollectionName
from search.evaluation.kept import KIND
from search.schemas.comparisons import PairedResult
from search.schemas.evaluations import EvaluationPlan, EvaluationRecord, ItemAnswers
from search.schemas.jobs import ENDED

MODELS: tuple[type[BaseModel], ...] = (EvaluationPlan,)
"""Bodies that are parsed by hand."""
WAITING = 50
"""Most evaluations that have not ended."""
EXAMPLE = {"ks": [1, 5, 20], "split": "leave-one-patient-out", "ask": 2000, "seed": 0}
Id = Annotated[str, "Id of an evaluation."]
Word = Annotated[str | None, Query(max_length=200)]
router = api_router()


async def evaluation_plan(request: Request, service: Writes) -> tuple[EvaluationPlan, list[bytes]]:
    """The plan in a request, with at most one set; its cap is that of a shard."""
    cap = service.settings.max_shard_mb
    return await read_question(request, EvaluationPlan, "set", 1, cap)


@router.post(
    "/evaluations",
    status_code=202,
    openapi_extra=body_of(
        EvaluationPlan,
        "set",
        False,
        EXAMPLE,
        "A ZIP of pictures, whose folders are labels or which has a manifest.csv (path, label, "
        "and perhaps patient, case, site, source, acquired); or a shard.",
    ),
    responses={202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
async def start_evaluation(
    asked: Annotated[tuple[EvaluationPlan, list[bytes]], Depends(evaluation_plan)],
    service: Writes,
    response: Response,
) -> EvaluationRecord:
    """Evaluate a collection, or a labelled set against it; a job."""
    plan, sets = asked
    waiting = [job for job in service.jobs.all() if job.kind == KIND and job.state not in ENDED]
    if len(waiting) >= WAITING:
        raise TooMany(f"{len(waiting)} evaluations wait already; stop some, or come back later")
    record = await run_in_threadpool(service.evaluate, plan, sets[0] if sets else None)
    response.headers["Location"] = f"/v1/evaluations/{record.id}"
    return record


@router.get("/evaluations")
def evaluations(service: Lists, collection: CollectionName = None) -> list[EvaluationRecord]:
    """The evaluations that the caller may see, oldest first, without their results."""
    return service.evaluations(collection)


@router.get("/evaluations/{id}")
def evaluation(id: Id, service: Reads) -> EvaluationRecord:
    """An evaluation, as it stands; with its result where it is done."""
    return service.evaluation(id)


@router.delete("/evaluations/{id}")
def end_evaluation(id: Id, service: Writes) -> EvaluationRecord:
    """Stop an evaluation that runs; forget one that has ended."""
    return service.end_evaluation(id)


@router.get("/evaluations/{id}/against/{other}")
def paired_evaluations(
    id: Id,
    other: Annotated[str, "Id of the evaluation that it is held against."],
    service: Reads,
    method: Annotated[str, Query(max_length=50, examples=["20-NN"])],
    other_method: Annotated[str | None, Query(max_length=50)] = None,
) -> PairedResult:
    """Two evaluations over the items that both asked: differences with paired intervals."""
    return service.paired(id, other, method, other_method)


@router.get("/evaluations/{id}/answers")
def evaluation_answers(
    id: Id,
    service: Reads,
    method: Annotated[str, Query(max_length=50, examples=["20-NN"])],
    truth: Word = None,
    said: Word = None,
    right: bool | None = None,
    unanswered: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> ItemAnswers:
    """What single items were called, the surest first: what lies behind a cell of a confusion."""
    return service.evaluation_answers(
        id,
        method,
        truth=truth,
        said=said,
        right=right,
        unanswered=unanswered,
        limit=limit,
        offset=offset,
    )


__all__: Sequence[str] = ["MODELS", "router"]
