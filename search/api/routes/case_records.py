"""Routes of what is known of cases beside their cells: diagnosis, treatment, outcome and more."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body

from search.api.access import Reads, Writes, api_router
from search.cases.records import change, page
from search.schemas.cases import (
    CaseRecordsPage,
    CaseRecordsQuestion,
    CaseRecordsWanted,
    CaseRecordsWritten,
)

router = api_router()
CHANGE = {
    "changes": [
        {
            "case": "C-0117",
            "diagnosis": "Acute myeloid leukaemia with maturation",
            "diagnosis_code": "9874/3",
            "date": "2024-03-01",
            "age_band": "60-69",
            "more": {"blasts_percent": 34},
        }
    ],
    "columns": [{"name": "blasts_percent", "type": "number"}],
    "author": "AB",
}


@router.post("/collections/{name}/cases/records")
def change_records(
    name: str,
    access: Writes,
    wanted: Annotated[CaseRecordsWanted, Body(examples=[CHANGE])],
) -> CaseRecordsWritten:
    """Add or correct what is known of cases: all of it, or nothing. Every value before is kept
    with who changed it and when. Columns and texts that seem to say who a person is are refused.
    """
    collection = access.context(name).collection
    done = change(collection, wanted, access.caller.id)
    fields = {field for one in wanted.changes for field in (*one.model_fields_set, *one.more)}
    access.note(written=done.written, fields=sorted(fields - {"case", "more", "clear"}))
    return done


@router.post("/collections/{name}/cases/records/page")
def page_of_records(
    name: str,
    access: Reads,
    wanted: Annotated[
        CaseRecordsQuestion, Body(examples=[{"where": {"diagnosis_code": ["9874/3"]}}])
    ],
) -> CaseRecordsPage:
    """Records of the cases that meet a filter, in order of name, a page at a time."""
    access.note(where=sorted(wanted.where.model_fields_set))
    return page(access.context(name).collection, wanted)
