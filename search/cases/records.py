"""What is known of cases beside their cells, as the service and the terminal ask for it."""

from __future__ import annotations

from search.library.collection import Collection
from search.schemas.cases import (
    CaseRecordsPage,
    CaseRecordsQuestion,
    CaseRecordsWanted,
    CaseRecordsWritten,
)


def change(collection: Collection, wanted: CaseRecordsWanted, caller: str) -> CaseRecordsWritten:
    """Make changes to the records of cases: all of them, or none.

    Raises:
        BadCase: see `search.library.case_records.CaseRecords.change`.
    """
    written = collection.cases.change(wanted, collection.store, caller)
    return CaseRecordsWritten(
        written=written,
        unchanged=len({one.case for one in wanted.changes}) - written,
        columns=collection.cases.columns(),
    )


def page(collection: Collection, question: CaseRecordsQuestion) -> CaseRecordsPage:
    """A page of the records that meet a filter, in order of name.

    Raises:
        BadCase: the filter names a column that there is not.
    """
    found = collection.cases.all(question.where)
    left = [one for one in found if question.after is None or one.case > question.after]
    shown = left[: question.limit]
    return CaseRecordsPage(
        records=tuple(shown),
        columns=collection.cases.columns(),
        total=len(found),
        next=shown[-1].case if len(left) > len(shown) else None,
    )
