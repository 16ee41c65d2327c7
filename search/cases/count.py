"""The differential count of a case: by the labels of its cells and by their neighbours' votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from search.errors import NoSuchCase
from search.index.contract import Store, Stored, Vectors, scroll_all
from search.library.collection import Collection
from search.library.reviews import Reviewed, Reviews, standing_labels
from search.neighbours.duplicates import SPARE, other_pictures
from search.query.caveats import IN_SAMPLE
from search.query.exclusion import (
    exclusion_filter,
    own_groups,
    patient_exclusion,
    patients_of,
    recorded_patients,
    with_records,
)
from search.query.facets import MOST, has_choice
from search.schemas.answers import Hit
from search.schemas.cases import CaseCount, CountedCell, CountQuestion, CountRow
from search.schemas.filters import Filter
from search.schemas.items import Item, with_patient
from search.votes.judgement import judge
from search.votes.knn import vote, with_reviews
from search.votes.lineage import spread

EXCLUDED = ("source", "case", "patient")
"""What the cells of a case never share with the cells that vote on them."""


def count_case(collection: Collection, reviews: Reviews, question: CountQuestion) -> CaseCount:
    """Count the cells of a case by their labels and by the votes of their neighbours.

    No cell is voted on by its own patient, case or source, nor by a near-duplicate.

    Raises:
        NoSuchCase: no item belongs to it.
    """
    store = collection.store
    cells, items = _cells_of(collection, question)
    groups = with_records(collection.cases, own_groups([cell.item for cell in cells]))
    own = exclusion_filter(groups, EXCLUDED)
    reviewed = reviews.of([cell.item.id for cell in cells])
    rows = np.stack([cell.vector for cell in cells])
    labels = standing_labels(reviews.all()) if question.labels == "reviewed" else {}
    found = other_pictures(
        [cell.item.id for cell in cells],
        _voters(store, cells, rows, question, own),
        collection.rows.picture_hashes,
    )
    lists = [with_reviews(hits[: question.k], labels) for hits in found]
    choice = has_choice(
        lambda of: store.facet("label", of, MOST),
        question.where,
        own,
        {one.label for one in labels.values()},
    )
    counted = tuple(
        _counted(cell.item, hits, reviewed.get(cell.item.id), choice=choice)
        for cell, hits in zip(cells, lists, strict=True)
    )
    exclusion, warnings = patient_exclusion(
        EXCLUDED,
        None not in patients_of(collection.cases, [cell.item for cell in cells]),
        patients_of(collection.cases, [hit.item for hits in lists for hit in hits]),
        "cells that voted",
    )
    if collection.label_axes is not None and any(cell.item.label for cell in cells):
        warnings.append(IN_SAMPLE)
    if len(cells) < items:
        warnings.append(f"Only the first {len(cells):,} of {items:,} cells are counted.")
    return CaseCount(
        value=question.case,
        by=question.by,
        collection=collection.name,
        encoder=collection.card.id,
        fingerprint=collection.card.fingerprint,
        k=question.k,
        items=items,
        cells=counted,
        complete=len(cells) == items,
        rows=_rows(counted),
        recorded=sum(cell.item.label is not None for cell in counted),
        reviewed=sum(cell.reviewed is not None for cell in counted),
        not_sure=sum(not cell.sure for cell in counted),
        agreement=_agreement(counted),
        patient_exclusion=exclusion,
        warnings=tuple(warnings),
    )


def _cells_of(collection: Collection, question: CountQuestion) -> tuple[list[Stored], int]:
    """The first cells of a case, and how many there are. Each is of the patient whom the record of
    its case names, if one does.

    Raises:
        NoSuchCase: there is none.
    """
    store, named = collection.store, Filter.model_validate({question.by: (question.case,)})
    items = store.count(named)
    if not items:
        raise NoSuchCase(question.by, question.case, collection.name)
    cells = list(islice(scroll_all(store, named), question.cells))
    known = [one.item.case for one in cells if one.item.case is not None]
    whose = recorded_patients(collection.cases, known)
    return [replace(one, item=with_patient(one.item, whose)) for one in cells], items


def _voters(
    store: Store, cells: Sequence[Stored], rows: Vectors, question: CountQuestion, own: Filter
) -> list[list[Hit]]:
    """Neighbours of each cell, of its own kind: a tile of tissue is called nothing by cells."""
    lists: list[list[Hit]] = [[] for _ in cells]
    kinds = question.where.kind
    for kind in sorted({cell.item.kind for cell in cells}):
        if kinds and kind not in kinds:
            continue
        at = [n for n, cell in enumerate(cells) if cell.item.kind == kind]
        where = question.where.model_copy(update={"kind": (kind,)})
        wanted = question.k + SPARE
        for n, hits in zip(at, store.nearest_batch(rows[at], wanted, where, own), strict=True):
            lists[n] = list(hits)
    return lists


def _counted(
    item: Item, hits: Sequence[Hit], reviewed: Reviewed | None, *, choice: bool
) -> CountedCell:
    found = vote(hits)
    state, reason, _ = judge(found, None, None, spread(found), choice=choice)
    return CountedCell(
        item=item,
        reviewed=reviewed.label if reviewed else None,
        disputed=reviewed.disputed if reviewed else False,
        voted=found.label,
        share=found.shares[found.label] if found.label is not None else 0.0,
        sure=state == "sure",
        reason=reason,
    )


def _rows(cells: Sequence[CountedCell]) -> tuple[CountRow, ...]:
    recorded = Counter(cell.item.label for cell in cells if cell.item.label is not None)
    reviewed = Counter(
        label for cell in cells if (label := cell.reviewed or cell.item.label) is not None
    )
    voted = Counter(cell.voted for cell in cells if cell.sure and cell.voted is not None)
    labels = {*recorded, *reviewed, *voted}
    order = sorted(labels, key=lambda one: (-recorded[one], -voted[one], one))
    return tuple(
        CountRow(label=one, recorded=recorded[one], reviewed=reviewed[one], voted=voted[one])
        for one in order
    )


def _agreement(cells: Sequence[CountedCell]) -> float | None:
    pairs = [
        (label, cell.voted)
        for cell in cells
        if cell.sure and (label := cell.reviewed or cell.item.label) is not None
    ]
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else None
