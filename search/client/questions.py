"""The client's calls for searches, votes, explanations, cases, calibration and counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from search.client.transport import Transport, given
from search.schemas.answers import Answer, VoteAnswer
from search.schemas.calibration import Calibration, CalibrationFacts, CalibrationPlan
from search.schemas.cases import (
    CaseAnswer,
    CaseCount,
    CaseFacts,
    CaseQuestion,
    CaseRecordsPage,
    CaseRecordsQuestion,
    CaseRecordsWanted,
    CaseRecordsWritten,
    CountQuestion,
)
from search.schemas.cells import Field, FoundCells, JudgedField
from search.schemas.collections import Facets
from search.schemas.explanations import ExplainQuestion, Explanation
from search.schemas.filters import Filter
from search.schemas.items import Keyword
from search.schemas.questions import BagField, Question, Refinement, Weighting

CALIBRATION_S = 1800
"""Seconds that fitting a calibration may take."""
FIELD_S = 300
"""Seconds that judging a large field may take."""
COUNT_S = 300
"""Seconds that the count of a large case may take."""


class QuestionCalls(Transport):
    """Part of `search.client.client.Client`."""

    def search(self, question: Question, image: bytes | Path | None = None) -> Answer:
        """Neighbours of an image, a stored item or a vector."""
        return self._post(Answer, "/v1/search", question, _image(image))

    def similar(
        self, item: str, k: int = 10, where: Filter | None = None, collection: str | None = None
    ) -> Answer:
        """Neighbours of a stored item: the shortest way to search."""
        return self.search(Question(item=item, k=k, where=where or Filter(), collection=collection))

    def refine(self, refinement: Refinement, image: bytes | Path | None = None) -> Answer:
        """More like these, less like those, or by a region of the uploaded image."""
        return self._post(Answer, "/v1/refine", refinement, _image(image))

    def vote(
        self,
        question: Question,
        image: bytes | Path | None = None,
        weighting: Weighting = "similarity",
        temperature: float = 0.07,
    ) -> VoteAnswer:
        """The label that the neighbours carry."""
        params = {"weighting": weighting, "temperature": temperature}
        return self._post(VoteAnswer, "/v1/vote", question, _image(image), params=params)

    def explain(self, question: ExplainQuestion, image: bytes | Path | None = None) -> Explanation:
        """Why some stored items are near a query."""
        return self._post(Explanation, "/v1/explain", question, _image(image))

    def find_cells(
        self, image: bytes | Path, um_per_px: float | None = None, most: int = 500
    ) -> FoundCells:
        """The cells of a smear field, at most `most`."""
        field = Field(um_per_px=um_per_px)
        return self._post(FoundCells, "/v1/cells", field, _image(image), params={"most": most})

    def judge_field(self, question: Question, image: bytes | Path) -> JudgedField:
        """Every white cell of a smear field with its vote, and the differential count."""
        return self._post(JudgedField, "/v1/fields", question, _image(image), timeout=FIELD_S)

    def similar_cases(
        self, question: CaseQuestion, images: Sequence[bytes | Path] = ()
    ) -> CaseAnswer:
        """The cases whose cells look like the cells of one."""
        files = [("images", image) for image in images]
        return self._post(CaseAnswer, "/v1/cases/similar", question, files)

    def case(self, value: str, collection: str | None = None, by: BagField = "case") -> CaseFacts:
        """What there is of a case, a slide or a patient."""
        path = f"/v1/cases/{quote(value, safe='')}"
        return self._get(CaseFacts, path, params=given(by=by, collection=collection))

    def change_cases(self, collection: str, wanted: CaseRecordsWanted) -> CaseRecordsWritten:
        """Add or correct what is known of cases beside their cells: all of it, or nothing."""
        path = f"/v1/collections/{collection}/cases/records"
        return self._post(CaseRecordsWritten, path, wanted, timeout=COUNT_S)

    def case_records(
        self, collection: str, question: CaseRecordsQuestion | None = None
    ) -> CaseRecordsPage:
        """A page of the records of cases, in order of name."""
        path = f"/v1/collections/{collection}/cases/records/page"
        return self._post(CaseRecordsPage, path, question or CaseRecordsQuestion())

    def count_case(self, collection: str, question: CountQuestion) -> CaseCount:
        """The differential count of a case by its source, by reviewers and by neighbours."""
        path = f"/v1/collections/{collection}/cases/count"
        return self._post(CaseCount, path, question, timeout=COUNT_S)

    def calibrate(self, plan: CalibrationPlan | None, collection: str) -> Calibration:
        """Fit the calibration of a collection."""
        path = f"/v1/collections/{collection}/calibration"
        plan = plan or CalibrationPlan()
        return self._post(CalibrationFacts, path, plan, timeout=CALIBRATION_S).calibration

    def calibration(self, collection: str) -> tuple[Calibration, bool]:
        """The calibration of a collection, and whether it is stale."""
        found = self._get(CalibrationFacts, f"/v1/collections/{collection}/calibration")
        return found.calibration, found.stale

    def facet(
        self, field: Keyword, where: Filter, collection: str, limit: int = 100
    ) -> dict[str, int]:
        """Values of a field among the items that meet a filter, with their counts."""
        path = f"/v1/collections/{collection}/facets/{field}"
        return self._post(Facets, path, where, params={"limit": limit}).values


def _image(image: bytes | Path | None) -> list[tuple[str, bytes | Path]]:
    return [] if image is None else [("image", image)]
