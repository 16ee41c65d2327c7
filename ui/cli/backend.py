"""Where the terminal's answers come from: the running service, or the library opened here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from search.client.client import Client
    from search.library.jobs import Job
    from search.query.context import Context
    from search.schemas.answers import Answer, VoteAnswer
    from search.schemas.calibration import Calibration, CalibrationPlan
    from search.schemas.cases import (
        CaseAnswer,
        CaseFacts,
        CaseQuestion,
        CaseRecordsPage,
        CaseRecordsQuestion,
        CaseRecordsWanted,
        CaseRecordsWritten,
    )
    from search.schemas.evaluations import EvaluationPlan, EvaluationRecord
    from search.schemas.exports import ExportWanted
    from search.schemas.mil import MilAnswer, MilModel, MilPlan, MilQuestion
    from search.schemas.questions import BagField, Question, Weighting
    from search.service import Service
    from search.settings import Settings


class Local:
    """A library that is opened in this process, with the methods of the client."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def search(self, question: Question, image: bytes | None = None) -> Answer:
        """The neighbours of a query."""
        from search.query.answer import answer

        context = self.service.context(question.collection)
        return answer(context, question, image, self._beside(question))

    refine = search

    def vote(
        self,
        question: Question,
        image: bytes | None = None,
        weighting: Weighting = "similarity",
        temperature: float = 0.07,
    ) -> VoteAnswer:
        """The label that the neighbours carry."""
        from search.query.answer import answer_with_vote

        context = self.service.context(question.collection)
        beside = self._beside(question)
        return answer_with_vote(context, question, image, weighting, temperature, beside)

    def _beside(self, question: Question) -> Context | None:
        name = question.fuse_with
        return None if name is None else self.service.context(name)

    def similar_cases(self, question: CaseQuestion) -> CaseAnswer:
        """The cases whose cells look like the cells of one."""
        from search.cases.similar import similar_cases

        return similar_cases(self.service.context(question.collection), question)

    def change_cases(self, collection: str, wanted: CaseRecordsWanted) -> CaseRecordsWritten:
        """Add or correct what is known of cases: all of it, or nothing."""
        from search.cases.records import change

        return change(self.service.context(collection).collection, wanted, "terminal")

    def case_records(
        self, collection: str, question: CaseRecordsQuestion | None = None
    ) -> CaseRecordsPage:
        """A page of the records of cases, in order of name."""
        from search.cases.records import page
        from search.schemas.cases import CaseRecordsQuestion

        opened = self.service.context(collection).collection
        return page(opened, question or CaseRecordsQuestion())

    def case(self, value: str, collection: str, by: BagField = "case") -> CaseFacts:
        """What there is of a case."""
        from search.cases.similar import case_facts

        return case_facts(self.service.context(collection).collection, by, value)

    def trained_model(
        self, name: str, plan: MilPlan, progress: Callable[[Job], None] = lambda job: None
    ) -> MilModel:
        """Train a case model and keep it."""
        from search.library.jobs import Job
        from train.mil.run import train

        collection = self.service.context(name).collection

        def report(done: int, total: int) -> None:
            progress(Job(id="", kind="mil", collection=collection.name, done=done, total=total))

        return self.service.models.keep(train(collection, plan, report))

    def models(self, collection: str) -> list[MilModel]:
        """The case models of a collection, oldest first."""
        return self.service.models.all(collection)

    def forget_model(self, collection: str, id: str) -> MilModel:
        """Delete a case model."""
        return self.service.models.forget(id, collection)

    def predict_case(
        self, collection: str, question: MilQuestion, images: Sequence[bytes] = ()
    ) -> MilAnswer:
        """Apply a case model to a case."""
        from search.mil.predict import predict

        trained = self.service.models.open(question.model, collection)
        return predict(self.service.context(collection), trained, question, images)

    def predict_fields(
        self, collection: str, question: MilQuestion, fields: Sequence[bytes]
    ) -> MilAnswer:
        """Apply a case model to smear fields of one case."""
        from ingest.routes.case_models import of_fields

        trained = self.service.models.open(question.model, collection)
        return of_fields(self.service.context(collection), trained, question, fields)

    def predict_slide(self, collection: str, question: MilQuestion, slide: bytes) -> MilAnswer:
        """Apply a case model to a slide."""
        from ingest.routes.case_slides import of_slide

        trained = self.service.models.open(question.model, collection)
        return of_slide(self.service.context(collection), trained, question, slide)

    def calibrate(self, plan: CalibrationPlan, collection: str) -> Calibration:
        """Fit the calibration of a collection."""
        return self.service.context(collection).calibrate(plan)

    def calibration(self, collection: str) -> tuple[Calibration, bool]:
        """The calibration of a collection, and whether it is stale."""
        return self.service.context(collection).fitted()

    def evaluate(self, plan: EvaluationPlan, labelled: Path | None = None) -> EvaluationRecord:
        """Queue an evaluation of a collection, or of a labelled set (a ZIP or a shard)."""
        content = None if labelled is None else labelled.read_bytes()
        return self.service.evaluations.start(self.service.context(plan.collection), plan, content)

    def export(self, collection: str, wanted: ExportWanted) -> tuple[str, bytes]:
        """Items with their vectors as a file: its name and its bytes."""
        from search.exports.files import export, opener
        from search.exports.rows import rows_of
        from search.library.source_folders import SourceFolders

        held = self.service.context(collection).collection
        folders = SourceFolders.of(self.service.settings)
        made = export(rows_of(held, wanted, None), wanted.format, opener(held, folders))
        return made.name, made.content

    def evaluation(self, id: str) -> EvaluationRecord:
        """An evaluation, as it stands; with its result where it is done."""
        return self.service.evaluations.get(id)


def answers(settings: Settings) -> bool:
    """Whether a service answers where the settings say one is."""
    from search.client.client import Client
    from search.client.transport import ServiceDown, ServiceError

    with Client(settings.url, timeout=5) as client:
        try:
            client.health()
        except ServiceDown:
            return False
        except ServiceError:  # it refuses, so it is there
            pass
    return True


def running_service(settings: Settings) -> Client | None:
    """A client of the service that owns the library, if one does and answers."""
    url = settings.service_url
    note = settings.library / "service.json"
    if not url and note.exists():
        try:
            url = json.loads(note.read_text())["url"]
        except (ValueError, KeyError, TypeError):
            return None  # the note is rewritten by the next service
    if not url:
        return None
    from search.client.client import Client
    from search.client.transport import ServiceDown

    key = settings.api_key
    client = Client(url, key.get_secret_value() if key else None)
    try:
        client.health()
    except ServiceDown:
        client.close()
        if settings.service_url:
            raise
        return None
    return client


@contextmanager
def serving(settings: Settings) -> Iterator[Client | Local]:
    """The running service if there is one; else the library, opened for as long as needed."""
    client = running_service(settings)
    if client is not None:
        with client:
            yield client
        return
    from search.service import Service

    with closing(Service.open(settings)) as service:
        yield Local(service)
