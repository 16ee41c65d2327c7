"""The client's calls about case models, patients over time, and groups of cases."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from search.client.transport import ServiceError, Transport
from search.schemas.cases import GroupsAnswer, GroupsQuestion, Timeline
from search.schemas.mil import MilAnswer, MilModel, MilPlan, MilQuestion
from search.schemas.versions import ENDED, JobRecord

FIELD_S = 300
"""Seconds that the cells of one field may take."""
SLIDE_S = 1800
"""And the tiles of a slide."""


class ModelCalls(Transport):
    """Part of `search.client.client.Client`."""

    def train_model(self, collection: str, plan: MilPlan) -> JobRecord:
        """Queue the training of a case model; the job's result is its card."""
        return self._post(JobRecord, f"/v1/collections/{collection}/mil/models", plan)

    def trained_model(
        self,
        collection: str,
        plan: MilPlan,
        progress: Callable[[JobRecord], None] = lambda job: None,
        every_s: float = 0.5,
    ) -> MilModel:
        """Train a case model and wait for it.

        Args:
            collection: Whose cases.
            plan: How.
            progress: Told the job each time that it has not ended.
            every_s: Seconds between two looks.

        Raises:
            ServiceError: the training failed; the message says why.
        """
        job = self.train_model(collection, plan)
        while job.state not in ENDED:
            progress(job)
            time.sleep(every_s)
            job = self._get(JobRecord, f"/v1/jobs/{job.id}")
        if job.result is None:
            raise ServiceError(422, f"the training {job.state}", job.error or "")
        return MilModel.model_validate(job.result)

    def models(self, collection: str) -> list[MilModel]:
        """The case models of a collection, oldest first."""
        return self._list(MilModel, f"/v1/collections/{collection}/mil/models")

    def model(self, collection: str, id: str) -> MilModel:
        """The card of a case model."""
        return self._get(MilModel, f"/v1/collections/{collection}/mil/models/{id}")

    def forget_model(self, collection: str, id: str) -> MilModel:
        """Delete a case model for good."""
        path = f"/v1/collections/{collection}/mil/models/{id}"
        return MilModel.model_validate_json(self._call("DELETE", path).content)

    def predict_case(
        self, collection: str, question: MilQuestion, images: Sequence[bytes | Path] = ()
    ) -> MilAnswer:
        """Apply a case model to a stored case, or to uploaded cells."""
        files = [("images", image) for image in images]
        return self._post(MilAnswer, f"/v1/collections/{collection}/mil/predict", question, files)

    def predict_fields(
        self, collection: str, question: MilQuestion, fields: Sequence[bytes | Path]
    ) -> MilAnswer:
        """Apply a case model to smear fields of one case, whose cells are found."""
        path = f"/v1/collections/{collection}/mil/predict/fields"
        files = [("fields", field) for field in fields]
        return self._post(MilAnswer, path, question, files, timeout=FIELD_S * len(fields))

    def predict_slide(
        self, collection: str, question: MilQuestion, slide: bytes | Path
    ) -> MilAnswer:
        """Apply a case model to a slide, which is cut into tiles as those of the collection."""
        path = f"/v1/collections/{collection}/mil/predict/slide"
        return self._post(MilAnswer, path, question, [("slide", slide)], timeout=SLIDE_S)

    def timeline(self, collection: str, patient: str) -> Timeline:
        """The cases of one patient in order of date."""
        path = f"/v1/collections/{collection}/timeline"
        return self._get(Timeline, path, params={"patient": patient})

    def compare_groups(self, collection: str, question: GroupsQuestion) -> GroupsAnswer:
        """How two groups of cases differ in their kinds of cells."""
        return self._post(GroupsAnswer, f"/v1/collections/{collection}/cases/groups", question)
