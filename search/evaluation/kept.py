"""Evaluations: run as jobs, kept on disk with every single answer, read, and forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from search.disk.atomic import write_durably
from search.disk.space import need_room
from search.errors import BadQuestion, Busy, NoSuchCollection, NoSuchItem
from search.evaluation.cases import evaluate_cases
from search.evaluation.labelled import Cells
from search.evaluation.run import Outcome, Whole, evaluate
from search.evaluation.uploaded_sets import kind_of, read_set
from search.library.contents import content_digest
from search.library.jobs import Job, Jobs, NoSuchJob, Run
from search.library.reviews import labels_digest
from search.library.versions import now
from search.neighbours.groups import patients_digest
from search.query.context import Context
from search.schemas.cases import CasePlan
from search.schemas.evaluations import (
    CaseEvaluation,
    EvaluationPlan,
    EvaluationRecord,
    EvaluationResult,
    Headline,
    ItemAnswer,
    ItemAnswers,
    SetFacts,
)
from search.schemas.versions import ENDED
from search.security.keys import Forbidden

KIND = "evaluation"
"""Of the jobs."""
SET = "set"
"""What the file of an uploaded set is called, until the job has read it; then who sent it."""
RECORD, RESULT, ANSWERS = "evaluation.json", "result.json", "answers.parquet"
"""The files of one evaluation: its plan and how it ended, the figures, every answer."""
MIB = 1024 * 1024
WAITING_SETS = 4
"""Sets of the largest size that may wait on disk together; half of that of one caller."""


class NoSuchEvaluation(NoSuchItem):
    """An evaluation that is not known, or was forgotten."""

    def __init__(self, id: str) -> None:
        LookupError.__init__(self, f"no evaluation {id!r}; it may have been forgotten")


Uploaded = tuple[SetFacts, Callable[[Callable[[int], None]], Cells]]
"""An uploaded set, and what reads it; the callback is given the number of cells read so far."""


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of one service: each a folder, and a job until it has ended."""

    folder: Path
    """Where they are kept."""
    jobs: Jobs
    """What runs them."""
    open_context: Callable[[str], Context]
    """Opens a collection by name. An evaluation of one that it refuses is not seen."""

    def start(
        self,
        context: Context,
        plan: EvaluationPlan,
        labelled: bytes | None = None,
        caller: str = "",
    ) -> EvaluationRecord:
        """Queue an evaluation.

        Args:
            context: Of the collection that is evaluated.
            plan: How.
            labelled: An uploaded set: see `search.evaluation.uploaded_sets`.
            caller: Who asks: one caller's sets may take half of the room.

        Raises:
            DiskTrouble, Busy: there is no room for the set.
            BadSet: the set is neither a ZIP nor a shard.
            BadQuestion: `teach` names a set, and there is none.
        """
        name = context.collection.name
        plan = plan.model_copy(update={"collection": name})
        facts = None if labelled is None else kind_of(labelled)
        if facts is None and plan.teach == "set":
            raise BadQuestion("teach is 'set', but no set was uploaded")
        id = uuid4().hex
        folder = self._of(id)
        kept = folder / f"{SET}-{sha256(caller.encode()).hexdigest()[:16]}"
        record = EvaluationRecord(
            id=id, collection=name, plan=plan, state="queued", done=0, total=0, made=now()
        )

        def work(run: Run) -> dict[str, Any]:
            context = self.open_context(name)  # the version that serves when the job begins
            noted = record.model_copy(
                update={"reviews": _reviews(context, plan), "records": _records(context, plan)}
            )
            if plan.cases is not None:
                return {"evaluation": id, **_keep_cases(folder, noted, context, run)}
            uploaded = None
            if facts is not None:
                uploaded = _uploaded(context, facts, kept.read_bytes())
                kept.unlink()
            headline = _keep(folder, noted, _run(context, plan, uploaded, run))
            return {"evaluation": id, **headline.model_dump()}

        self._need_room(context, len(labelled or b""), kept.name)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / RECORD, record)
        if labelled is not None:
            write_durably(kept, labelled)
        self.jobs.start(KIND, name, work, id)
        return self.get(id)

    def _need_room(self, context: Context, size: int, own: str) -> None:
        """Refuse a set where the disk, or what waits already, leaves no room for it.

        Raises:
            DiskTrouble: the disk; Busy: sets that were sent before wait to be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        need_room(self.folder, size)
        most = WAITING_SETS * context.settings.max_shard_mb * MIB
        for pattern, share in ((f"{SET}*", most), (own, most / 2)):
            waiting = sum(path.stat().st_size for path in self.folder.glob(f"*/{pattern}"))
            if size and waiting + size > share:
                raise Busy

    def sweep(self) -> None:
        """Remove what calls and jobs that were killed left behind."""
        for folder in self.folder.glob("*"):
            if not (folder / RECORD).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _drop_set(folder)  # its job ended with the process

    def get(self, id: str, *, whole: bool = True) -> EvaluationRecord:
        """An evaluation as it stands; with its result if it is done and `whole`.

        Raises:
            NoSuchEvaluation: it is not known, or its collection is gone or out of reach.
        """
        folder = self._of(id)
        record = _read(folder)
        if record is None:
            raise NoSuchEvaluation(id)
        try:
            context = self.open_context(record.collection)
        except (NoSuchCollection, Forbidden):
            raise NoSuchEvaluation(id) from None
        if record.state not in ENDED:
            record = self._running(folder, record)
        if record.state != "done":
            return record
        collection = context.collection
        current = (
            collection.version.id,
            content_digest(collection.folder),
            _reviews(context, record.plan),
            _records(context, record.plan),
        )
        then = (record.version, record.content, record.reviews, record.records)
        changes: dict[str, Any] = {"stale": then != current}
        if whole:
            content = (folder / RESULT).read_bytes()
            if record.plan.cases is not None:
                changes["cases"] = CaseEvaluation.model_validate_json(content)
            else:
                changes["result"] = EvaluationResult.model_validate_json(content)
        return record.model_copy(update=changes)

    def all(self, collection: str | None = None) -> list[EvaluationRecord]:
        """Those of one collection or of every one, oldest first, without their results."""
        found = []
        for folder in self.folder.glob("*"):
            record = _read(folder)
            if record is None or collection not in (None, record.collection):
                continue
            try:
                found.append(self.get(record.id, whole=False))
            except NoSuchEvaluation:
                continue  # out of reach, or forgotten between the two
        return sorted(found, key=lambda one: (one.made, one.id))

    def waiting(self) -> int:
        """How many have not ended, on any collection."""
        return sum(job.kind == KIND and job.state not in ENDED for job in self.jobs.all())

    def end(self, id: str) -> EvaluationRecord:
        """Cancel an evaluation that runs; forget one that has ended.

        Raises:
            NoSuchEvaluation: it is not known.
        """
        record = self.get(id, whole=False)
        if record.state not in ENDED:
            self.jobs.stop(id)
        else:
            shutil.rmtree(self._of(id), ignore_errors=True)
        return record

    def table(self, id: str, method: str) -> pa.Table:
        """Every answer of one method, the surest first: the columns of `ItemAnswer`, and
        `cluster`, a number that the items of one patient or source share.

        Raises:
            NoSuchEvaluation: it is not known.
            BadQuestion: it is not done, or has no such method.
        """
        state = self.get(id, whole=False).state
        if state != "done":
            raise BadQuestion(f"evaluation {id} is {state}; only one that is done has answers")
        if not (self._of(id) / ANSWERS).exists():
            raise BadQuestion(f"evaluation {id} is of cases; it has no answers for single items")
        table = pq.read_table(BytesIO((self._of(id) / ANSWERS).read_bytes()))
        methods = pc.unique(table["method"]).to_pylist()
        if method not in methods:
            raise BadQuestion(
                f"no method {method!r} in evaluation {id}; it has {', '.join(methods)}"
            )
        return table.filter(pc.equal(table["method"], method))

    def _running(self, folder: Path, record: EvaluationRecord) -> EvaluationRecord:
        """A record that has not ended, with the state of its job; an end is written down."""
        try:
            job = self.jobs.get(record.id)
        except NoSuchJob:
            job = Job(id=record.id, kind=KIND, collection=record.collection, state="interrupted")
        if job.state == "done":
            return _read(folder) or record
        changes = {"state": job.state, "done": job.done, "total": job.total}
        record = record.model_copy(update={**changes, "ended": job.ended, "error": job.error})
        if job.state in ENDED:
            _drop_set(folder)
            _write(folder / RECORD, record)
        return record

    def _of(self, id: str) -> Path:
        try:
            return self.folder / UUID(hex=id).hex
        except ValueError:
            raise NoSuchEvaluation(id) from None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Which answers of an evaluation are listed; `None` for any."""

    truth: str | None = None
    """Only items with this label."""
    said: str | None = None
    """Only items that were given this label."""
    right: bool | None = None
    """Only right, or only wrong answers."""
    unanswered: bool | None = None
    """Only items without an answer, or only those with one."""
    limit: int = 100
    """At most so many."""
    offset: int = 0
    """So many are skipped first."""


