"""Routes of the versions of a collection, of removals, and of the jobs that build versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Query, Response

from encoder.registry import load
from search.adaptation.run import AdaptPlan, adapt
from search.api.access import Access, Admins, Lists, Reads, Writes, api_router
from search.api.problems import without_names
from search.index.contract import IndexSettings
from search.library.jobs import Job, Run
from search.library.library import Library
from search.maintenance.checks import as_json
from search.maintenance.reconcile import reconcile
from search.maintenance.reindex import Reindexed, ReindexPlan, reindex
from search.maintenance.rollback import list_versions, prune, rollback
from search.schemas.versions import (
    AdaptWanted,
    GateFacts,
    IndexWanted,
    JobRecord,
    Pruned,
    ReconcileRecord,
    ReindexWanted,
    Removed,
    RemoveWanted,
    RollbackWanted,
    SwitchRecord,
    VersionRecord,
)

LISTED = 1000
"""Ids that an answer names; the count is always the whole."""


STARTED: dict[str, Any] = {
    "status_code": 202,
    "responses": {202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
}
"""How a route answers that starts a job."""
router = api_router()


@router.get("/collections/{name}/versions")
def versions(name: str, access: Reads) -> list[VersionRecord]:
    """Every version of a collection, oldest first, with the figures of its checks."""
    found = list_versions(*access.library(name))
    return [
        VersionRecord(
            **{key: value for key, value in vars(one).items() if key != "report"},
            gates=tuple(GateFacts(**gate) for gate in one.report.get("gates", [])),
        )
        for one in found
    ]


@router.get("/collections/{name}/card")
def card(name: str, access: Reads) -> dict[str, Any]:
    """The card of the encoder that made what is served: everything that changes its vectors."""
    facts: dict[str, Any] = json.loads(access.context(name).collection.card.to_json())
    return facts


@router.post("/collections/{name}/reindex", **STARTED)
def start_reindex(
    name: str, wanted: ReindexWanted, access: Admins, response: Response
) -> JobRecord:
    """Build a version with another encoder beside the one that serves; a job.

    It serves once its checks pass. Started again after an interruption, it resumes there.
    """

    def build(library: Library, called: str, **how: Any) -> Reindexed:
        encoder = load(wanted.encoder, device=access.settings.device)
        plan = ReindexPlan(
            index=_settings(wanted.index), allow_missing=wanted.allow_missing, force=wanted.force
        )
        return reindex(library, called, encoder, reference=wanted.encoder, plan=plan, **how)

    return _built(access, "reindex", name, build, response)


@router.post("/collections/{name}/adapt", **STARTED)
def start_adapt(name: str, wanted: AdaptWanted, access: Admins, response: Response) -> JobRecord:
    """Fit a transform on the stored vectors and build a version with it; a job.

    Nothing is embedded again. It switches when its checks pass, among them scores on sites (else
    patients, else sources) that the transform was not fitted on.
    """

    def build(library: Library, called: str, **how: Any) -> Reindexed:
        encoder = load(library.reference(called), device=access.settings.device)
        plan = AdaptPlan(kind=wanted.kind, field=wanted.field, force=wanted.force)
        return adapt(library, called, encoder, plan, **how)

    return _built(access, "adapt", name, build, response)


@router.post("/collections/{name}/rollback")
def roll_back(name: str, wanted: RollbackWanted, access: Admins) -> SwitchRecord:
    """Serve the version that was served before, or another one; atomic."""
    library, called = access.library(name)
    done = rollback(library, called, wanted.version, force=wanted.force)
    access.follow(called)
    return SwitchRecord(
        **{key: value for key, value in vars(done).items() if key != "lacking"},
        lacking=len(done.lacking),
        lacking_ids=done.lacking[:LISTED],
    )


@router.post("/collections/{name}/prune")
def prune_versions(
    name: str,
    access: Admins,
    keep: Annotated[int, Query(ge=0, le=1000)] = 1,
    unfinished: bool = False,
) -> Pruned:
    """Delete old versions for good; the one that answers, and those that did last, stay."""
    library, called = access.library(name)
    access.follow(called)  # after a switch elsewhere, this service may still have the old one open
    done = prune(library, called, keep, unfinished=unfinished)
    return Pruned(pruned=tuple(done))


@router.post("/collections/{name}/reconcile")
def reconcile_index(name: str, access: Admins, mend: bool = True) -> ReconcileRecord:
    """Compare the index with the shards, item by item, and mend it where they differ."""
    return reconcile(access.context(name).collection, mend=mend)


@router.post("/collections/{name}/items/remove")
def remove_items(name: str, wanted: RemoveWanted, access: Writes) -> Removed:
    """Remove items for good; ids that are not there are no error."""
    removed = access.context(name).collection.remove(wanted.ids)
    access.note(written=removed)
    return Removed(removed=removed)


@router.get("/jobs")
def jobs(access: Lists) -> list[JobRecord]:
    """The jobs on collections that the caller may read, oldest first."""
    return [job_record(job) for job in access.jobs()]


@router.get("/jobs/{id}")
def job(id: str, access: Reads) -> JobRecord:
    """A job, as it stands."""
    return job_record(access.job(id))


@router.delete("/jobs/{id}")
def stop_job(id: str, access: Admins) -> JobRecord:
    """Cancel a job; what it has built stays, and the same call resumes there."""
    return job_record(access.cancel(id))


def started(
    access: Access,
    kind: str,
    collection: str,
    work: Callable[[Run], Mapping[str, Any]],
    response: Response,
) -> JobRecord:
    """Start a job; the header `Location` is set to where its state is read."""
    job = access.start(kind, collection, work)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_record(job)


def job_record(job: Job) -> JobRecord:
    """A job, as it is answered: its error without paths of the server."""
    facts = asdict(job)
    return JobRecord(**facts | {"error": job.error and without_names(job.error)})


def _built(
    access: Access, kind: str, name: str, build: Callable[..., Reindexed], response: Response
) -> JobRecord:
    """Start the job that builds a version; its result names no files."""
    library, called = access.library(name)  # a job must not keep the version open that it replaces
    read_pixels = access.context(name).read_pixels

    def work(run: Run) -> dict[str, Any]:
        done = build(library, called, read_pixels=read_pixels, progress=run.progress, stop=run.stop)
        if done.switched:
            access.follow(called)
        left_out = ("checks", "built", "missing")
        facts = {key: value for key, value in vars(done).items() if key not in left_out}
        return facts | {
            "missing": len(done.missing),
            "missing_ids": [one.id for one in done.missing[:LISTED]],
            "refused_by": list(done.refused_by),
            "gates": as_json(done.checks),
        }

    return started(access, kind, called, work, response)


def _settings(wanted: IndexWanted | None) -> IndexSettings | None:
    if wanted is None:
        return None
    facts = wanted.model_dump(exclude={"int8"})
    return IndexSettings(**facts, quantize="int8" if wanted.int8 else "none")
