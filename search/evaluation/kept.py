"""Evaluations as jobs: started, kept on disk with every single answer, read, forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from search.disk.atomic import write_durably
from search.errors import BadQuestion, NoSuchItem
from search.evaluation.labelled import Cells
from search.evaluation.run import Outcome, Whole, evaluate
from search.evaluation.uploaded_sets import kind_of, read_set
from search.library.contents import content_digest
from search.library.jobs import Job, NoSuchJob, Run
from search.library.versions import now
from search.schemas.evaluations import (
    EvaluationPlan,
    EvaluationRecord,
    EvaluationResult,
    Headline,
    ItemAnswer,
    ItemAnswers,
    SetFacts,
)
from search.schemas.jobs import ENDED

if TYPE_CHECKING:
    from search.library.collection import Collection
    from search.service import Service

KIND = "evaluation"
"""Of the jobs."""
SET = "set"
"""An uploaded set, until the job has read it."""
RECORD, RESULT, ANSWERS = "evaluation.json", "result.json", "answers.parquet"
"""The files of one evaluation: what was asked and how it ended, the figures, every answer."""
MIB = 1024 * 1024


class NoSuchEvaluation(NoSuchItem):
    """An evaluation that is not known, or was forgotten."""

    def __init__(self, id: str) -> None:
        LookupError.__init__(self, f"no evaluation {id!r}; it may have been forgotten")


def start(
    service: Service, plan: EvaluationPlan, labelled: bytes | None = None
) -> EvaluationRecord:
    """Queue an evaluation.

    Args:
        service: As its caller sees it.
        plan: What is asked.
        labelled: An uploaded set: see `search.evaluation.uploaded_sets`.

    Raises:
        NoSuchCollection: as it says.
        BadSet: the set is neither a ZIP nor a shard.
        BadQuestion: `teach` names a set, and there is none.
    """
    from search.service import Service

    name = service.collection(plan.collection).name
    plan = plan.model_copy(update={"collection": name})
    facts = None if labelled is None else kind_of(labelled)
    if facts is None and plan.teach == "set":
        raise BadQuestion("teach is 'set', but no set was uploaded")
    id = uuid4().hex
    folder = _folder(service, id)
    record = EvaluationRecord(
        id=id, collection=name, plan=plan, state="queued", done=0, total=0, made=now()
    )

    def work(run: Run) -> dict[str, Any]:
        held = Service.collection(service, name)  # the job outlives the call and its caller
        uploaded = None
        if facts is not None:
            uploaded = _uploaded(service, held, facts, (folder / SET).read_bytes())
            (folder / SET).unlink()
        outcome = _run(service, held, plan, uploaded, run)
        headline = _keep(folder, record, outcome)
        return {"evaluation": id, **headline.model_dump()}

    folder.mkdir(parents=True, exist_ok=True)
    if labelled is not None:
        (folder / SET).write_bytes(labelled)
    _write(folder / RECORD, record)
    service.jobs.start(KIND, name, work, id)
    return evaluation(service, id)


def _uploaded(
    service: Service, held: Collection, facts: SetFacts, content: bytes
) -> tuple[SetFacts, Callable[[Callable[[int], None]], Cells]]:
    settings = service.settings

    def read(tell: Callable[[int], None]) -> Cells:
        return read_set(
            content,
            held.card,
            lambda: service.encoder(held),
            int(settings.max_megapixels * 1e6),
            int(settings.max_upload_mb * MIB),
            tell,
        )

    return facts, read


def _run(
    service: Service,
    held: Collection,
    plan: EvaluationPlan,
    uploaded: tuple[SetFacts, Callable[[Callable[[int], None]], Cells]] | None,
    run: Run,
) -> Outcome:
    def progress(done: int, total: int) -> None:
        run.check()
        run.progress(done, total)

    whole = Whole(
        held.name,
        held.version.id,
        held.store.count(),
        content_digest(held.folder),
        held.picture_hashes,
    )
    return evaluate(held.store, held.card, whole, plan, uploaded, progress)


def _keep(folder: Path, record: EvaluationRecord, outcome: Outcome) -> Headline:
    """Write a result; the record last, so that a result is there whole or not at all."""
    best = max(outcome.result.methods, key=lambda one: one.scores.weighted_f1)
    headline = Headline(
        method=best.method,
        weighted_f1=best.scores.weighted_f1,
        balanced_accuracy=best.scores.balanced_accuracy,
    )
    write_durably(folder / ANSWERS, _table(outcome))
    write_durably(folder / RESULT, outcome.result.model_dump_json().encode())
    changes = {
        "state": "done",
        "done": 1,
        "total": 1,
        "ended": now(),
        "headline": headline,
        "version": outcome.result.data.version,
        "content": outcome.result.data.content,
        "encoder": outcome.result.encoder.id,
    }
    _write(folder / RECORD, record.model_copy(update=changes))
    return headline


def _write(path: Path, record: EvaluationRecord) -> None:
    write_durably(path, record.model_dump_json().encode())


def _table(outcome: Outcome) -> bytes:
    names, cells = np.array(outcome.result.labels, object), outcome.cells
    parts = []
    for one in outcome.told:
        said = one.said
        truth = cells.labels[one.rows].astype(object)
        called = names[said]
        called[said < 0] = None
        parts.append(
            pa.table(
                {
                    "method": pa.array([one.method] * len(said), pa.string()),
                    "item": pa.array([cells.ids[at] for at in one.rows], pa.string()),
                    "stored": pa.array(cells.own[one.rows]),
                    "truth": pa.array(truth, pa.string()),
                    "said": pa.array(called, pa.string()),
                    "share": pa.array(one.shares.max(axis=1), pa.float64()),
                    "margin": pa.array(one.margin, pa.float64()),
                    "right": pa.array(np.asarray(called == truth, bool)),
                    "cluster": pa.array(outcome.clusters[one.rows], pa.int64()),
                }
            ).sort_by([("margin", "descending"), ("item", "ascending")])
        )
    out = BytesIO()
    pq.write_table(pa.concat_tables(parts), out, compression="zstd")
    return out.getvalue()


def evaluation(service: Service, id: str, *, whole: bool = True) -> EvaluationRecord:
    """An evaluation, as it stands.

    Args:
        service: As its caller sees it.
        id: Of the evaluation.
        whole: With its result.

    Raises:
        NoSuchEvaluation: it is not known, or on a collection that the caller may not see.
    """
    folder = _folder(service, id)
    record = _read(folder)
    if record is None or record.collection not in service.names():
        raise NoSuchEvaluation(id)
    if record.state not in ENDED:
        record = _standing(service, folder, record)
    if record.state != "done":
        return record
    held = service.collection(record.collection)
    there = (held.version.id, content_digest(held.folder))
    changes: dict[str, Any] = {"stale": (record.version, record.content) != there}
    if whole:
        content = (folder / RESULT).read_bytes()
        changes["result"] = EvaluationResult.model_validate_json(content)
    return record.model_copy(update=changes)


def evaluations(service: Service, collection: str | None = None) -> list[EvaluationRecord]:
    """Every evaluation of a collection, or of all that the caller may see, oldest first."""
    names = [service.collection(collection).name] if collection else service.names()
    found = []
    for folder in _all(service).glob("*"):
        record = _read(folder)
        if record is None or record.collection not in names:
            continue
        try:
            found.append(evaluation(service, record.id, whole=False))
        except NoSuchEvaluation:
            continue  # forgotten between the two
    return sorted(found, key=lambda one: (one.made, one.id))


def end(service: Service, id: str) -> EvaluationRecord:
    """Stop an evaluation that runs; forget one that has ended.

    Raises:
        NoSuchEvaluation: it is not known.
    """
    record = evaluation(service, id, whole=False)
    if record.state not in ENDED:
        service.jobs.stop(id)
    else:
        shutil.rmtree(_folder(service, id), ignore_errors=True)
    return record


def answers_table(service: Service, id: str, method: str) -> pa.Table:
    """Every answer of one method, the surest first: the columns of `ItemAnswer`, and `cluster`, a
    number that the items of one patient or source share.

    Raises:
        NoSuchEvaluation: it is not known.
        BadQuestion: it is not done, or has no such method.
    """
    record = evaluation(service, id, whole=False)
    if record.state != "done":
        raise BadQuestion(f"evaluation {id} is {record.state}; only one that is done has answers")
    table = pq.read_table(BytesIO((_folder(service, id) / ANSWERS).read_bytes()))
    methods = pc.unique(table["method"]).to_pylist()
    if method not in methods:
        raise BadQuestion(f"no method {method!r} in evaluation {id}; it has {', '.join(methods)}")
    return table.filter(pc.equal(table["method"], method))


def answers(
    service: Service,
    id: str,
    method: str,
    truth: str | None = None,
    said: str | None = None,
    right: bool | None = None,
    unanswered: bool | None = None,
    limit: int = 100,
    offset: int = 0,
) -> ItemAnswers:
    """What single items were called by one method, the surest first.

    Args:
        service: As its caller sees it.
        id: Of the evaluation.
        method: As its result names it.
        truth: Only items of this label.
        said: Only items that were called this.
        right: Only right, or only wrong answers.
        unanswered: Only items without an answer, or only those with one.
        limit: At most so many.
        offset: So many are left out at the start.

    Raises:
        NoSuchEvaluation: it is not known.
        BadQuestion: it is not done, or has no such method.
    """
    table = answers_table(service, id, method)
    for column, value in (("truth", truth), ("said", said), ("right", right)):
        if value is not None:
            table = table.filter(pc.fill_null(pc.equal(table[column], value), False))
    if unanswered is not None:
        silent = pc.is_null(table["said"])
        table = table.filter(silent if unanswered else pc.invert(silent))
    rows = table.select(list(ItemAnswer.model_fields)).slice(offset, limit).to_pylist()
    return ItemAnswers(
        method=method, total=table.num_rows, answers=tuple(ItemAnswer(**row) for row in rows)
    )


def _standing(service: Service, folder: Path, record: EvaluationRecord) -> EvaluationRecord:
    """A record that has not ended, with what its job says; its end is written down."""
    try:
        job = service.jobs.get(record.id)
    except NoSuchJob:
        job = Job(id=record.id, kind=KIND, collection=record.collection, state="interrupted")
    if job.state == "done":
        return _read(folder) or record
    changes = {"state": job.state, "done": job.done, "total": job.total}
    record = record.model_copy(update={**changes, "ended": job.ended, "error": job.error})
    if job.state in ENDED:
        (folder / SET).unlink(missing_ok=True)
        _write(folder / RECORD, record)
    return record


def _all(service: Service) -> Path:
    return service.library.folder / "evaluations"


def _folder(service: Service, id: str) -> Path:
    try:
        return _all(service) / UUID(hex=id).hex
    except ValueError:
        raise NoSuchEvaluation(id) from None


def _read(folder: Path) -> EvaluationRecord | None:
    try:
        return EvaluationRecord.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None  # forgotten, or written by another version