def answers(table: pa.Table, method: str, conditions: Conditions) -> ItemAnswers:
    """The answers of one method that meet some conditions, the surest first.

    Args:
        table: Of `Evaluations.table`.
        method: Which it is of.
        conditions: Which are listed.
    """
    for column in ("truth", "said", "right"):
        value = getattr(conditions, column)
        if value is not None:
            table = table.filter(pc.fill_null(pc.equal(table[column], value), False))
    if conditions.unanswered is not None:
        unanswered = pc.is_null(table["said"])
        table = table.filter(unanswered if conditions.unanswered else pc.invert(unanswered))
    page = table.select(list(ItemAnswer.model_fields)).slice(conditions.offset, conditions.limit)
    return ItemAnswers(
        method=method,
        total=table.num_rows,
        answers=tuple(ItemAnswer(**row) for row in page.to_pylist()),
    )


def _uploaded(context: Context, facts: SetFacts, content: bytes) -> Uploaded:
    def read(progress: Callable[[int], None]) -> Cells:
        return read_set(
            content,
            context.collection,
            context.encoder,
            context.pictures,
            int(context.settings.max_upload_mb * MIB),
            progress,
        )

    return facts, read


def _reviews(context: Context, plan: EvaluationPlan) -> str | None:
    """Digest of the reviewers' labels that an evaluation counts; one of cases counts none."""
    return None if plan.cases is not None else labels_digest(context.reviewed(plan.labels))


