"""Whether a patient could be excluded from an answer."""

from __future__ import annotations

from search.query.resolve import Query
from search.schemas.answers import Exclusion, Hit
from search.schemas.questions import Question


def patient_exclusion(
    question: Question, query: Query, hits: list[Hit]
) -> tuple[Exclusion, str | None]:
    """Whether the query's own patient was kept out of the hits, and a warning if not."""
    if "patient" not in question.exclude:
        return "off", "The query's own patient was not left out, as asked."
    if not query.patient_known:
        return "impossible", (
            "The query's patient is unknown: neighbours may be of the same patient."
        )
    unknown = sum(hit.item.patient is None for hit in hits)
    if hits and unknown == len(hits):
        return "impossible", "The library has no patient ids for these neighbours."
    if unknown:
        return "partial", f"{unknown} of {len(hits)} neighbours have no patient id."
    return "applied", None
