"""The cases of one patient in order of time, by labels and by kinds of cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from search.cases.count import count_case
from search.cases.distances import Floats, histogram
from search.cases.represented import alone
from search.cases.similar import prototypes_of
from search.errors import NoSuchCase
from search.index.contract import Stored, Vectors, scroll_all
from search.library.collection import Collection
from search.library.reviews import Reviews
from search.query.caveats import IN_SAMPLE
from search.query.context import Context
from search.query.exclusion import patients_of
from search.schemas.answers import ReviewedLabel
from search.schemas.cases import (
    CaseCount,
    CaseMoment,
    CaseRecord,
    CountQuestion,
    Prototype,
    Timeline,
)
from search.schemas.filters import Filter

PROTOTYPES = 12
CELLS = 500
MOST = 1000
"""Cases of one patient."""


@dataclass(frozen=True)
class KnownCase:
    """A case with its cells and what kinds they are of."""

    name: str
    patient: str
    cells: list[Stored]
    shares: Floats
    """Of each prototype."""


def timeline(context: Context, patient: str) -> Timeline:
    """The cases of a patient in order of date.

    Raises:
        NoSuchCase: no item of that patient has a case.
    """
    collection = context.collection
    names = list(collection.store.facet("case", Filter(patient=(patient,)), MOST))
    if not names:
        raise NoSuchCase("patient", patient, collection.name)
    prototypes, labels = prototypes_of(context, PROTOTYPES), context.reviewed()
    cases = [read_case(collection, name, prototypes, CELLS, labels) for name in sorted(names)]
    records = collection.cases.of(names)
    dates = {
        one.name: records[one.name].date
        if one.name in records and records[one.name].date
        else min((c.item.acquired for c in one.cells if c.item.acquired), default=None)
        for one in cases
    }
    cases.sort(key=lambda one: (dates[one.name] or date.max, one.name))
    moments = [_moment(collection, one, cases[0], dates, records.get(one.name)) for one in cases]
    return Timeline(
        patient=patient,
        collection=collection.name,
        fingerprint=collection.card.fingerprint,
        prototypes=described(prototypes, [cell for one in cases for cell in one.cells]),
        moments=tuple(moments),
        warnings=tuple(_warnings(collection, moments)),
    )


def _warnings(collection: Collection, moments: Sequence[CaseMoment]) -> list[str]:
    """What is to be known of the cases of a timeline before they are compared."""
    found = []
    if undated := sum(one.date is None for one in moments):
        verb = "has no date and stands" if undated == 1 else "have no date and stand"
        found.append(f"{undated} of {len(moments)} cases {verb} last.")
    if large := sum(one.cells > CELLS for one in moments):
        found.append(
            f"{large} of {len(moments)} cases {'has' if large == 1 else 'have'} more than {CELLS} "
            f"cells: {CELLS} of each are counted and compared."
        )
    voted = any(one.origin == "votes" for one in moments)
    if voted and collection.label_axes is not None:
        found.append(IN_SAMPLE)
    return found


def _moment(
    collection: Collection,
    case: KnownCase,
    first: KnownCase,
    dates: Mapping[str, date | None],
    record: CaseRecord | None,
) -> CaseMoment:
    question = CountQuestion(case=case.name, cells=CELLS)
    counted = count_case(collection, Reviews(collection.versions), question)
    shares, by_labels = _differential(counted)
    start, today = dates[first.name], dates[case.name]
    return CaseMoment(
        case=case.name,
        date=today,
        days=(today - start).days if today and start else None,
        cells=counted.items,
        differential=shares,
        origin="labels" if by_labels else "votes",
        shares=tuple(float(share) for share in case.shares),
        distance=float(np.abs(case.shares - first.shares).sum() / 2),
        treatment=record.treatment if record else None,
        outcome=record.outcome if record else None,
    )


def read_case(
    collection: Collection,
    name: str,
    prototypes: Vectors,
    cells: int,
    labels: Mapping[str, ReviewedLabel],
) -> KnownCase:
    """A case by its first cells in order of id, at most `cells`; an unknown patient gets a name.

    Args:
        collection: Where it is.
        name: Of a case that has items.
        prototypes: n x dim.
        cells: At most.
        labels: Reviewers' labels, by item; they count before the recorded ones.
    """
    found = []
    for one in scroll_all(collection.store, Filter(case=(name,))):
        label = labels.get(one.item.id)
        if label is not None:
            one = replace(one, item=one.item.model_copy(update={"label": label.label}))
        found.append(one)
        if len(found) == cells:
            break
    patients = set(patients_of(collection.cases, [one.item for one in found])) - {None}
    rows = np.stack([one.vector for one in found])
    patient = str(min(patients)) if patients else alone(name)  # type: ignore[type-var]
    return KnownCase(name, patient, found, histogram(rows, prototypes))


def _differential(counted: CaseCount) -> tuple[dict[str, float], bool]:
    """Shares of labels, largest first, and whether these are labels and not votes: whichever of
    both more cells have."""
    labels = Counter({row.label: row.reviewed for row in counted.rows if row.reviewed})
    votes = Counter({row.label: row.voted for row in counted.rows if row.voted})
    by_labels = bool(labels) and labels.total() >= votes.total()
    chosen = labels if by_labels else votes
    shares = {label: n / chosen.total() for label, n in chosen.most_common()}
    return shares, by_labels


def described(prototypes: Vectors, cells: Sequence[Stored]) -> tuple[Prototype, ...]:
    """The prototypes that any of the cells belongs to."""
    cosines = np.stack([one.vector for one in cells]) @ prototypes.T
    of = cosines.argmax(axis=1)
    found = []
    for at in range(len(prototypes)):
        rows = np.flatnonzero(of == at)
        if not len(rows):
            continue
        labels = Counter(label for row in rows if (label := cells[int(row)].item.label) is not None)
        found.append(
            Prototype(
                number=at + 1,
                label=labels.most_common(1)[0][0] if labels else None,
                example=cells[int(rows[cosines[rows, at].argmax()])].item,
            )
        )
    return tuple(found)
