"""Two groups of cases compared by kinds of cells, with intervals over whole patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.cases.distances import Floats
from search.cases.over_time import KnownCase, described, read_case
from search.cases.similar import prototypes_of
from search.errors import BadQuestion
from search.evaluation.metrics import Draws, draws, ends
from search.index.contract import Vectors
from search.library.collection import Collection
from search.query.caveats import KINDS_IN_SAMPLE
from search.query.context import Context
from search.schemas.cases import (
    CaseFilter,
    GroupDifference,
    GroupsAnswer,
    GroupsQuestion,
)
from search.schemas.filters import Filter
from search.text import count

FEW = 5
"""Patients of a group below which an interval is not worth much."""


def compare_groups(context: Context, question: GroupsQuestion) -> GroupsAnswer:
    """How the kinds of cells differ between two groups of cases, with intervals over patients.

    Raises:
        BadQuestion: a group has fewer than two patients, or both have a case in common.
    """
    collection = context.collection
    prototypes = prototypes_of(context, question.prototypes)
    chosen = [
        _chosen(collection, question.first, question.first_cases, "first"),
        _chosen(collection, question.second, question.second_cases, "second"),
    ]
    if common := sorted(set(chosen[0]) & set(chosen[1])):
        raise BadQuestion(f"case {common[0]!r} is in both groups; a case belongs to one of them")
    labels = context.reviewed()
    groups = [
        [read_case(collection, name, prototypes, question.cells, labels) for name in names]
        for names in chosen
    ]
    patients = [{one.patient for one in group} for group in groups]
    for which, own in zip(("first", "second"), patients, strict=True):
        if len(own) < 2:
            raise BadQuestion(f"the {which} group has cases of {len(own)} patient; it needs two")
    labelled = any(_labelled(one) for group in groups for one in group)
    in_sample = labelled and collection.label_axes is not None
    return GroupsAnswer(
        collection=collection.name,
        fingerprint=collection.card.fingerprint,
        first_cases=len(groups[0]),
        second_cases=len(groups[1]),
        first_patients=len(patients[0]),
        second_patients=len(patients[1]),
        both=len(patients[0] & patients[1]),
        rows=tuple(_rows(groups, prototypes, question)),
        in_sample=in_sample,
        warnings=(*_warnings(patients, groups), *([KINDS_IN_SAMPLE] if in_sample else [])),
    )


def _rows(
    groups: Sequence[Sequence[KnownCase]], prototypes: Vectors, question: GroupsQuestion
) -> list[GroupDifference]:
    """Prototypes by falling size of the difference, then labels."""
    cases = [*groups[0], *groups[1]]
    drawn = draws([one.patient for one in cases], question.resamples, question.seed)
    kinds = described(prototypes, [cell for one in cases for cell in one.cells])
    second = np.arange(len(cases)) >= len(groups[0])
    labels = sorted({c.item.label for one in cases for c in one.cells if c.item.label})
    if not all(any(_labelled(one) for one in group) for group in groups):
        labels = []  # a group without labels cannot be compared by them
    many = len(kinds) + len(labels)
    rows = [
        _difference(
            (
                "prototype",
                f"{kind.number} (mostly {kind.label})" if kind.label else f"{kind.number}",
            ),
            np.array([one.shares[kind.number - 1] for one in cases]),
            second,
            drawn,
            many,
        ).model_copy(update={"example": kind.example})
        for kind in kinds
    ]
    rows += [
        _difference(("label", one), np.array([_share(c, one) for c in cases]), second, drawn, many)
        for one in labels
    ]
    return sorted(rows, key=lambda row: (row.kind == "label", -abs(row.difference)))


def _chosen(
    collection: Collection, where: CaseFilter, names: Sequence[str], which: str
) -> list[str]:
    """The cases of a group that have items."""
    found = list(dict.fromkeys(names)) or [one.case for one in collection.cases.all(where)]
    if where.empty and not names:
        raise BadQuestion(
            f"say which cases are in the {which} group: conditions on their records, or names"
        )
    known = set(collection.store.facet("case", Filter(case=tuple(found)), len(found) + 1))
    if not found or (names and (lost := [one for one in found if one not in known])):
        what = f"case {lost[0]!r} has no items" if found else "no record meets its conditions"
        raise BadQuestion(f"the {which} group is not there: {what}")
    return [one for one in found if one in known]


def _share(case: KnownCase, label: str) -> float:
    """Of its labelled cells; not a number where none has a label."""
    known = _labelled(case)
    return known.count(label) / len(known) if known else float("nan")


def _labelled(case: KnownCase) -> list[str]:
    return [one.item.label for one in case.cells if one.item.label is not None]


def _difference(
    called: tuple[Literal["prototype", "label"], str],
    values: Floats,
    second: NDArray[np.bool_],
    drawn: Draws,
    rows: int,
) -> GroupDifference:
    """Means of both groups and their difference; patients drawn, the same for both groups.

    Cases whose value is not a number do not count.
    """
    known = ~np.isnan(values)
    weights, values = drawn.counts[:, drawn.member] * known, np.nan_to_num(values)

    def means(of: NDArray[np.bool_]) -> Floats:
        whole = (weights * of).sum(axis=1)
        total = (weights * of * values).sum(axis=1)
        empty = np.full(len(whole), np.nan)
        return np.asarray(np.divide(total, whole, out=empty, where=whole > 0), np.float64)

    differences = means(second) - means(~second)
    differences = differences[~np.isnan(differences)]
    low, high = ends(differences)
    least, most = ends(differences, 1 - 0.05 / rows)
    one, other = (float(values[of & known].mean()) for of in (~second, second))
    return GroupDifference(
        kind=called[0],
        name=called[1],
        first=one,
        second=other,
        difference=other - one,
        low=low,
        high=high,
        clear=least > 0 or most < 0,
    )


def _warnings(
    patients: Sequence[set[str]], groups: Sequence[Sequence[KnownCase]]
) -> tuple[str, ...]:
    found = []
    if (fewest := min(len(own) for own in patients)) < FEW:
        found.append(f"A group has {count(fewest, 'patient')}: its interval says little.")
    if without := sum(not _labelled(one) for group in groups for one in group):
        found.append(f"{count(without, 'case')} without a labelled cell: in no row by label.")
    return tuple(found)
