"""Routes of evaluations: started as jobs, watched, read, and every answer of each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Lists, Reads, Writes, api_router, writes
from search.api.bodies import Posted, body_of, posted
from search.api.problems import TooMany
from search.api.routes.collections import CollectionName
from search.api.routes.versions import STARTED, started
from search.evaluation.comparison import paired
from search.evaluation.kept import Conditions, answers
from search.evaluation.trust import trust_of_collection
from search.library.jobs import Run
from search.schemas.evaluations import (
    EvaluationPlan,
    EvaluationRecord,
    ItemAnswers,
    PairedResult,
    TrustWanted,
)
from search.schemas.versions import JobRecord

MODELS: tuple[type[BaseModel], ...] = (EvaluationPlan,)
"""Bodies that are parsed by hand."""
WAITING = 50
"""Most evaluations that have not ended."""
EXAMPLE = {"ks": [1, 5, 20], "split": "leave-one-patient-out", "ask": 2000, "seed": 0}
Id = Annotated[str, "Id of an evaluation."]
LabelName = Annotated[str | None, Query(max_length=200)]
router = api_router()


@router.post(
    "/evaluations",
    status_code=202,
    openapi_extra=body_of(
        EvaluationPlan,
        EXAMPLE,
        "set",
        "A ZIP of pictures, whose folders are labels or which has a manifest.csv (path, label, "
        "and perhaps patient, case, site, source, acquired); or a shard.",
    ),
    responses={202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
async def start_evaluation(
    posted: Annotated[
        Posted[EvaluationPlan], Depends(posted(EvaluationPlan, "set", access=writes))
    ],
    access: Writes,
    response: Response,
) -> EvaluationRecord:
    """Evaluate a collection, or a labelled set against it; a job."""
    waiting = access.evaluations.waiting()
    if waiting >= WAITING:
        raise TooMany(f"{waiting} evaluations wait already; cancel some, or come back later")
    record = await run_in_threadpool(
        access.evaluations.start,
        posted.context,
        posted.question,
        posted.image,
        access.caller.id,
    )
    response.headers["Location"] = f"/v1/evaluations/{record.id}"
    return record


@router.post("/collections/{name}/trust", **STARTED)
def start_trust(name: str, wanted: TrustWanted, access: Writes, response: Response) -> JobRecord:
    """Measure when an answer should not be trusted: labels, sites and kinds that are not there,
    thresholds of the distance, scores by year; a job whose result has the figures."""
    called = access.context(name).collection.name

    def work(run: Run) -> dict[str, Any]:
        run.check()
        return asdict(trust_of_collection(access.context(called).collection, wanted))

    return started(access, "trust", called, work, response)


@router.get("/evaluations")
def evaluations(access: Lists, collection: CollectionName = None) -> list[EvaluationRecord]:
    """The evaluations that the caller may see, oldest first, without their results."""
    name = None if collection is None else access.context(collection).collection.name
    return access.evaluations.all(name)


@router.get("/evaluations/{id}")
def evaluation(id: Id, access: Reads) -> EvaluationRecord:
    """An evaluation, as it stands; with its result where it is done."""
    return access.evaluations.get(id)


@router.delete("/evaluations/{id}")
def end_evaluation(id: Id, access: Writes) -> EvaluationRecord:
    """Stop an evaluation that runs; forget one that has ended."""
    return access.evaluations.end(id)


@router.get("/evaluations/{id}/against/{other}")
def paired_evaluations(
    id: Id,
    other: Annotated[str, "Id of the evaluation that it is compared with."],
    access: Reads,
    method: Annotated[str, Query(max_length=50, examples=["20-NN"])],
    other_method: Annotated[str | None, Query(max_length=50)] = None,
) -> PairedResult:
    """Two evaluations over the items that both evaluated: differences with paired intervals."""
    return paired(access.evaluations, id, other, method, other_method)


@router.get("/evaluations/{id}/answers")
def evaluation_answers(
    id: Id,
    access: Reads,
    method: Annotated[str, Query(max_length=50, examples=["20-NN"])],
    truth: LabelName = None,
    said: LabelName = None,
    right: bool | None = None,
    unanswered: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> ItemAnswers:
    """The answers for single items, the surest first: what lies behind a cell of a confusion."""
    conditions = Conditions(
        truth=truth, said=said, right=right, unanswered=unanswered, limit=limit, offset=offset
    )
    return answers(access.evaluations.table(id, method), method, conditions)
