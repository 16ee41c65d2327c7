"""Routes of a patient's cases over time, and of two groups of cases compared."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query

from search.api.access import Reads, api_router
from search.cases import over_time
from search.evaluation.case_groups import compare_groups
from search.schemas.cases import GroupsAnswer, GroupsQuestion, Timeline

router = api_router()
GROUPS = {"first": {"treatment": ["none"]}, "second": {"treatment": ["azacitidine"]}}


@router.get("/collections/{name}/timeline")
def timeline(
    name: str,
    access: Reads,
    patient: Annotated[str, Query(min_length=1, max_length=200, examples=["P-031"])],
) -> Timeline:
    """The cases of one patient in order: differential count, shares of kinds of cells, and how far
    each is from the first."""
    found = over_time.timeline(access.context(name), patient)
    access.note(query="case", items=[one.example.id for one in found.prototypes])
    return found


@router.post("/collections/{name}/cases/groups")
def groups(
    name: str, access: Reads, question: Annotated[GroupsQuestion, Body(examples=[GROUPS])]
) -> GroupsAnswer:
    """How two groups of cases (treated and not, say) differ in their kinds of cells, each with an
    interval over whole patients."""
    found = compare_groups(access.context(name), question)
    access.note(items=[row.example.id for row in found.rows if row.example])
    return found
