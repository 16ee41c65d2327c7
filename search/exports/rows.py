"""What is exported: items with their vectors, in the order they were named, or of a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.errors import BadQuestion
from search.index.contract import Vectors, scroll_all
from search.library.collection import Collection
from search.library.reviews import Reviews, standing_labels
from search.schemas.answers import ReviewedLabel
from search.schemas.exports import ExportWanted
from search.schemas.items import Item, with_patient

MOST = 200_000
"""Items of one export over HTTP; the command has no bound."""


@dataclass(frozen=True)
class Rows:
    """Items with their vectors, and whose they are."""

    collection: str
    version: str
    card: EncoderCard
    """Of the vectors: that of the version that answers, adapted where it is."""
    items: tuple[Item, ...]
    """Each with the patient that the record of its case names, where it names none itself."""
    vectors: Vectors
    """n x dim, rows of length 1."""
    scores: NDArray[np.float32] | None = None
    """Cosine of each to a query (n); `None` where there was none."""
    reviewed: Mapping[str, tuple[ReviewedLabel, str | None]] = field(default_factory=dict)
    """By item, the reviewers' label that it has here, and the recorded one."""

    def __len__(self) -> int:
        return len(self.items)

    def places(self) -> NDArray[np.int64]:
        """Left, top, width and height of each in level-0 pixels (n x 4); -1 for a whole image."""
        boxes = [(b.x, b.y, b.w, b.h) if (b := item.bbox) else (-1,) * 4 for item in self.items]
        return np.array(boxes, np.int64).reshape(-1, 4)

    def by_source(self) -> dict[str, list[int]]:
        """The rows of each source, in order."""
        found: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            found.setdefault(item.source, []).append(row)
        return found

    def score(self, row: int) -> float | None:
        """The score of a row, if there is one."""
        return None if self.scores is None else float(self.scores[row])


def rows_of(collection: Collection, wanted: ExportWanted, most: int | None = MOST) -> Rows:
    """The items that are wanted, with the vectors that the collection answers with.

    Raises:
        BadQuestion: none of them is there, too many are, or scores that do not fit.
    """
    if wanted.scores and len(wanted.scores) != len(wanted.items):
        raise BadQuestion(
            f"scores belong to items one by one: {len(wanted.items)} items and "
            f"{len(wanted.scores)} scores came"
        )
    store = collection.store
    found = (
        store.get(wanted.items)
        if wanted.items
        else list(islice(scroll_all(store, wanted.where), None if most is None else most + 1))
    )
    if not found:
        raise BadQuestion("no item of the collection is meant; name others, or another filter")
    if most is not None and len(found) > most:
        raise BadQuestion(
            f"more than {most:,} items are meant, too many for one answer; give a filter, or run "
            "`hemaseek export` where the library is"
        )
    labels = standing_labels(Reviews(collection.versions).all())
    labels = labels if wanted.labels == "reviewed" else {}
    patients = collection.cases.patients()
    recorded = {one.item.id: one.item.label for one in found if one.item.id in labels}
    scored = dict(zip(wanted.items, wanted.scores, strict=False))
    return Rows(
        collection=collection.name,
        version=collection.version.id,
        card=collection.card,
        items=tuple(
            with_patient(_labelled(one.item, labels.get(one.item.id)), patients) for one in found
        ),
        vectors=np.stack([one.vector for one in found]).astype(np.float32, copy=False),
        scores=_scores([one.item.id for one in found], scored),
        reviewed={id: (labels[id], label) for id, label in recorded.items()},
    )


def _labelled(item: Item, reviewed: ReviewedLabel | None) -> Item:
    return item if reviewed is None else item.model_copy(update={"label": reviewed.label})


def _scores(ids: Sequence[str], scored: dict[str, float]) -> NDArray[np.float32] | None:
    return np.array([scored[id] for id in ids], np.float32) if scored else None