def _records(context: Context, plan: EvaluationPlan) -> str | None:
    """Digest of what the records of cases say that an evaluation counts."""
    if plan.cases is None:
        return patients_digest(context.patients())
    return context.collection.cases.digest()


def _run(context: Context, plan: EvaluationPlan, uploaded: Uploaded | None, run: Run) -> Outcome:
    collection = context.collection
    whole = Whole(
        collection.name,
        collection.version.id,
        collection.store.count(),
        content_digest(collection.folder),
        collection.rows.picture_hashes,
        context.reviewed(plan.labels),
        context.patients(),
    )
    return evaluate(collection.store, collection.card, whole, plan, uploaded, run.checked_progress)


def _keep(folder: Path, record: EvaluationRecord, outcome: Outcome) -> Headline:
    """Write a result; the record last, so that a result is there whole or not at all."""
    methods = outcome.result.methods
    votes = [one for one in methods if one.k is not None]  # a search answers by votes
    best = max(votes or methods, key=lambda one: one.scores.weighted_f1)
    headline = Headline(
        method=best.method,
        weighted_f1=best.scores.weighted_f1,
        balanced_accuracy=best.scores.balanced_accuracy,
    )
    write_durably(folder / ANSWERS, _table(outcome))
    write_durably(folder / RESULT, outcome.result.model_dump_json().encode())
    data = outcome.result.data
    facts = {"version": data.version, "content": data.content, "headline": headline}
    _done(folder, record, encoder=outcome.result.encoder.id, **facts)
    return headline


def _done(folder: Path, record: EvaluationRecord, **facts: Any) -> None:
    ended = {"state": "done", "done": 1, "total": 1, "ended": now(), **facts}
    _write(folder / RECORD, record.model_copy(update=ended))


def _keep_cases(
    folder: Path, record: EvaluationRecord, context: Context, run: Run
) -> dict[str, Any]:
    """Evaluate cases, and write the result as `_keep` does."""
    plan, collection = record.plan, context.collection
    content = content_digest(collection.folder)
    found = evaluate_cases(
        context, plan.cases or CasePlan(), plan.resamples, plan.seed, run.checked_progress
    )
    write_durably(folder / RESULT, found.model_dump_json().encode())
    facts = {"version": collection.version.id, "encoder": collection.card.id}
    _done(folder, record, content=content, **facts)
    best = max(found.scores, key=lambda one: one.map)
    return {"distance": best.distance, "map": best.map, "vote": best.vote}


def _drop_set(folder: Path) -> None:
    for path in folder.glob(f"{SET}*"):
        path.unlink(missing_ok=True)


def _write(path: Path, record: EvaluationRecord) -> None:
    write_durably(path, record.model_dump_json().encode())


def _table(outcome: Outcome) -> bytes:
    names, cells = np.array(outcome.result.labels, object), outcome.cells
    parts = []
    for one in outcome.predictions:
        predicted = one.labels
        truth = cells.labels[one.rows].astype(object)
        called = names[predicted]
        called[predicted < 0] = None
        parts.append(
            pa.table(
                {
                    "method": pa.array([one.method] * len(predicted), pa.string()),
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


def _read(folder: Path) -> EvaluationRecord | None:
    try:
        return EvaluationRecord.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None  # forgotten, or written by another version
