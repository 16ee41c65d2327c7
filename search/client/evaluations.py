"""The client's calls about evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

    from search.schemas.comparisons import PairedResult
    from search.schemas.evaluations import EvaluationPlan, EvaluationRecord, ItemAnswers

UPLOAD_S = 600
"""Seconds that sending a labelled set may take."""


class EvaluationCalls:
    """Part of `search.client.client.Client`, with the names that `search.service.Service` has."""

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        raise NotImplementedError

    def evaluate(
        self, plan: EvaluationPlan | None = None, labelled: bytes | Path | None = None
    ) -> EvaluationRecord:
        """Queue an evaluation of a collection, or of a labelled set (a ZIP or a shard)."""
        from search.schemas.evaluations import EvaluationPlan, EvaluationRecord

        body = (plan or EvaluationPlan()).model_dump_json(exclude_defaults=True)
        if labelled is None:
            headers = {"Content-Type": "application/json"}
            found = self._call("POST", "/v1/evaluations", content=body, headers=headers)
        else:
            content = labelled.read_bytes() if isinstance(labelled, Path) else labelled
            files = {"set": ("set", content, "application/octet-stream")}
            form = {"question": body}
            found = self._call("POST", "/v1/evaluations", files=files, data=form, timeout=UPLOAD_S)
        return EvaluationRecord.model_validate(found.json())

    def evaluation(self, id: str) -> EvaluationRecord:
        """An evaluation, as it stands; with its result where it is done."""
        from search.schemas.evaluations import EvaluationRecord

        return EvaluationRecord.model_validate(self._call("GET", f"/v1/evaluations/{id}").json())

    def evaluations(self, collection: str | None = None) -> list[EvaluationRecord]:
        """The evaluations of a collection, or of all, oldest first, without their results."""
        from search.schemas.evaluations import EvaluationRecord

        params = {} if collection is None else {"collection": collection}
        found = self._call("GET", "/v1/evaluations", params=params).json()
        return [EvaluationRecord.model_validate(one) for one in found]

    def end_evaluation(self, id: str) -> EvaluationRecord:
        """Stop an evaluation that runs; forget one that has ended."""
        from search.schemas.evaluations import EvaluationRecord

        found = self._call("DELETE", f"/v1/evaluations/{id}").json()
        return EvaluationRecord.model_validate(found)

    def paired(
        self, id: str, other: str, method: str, other_method: str | None = None
    ) -> PairedResult:
        """Two evaluations over the items that both asked.

        Args:
            id: Of the first evaluation.
            other: Of the second.
            method: Of the first: `20-NN`, `linear probe`.
            other_method: Of the second; the same where it is left out.
        """
        from search.schemas.comparisons import PairedResult

        params = {"method": method} | ({"other_method": other_method} if other_method else {})
        found = self._call("GET", f"/v1/evaluations/{id}/against/{other}", params=params).json()
        return PairedResult.model_validate(found)

    def evaluation_answers(self, id: str, method: str, **conditions: Any) -> ItemAnswers:
        """What single items were called by one method, the surest first.

        Args:
            id: Of the evaluation.
            method: `20-NN`, `linear probe`.
            conditions: `truth`, `said`, `right`, `unanswered`, `limit`, `offset`.
        """
        from search.schemas.evaluations import ItemAnswers

        given = {name: value for name, value in conditions.items() if value is not None}
        path = f"/v1/evaluations/{id}/answers"
        found = self._call("GET", path, params={"method": method, **given}).json()
        return ItemAnswers.model_validate(found)


def wait_for(
    read: Callable[[str], EvaluationRecord],
    id: str,
    tell: Callable[[EvaluationRecord], None] = lambda record: None,
    every_s: float = 0.5,
) -> EvaluationRecord:
    """Wait until an evaluation has ended.

    Args:
        read: `evaluation` of a client or a service.
        id: Of the evaluation.
        tell: Told how it stands, now and then.
        every_s: Seconds between two looks.
    """
    while (record := read(id)).state in ("queued", "running"):
        tell(record)
        time.sleep(every_s)
    return record
