"""The client's calls about evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.client.transport import Transport, given
from search.schemas.evaluations import EvaluationPlan, EvaluationRecord, ItemAnswers, PairedResult

UPLOAD_S = 600
"""Seconds that sending a labelled set may take."""


class EvaluationCalls(Transport):
    """Part of `search.client.client.Client`."""

    def evaluate(
        self, plan: EvaluationPlan | None = None, labelled: bytes | Path | None = None
    ) -> EvaluationRecord:
        """Queue an evaluation of a collection, or of a labelled set (a ZIP or a shard)."""
        files = [] if labelled is None else [("set", labelled)]
        plan = plan or EvaluationPlan()
        return self._post(EvaluationRecord, "/v1/evaluations", plan, files, timeout=UPLOAD_S)

    def evaluation(self, id: str) -> EvaluationRecord:
        """An evaluation, as it stands; with its result where it is done."""
        return self._get(EvaluationRecord, f"/v1/evaluations/{id}")

    def evaluations(self, collection: str | None = None) -> list[EvaluationRecord]:
        """The evaluations of a collection, or of all, oldest first, without their results."""
        return self._list(EvaluationRecord, "/v1/evaluations", params=given(collection=collection))

    def end_evaluation(self, id: str) -> EvaluationRecord:
        """Cancel an evaluation that runs; forget one that has ended."""
        found = self._call("DELETE", f"/v1/evaluations/{id}").content
        return EvaluationRecord.model_validate_json(found)

    def paired(
        self, id: str, other: str, method: str, other_method: str | None = None
    ) -> PairedResult:
        """Two evaluations over the items that both evaluated.

        Args:
            id: Of the first evaluation.
            other: Of the second.
            method: Of the first: `20-NN`, `linear probe`.
            other_method: Of the second; the same where it is left out.
        """
        path = f"/v1/evaluations/{id}/against/{other}"
        params = given(method=method, other_method=other_method)
        return self._get(PairedResult, path, params=params)

    def evaluation_answers(self, id: str, method: str, **conditions: Any) -> ItemAnswers:
        """The answers of one method for single items, the surest first.

        Args:
            id: Of the evaluation.
            method: `20-NN`, `linear probe`.
            conditions: `truth`, `said`, `right`, `unanswered`, `limit`, `offset`.
        """
        path = f"/v1/evaluations/{id}/answers"
        return self._get(ItemAnswers, path, params=given(method=method, **conditions))


def wait_for(
    read: Callable[[str], EvaluationRecord],
    id: str,
    progress: Callable[[EvaluationRecord], None] = lambda record: None,
    every_s: float = 0.5,
) -> EvaluationRecord:
    """Wait until an evaluation has ended.

    Args:
        read: `Client.evaluation` or the like.
        id: Of the evaluation.
        progress: Called with the record each time it has not ended yet.
        every_s: Seconds between two looks.
    """
    while (record := read(id)).state in ("queued", "running"):
        progress(record)
        time.sleep(every_s)
    return record
