"""The client's calls for refined searches, similar cases, calibration, and filtered counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from search.schemas.answers import Answer
from search.schemas.filters import Filter
from search.schemas.items import Keyword
from search.schemas.questions import BagField

if TYPE_CHECKING:
    import httpx

    from search.schemas.calibration import Calibration, CalibrationPlan
    from search.schemas.cases import CaseAnswer, CaseFacts, CaseQuestion
    from search.schemas.cells import FoundCells
    from search.schemas.explanations import ExplainQuestion, Explanation
    from search.schemas.questions import Refinement

CALIBRATION_S = 1800
"""Seconds that fitting a calibration may take."""


class QuestionCalls:
    """Part of `search.client.client.Client`, with the names that `search.service.Service` has."""

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        raise NotImplementedError

    def _ask(
        self,
        path: str,
        question: Any,
        image: bytes | Path | None,
        params: dict[str, Any] | None = None,
    ) -> httpx.Response:
        raise NotImplementedError

    def refine(self, refinement: Refinement, image: bytes | Path | None = None) -> Answer:
        """More like these, less like those, or by a region of the uploaded image."""
        return Answer.model_validate_json(self._ask("/v1/refine", refinement, image).content)

    def find_cells(
        self, image: bytes | Path, um_per_px: float | None = None, most: int = 500
    ) -> FoundCells:
        """The cells of a smear field."""
        from search.schemas.cells import FoundCells

        known = {} if um_per_px is None else {"um_per_px": um_per_px}
        files = {"image": ("field", content(image), "application/octet-stream")}
        response = self._call(
            "POST",
            "/v1/cells",
            params={"most": most},
            files=files,
            data={"question": json.dumps(known)},
        )
        return FoundCells.model_validate(response.json())

    def explain(self, question: ExplainQuestion, image: bytes | Path | None = None) -> Explanation:
        """Why some stored items are near a query."""
        from search.schemas.explanations import Explanation

        answer = self._ask("/v1/explain", question, image)
        return Explanation.model_validate_json(answer.content)

    def similar_cases(
        self, question: CaseQuestion, images: Sequence[bytes | Path] = ()
    ) -> CaseAnswer:
        """The cases whose cells look like the cells of one."""
        from search.schemas.cases import CaseAnswer

        if not images:
            answer = self._ask("/v1/cases/similar", question, None)
            return CaseAnswer.model_validate_json(answer.content)
        files = [
            ("images", (f"cell-{at}", content(image), "application/octet-stream"))
            for at, image in enumerate(images)
        ]
        body = {"question": question.model_dump_json(exclude_defaults=True)}
        response = self._call("POST", "/v1/cases/similar", files=files, data=body)
        return CaseAnswer.model_validate(response.json())

    def case(self, value: str, collection: str | None = None, by: BagField = "case") -> CaseFacts:
        """What there is of a case, a slide or a patient."""
        from search.schemas.cases import CaseFacts

        params = {"by": by, **({} if collection is None else {"collection": collection})}
        path = f"/v1/cases/{quote(value, safe='')}"
        return CaseFacts.model_validate(self._call("GET", path, params=params).json())

    def calibrate(self, plan: CalibrationPlan | None, collection: str) -> Calibration:
        """Fit the calibration of a collection."""
        from search.schemas.calibration import Calibration, CalibrationPlan

        body = (plan or CalibrationPlan()).model_dump(mode="json")
        path = f"/v1/collections/{collection}/calibration"
        response = self._call("POST", path, json=body, timeout=CALIBRATION_S)
        return Calibration.model_validate(response.json()["calibration"])

    def calibration(self, collection: str) -> tuple[Calibration, bool]:
        """The calibration of a collection, and whether it is stale."""
        from search.schemas.calibration import Calibration

        found = self._call("GET", f"/v1/collections/{collection}/calibration").json()
        return Calibration.model_validate(found["calibration"]), bool(found["stale"])

    def facet(
        self, field: Keyword, where: Filter, collection: str, limit: int = 100
    ) -> dict[str, int]:
        """Values of a field among the items that meet a filter, with their counts."""
        path = f"/v1/collections/{collection}/facets/{field}"
        body = where.model_dump(mode="json", exclude_defaults=True)
        response = self._call("POST", path, json=body, params={"limit": limit})
        found: dict[str, int] = response.json()["values"]
        return found


def content(image: bytes | Path) -> bytes:
    """The bytes of an image or of a file."""
    return image.read_bytes() if isinstance(image, Path) else image
