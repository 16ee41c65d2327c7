"""Routes of the versions of a collection, of removals, and of the jobs that build versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Query, Response
from starlette.concurrency import run_in_threadpool

from encoder.registry import load
from search.api.access import Admins, Lists, Reads, Scoped, Writes, api_router
from search.index.contract import IndexSettings
from search.library.jobs import Job, NoSuchJob, Run
from search.maintenance.checks import as_json
from search.maintenance.reconcile import Reconciled, reconcile
from search.maintenance.reindex import Reindexed, ReindexPlan, reindex
from search.maintenance.rollback import list_versions, prune, rollback
from search.schemas.jobs import JobRecord
from search.schemas.versions import (
    GateFacts,
    IndexWanted,
    Pruned,
    ReconcileRecord,
    ReindexWanted,
    Removed,
    RemoveWanted,
    RollbackWanted,
    SwitchRecord,
    VersionRecord,
)
from search.security.keys import Forbidden

LISTED = 1000
"""Ids that an answer names; the count is always the whole."""


router = api_router()


@router.get("/collections/{name}/versions")
def versions(name: str, service: Reads) -> list[VersionRecord]:
    """Every version of a collection, oldest first, with the figures of its gates."""
    service.collection(name)
    found = list_versions(service.library, name)
    return [
        VersionRecord(
            **{key: value for key, value in vars(one).items() if key != "report"},
            gates=tuple(GateFacts(**gate) for gate in one.report.get("gates", [])),
        )
        for one in found
    ]


@router.get("/collections/{name}/card")
def card(name: str, service: Reads) -> dict[str, Any]:
    """The card of the encoder that made what is served: everything that changes its vectors."""
    facts: dict[str, Any] = json.loads(service.collection(name).card.to_json())
    return facts


@router.post(
    "/collections/{name}/reindex",
    status_code=202,
    responses={202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
def start_reindex(
    name: str, wanted: ReindexWanted, service: Admins, response: Response
) -> JobRecord:
    """Build a version with another encoder beside the one that serves; a job.

    It switches when its gates pass. Asked again after an interruption, it goes on from there.
    """
    called = service.collection(name).name  # the job must not hold the version that it replaces
    library, device, follow = service.library, service.settings.device, service.follow

    def work(run: Run) -> dict[str, Any]:
        encoder = load(wanted.encoder, device=device)
        plan = ReindexPlan(
            index=_settings(wanted.index), allow_missing=wanted.allow_missing, force=wanted.force
        )
        done = reindex(
            library,
            called,
            encoder,
            reference=wanted.encoder,
            plan=plan,
            read_pixels=service.read_pixels,
            progress=run.progress,
            stop=run.stop,
        )
        if done.switched:
            follow(called)
        return as_result(done)

    job = service.jobs.start("reindex", called, work)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_record(job)


@router.post("/collections/{name}/rollback")
def roll_back(name: str, wanted: RollbackWanted, service: Admins) -> SwitchRecord:
    """Serve the version that was served before, or another one; atomic."""
    called = service.collection(name).name
    done = rollback(service.library, called, wanted.version, force=wanted.force)
    service.follow(called)
    return SwitchRecord(
        **{key: value for key, value in vars(done).items() if key != "lacking"},
        lacking=len(done.lacking),
        lacking_ids=done.lacking[:LISTED],
    )


@router.post("/collections/{name}/prune")
def prune_versions(
    name: str,
    service: Admins,
    keep: Annotated[int, Query(ge=0, le=1000)] = 1,
    unfinished: bool = False,
) -> Pruned:
    """Delete old versions for good; the one that answers, and those that did last, stay."""
    called = service.collection(name).name
    service.follow(called)  # a version that only this service holds on to, after a switch elsewhere
    done = prune(service.library, called, keep, unfinished=unfinished)
    return Pruned(pruned=tuple(done))


@router.post("/collections/{name}/reconcile")
def reconcile_index(name: str, service: Admins, mend: bool = True) -> ReconcileRecord:
    """Prove that the index holds what the shards say, and mend it where it does not."""
    collection = service.collection(name)
    found: Reconciled = reconcile(collection, mend=mend)
    service.written(collection)
    return ReconcileRecord(**vars(found), equal=found.equal)


@router.post("/collections/{name}/items/remove")
async def remove_items(name: str, wanted: RemoveWanted, service: Writes) -> Removed:
    """Remove items for good; ids that are not there are no error."""
    collection = await run_in_threadpool(service.collection, name)
    removed = await run_in_threadpool(collection.remove, wanted.ids)
    service.written(collection)
    service.note(written=removed)
    return Removed(removed=removed)


@router.get("/jobs")
def jobs(service: Lists) -> list[JobRecord]:
    """The jobs on collections that the caller may read, oldest first."""
    there = set(service.names())
    return [job_record(job) for job in service.jobs.all() if job.collection in there]


@router.get("/jobs/{id}")
def job(id: str, service: Reads) -> JobRecord:
    """A job, as it stands."""
    return job_record(_job_of(service, id))


@router.delete("/jobs/{id}")
def stop_job(id: str, service: Admins) -> JobRecord:
    """Ask a job to stop; what it has built stays, and the same call goes on from there."""
    _job_of(service, id)
    return job_record(service.jobs.stop(id))


def _job_of(service: Scoped, id: str) -> Job:
    found = service.jobs.get(id)
    try:
        service.check(found.collection)
    except Forbidden:
        raise NoSuchJob(id) from None
    return found


def job_record(job: Job) -> JobRecord:
    """A job, as it is answered."""
    return JobRecord(**asdict(job))


def as_result(done: Reindexed) -> dict[str, Any]:
    """What a re-index did, as its job keeps it; of missing items, no file names."""
    facts = {
        key: value for key, value in vars(done).items() if key not in ("gates", "built", "missing")
    }
    return facts | {
        "missing": len(done.missing),
        "missing_ids": [one.id for one in done.missing[:LISTED]],
        "refused_by": list(done.refused_by),
        "gates": as_json(done.gates),
    }


def _settings(wanted: IndexWanted | None) -> IndexSettings | None:
    if wanted is None:
        return None
    facts = wanted.model_dump(exclude={"int8"})
    return IndexSettings(**facts, quantize="int8" if wanted.int8 else "none")
