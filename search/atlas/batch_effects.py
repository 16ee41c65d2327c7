"""Whether neighbours are alike because of what they show, or because of where they were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.atlas.maps import drawn_ids, items_of, vectors_of
from search.errors import BadQuestion
from search.index.contract import Vectors
from search.library.contents import Truth
from search.schemas.items import Item
from search.schemas.maps import BatchEffects, Origin, OriginShare

ASKED = 1000
"""Items whose neighbours are looked at."""
SILHOUETTE = 2000
"""Items that the silhouettes are taken over."""


class NothingToCompare(BadQuestion):
    """Items of which no two can be compared."""


def batch_effects(
    version: Path, card: EncoderCard, field: Origin = "site", k: int = 10
) -> BatchEffects:
    """Measure a version by its shards; the same for the same content.

    No neighbour is of the same source, or, where patients are known, of the same patient (but
    for `patient` itself, where only the source is left out).

    Raises:
        NothingToCompare: fewer than two items.
    """
    truth = Truth.read(version, card)
    ids = drawn_ids(truth)
    if len(ids) < 2:
        raise NothingToCompare("at least two items are needed; ingest more")
    items, vectors = items_of(truth, ids), vectors_of(truth, ids)
    return measure(items, vectors, field, k)


@dataclass(frozen=True)
class _Seen:
    """What the neighbours of one item say."""

    origin: int
    share: float
    expected: float
    alike: float
    """Share that carries its label."""
    pulled: tuple[int, int]
    """Neighbours of its label from elsewhere, and of another label from its own origin."""


def measure(items: Sequence[Item], vectors: Vectors, field: Origin, k: int) -> BatchEffects:
    """`batch_effects` of items with their vectors (n x dim, rows of length 1)."""
    names, origin = _codes([getattr(item, field) for item in items])
    _, label = _codes([item.label for item in items])
    usable = np.flatnonzero((origin >= 0) & (label >= 0))
    asked = np.sort(usable[np.random.default_rng(0).permutation(len(usable))[:ASKED]])
    table = _mixed(origin, label, len(names))
    seen = [
        _look(at, found, origin, label, table)
        for at, found in _neighbours(items, vectors, asked, k, by_patient=field != "patient")
        if len(found)
    ]
    many = len(names) > 1
    elsewhere, own = (sum(one.pulled[at] for one in seen) for at in (0, 1))
    chance = np.bincount(label[label >= 0], minlength=1) / max(1, int((label >= 0).sum()))
    return BatchEffects(
        field=field,
        items=len(items),
        asked=len(seen),
        k=k,
        share=_mean([one.share for one in seen]) if many else None,
        expected=_mean([one.expected for one in seen]) if many else None,
        label_share=_mean([one.alike for one in seen]),
        label_expected=float((chance**2).sum()) if seen else None,
        robustness=elsewhere / (elsewhere + own) if many and elsewhere + own else None,
        silhouette_origin=_silhouette(vectors, origin),
        silhouette_label=_silhouette(vectors, label),
        origins=tuple(
            OriginShare(
                value=name,
                items=int((origin == at).sum()),
                asked=len(of := [one for one in seen if one.origin == at]),
                share=_mean([one.share for one in of]) or 0.0,
                expected=_mean([one.expected for one in of]) or 0.0,
            )
            for name, at in sorted(
                zip(names, range(len(names)), strict=True),
                key=lambda pair: (-int((origin == pair[1]).sum()), pair[0]),
            )
        ),
        notes=tuple(_notes(items, names, origin, field, asked=len(usable), seen=len(seen))),
    )


def _notes(
    items: Sequence[Item],
    names: Sequence[str],
    origin: NDArray[np.int64],
    field: Origin,
    *,
    asked: int,
    seen: int,
) -> list[str]:
    unknown = int((origin < 0).sum())
    if not names:
        return [f"No item says its {field}: nothing can be said of it."]
    notes = []
    if len(names) == 1:
        notes.append(f"Every item that says its {field} is of {names[0]!r}: nothing to compare.")
    if unknown:
        notes.append(f"{unknown:,} of {len(items):,} items do not say their {field}.")
    if not asked:
        notes.append("No item has both a label and an origin.")
    elif not seen:
        notes.append("Every item is of the same source or patient as all others.")
    return notes


def _codes(values: Sequence[str | None]) -> tuple[list[str], NDArray[np.int64]]:
    names = sorted({value for value in values if value is not None})
    code = {name: at for at, name in enumerate(names)}
    return names, np.array([-1 if v is None else code[v] for v in values], np.int64)


def _mixed(origin: NDArray[np.int64], label: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Share of each origin among the items of each label (labels x origins)."""
    counts = np.zeros((max(int(label.max(initial=0)) + 1, 1), max(n, 1)))
    known = (origin >= 0) & (label >= 0)
    np.add.at(counts, (label[known], origin[known]), 1)
    table: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return table


def _look(
    at: int,
    found: NDArray[np.int64],
    origin: NDArray[np.int64],
    label: NDArray[np.int64],
    table: NDArray[np.float64],
) -> _Seen:
    alike, here = label[found] == label[at], origin[found] == origin[at]
    named = label[found] >= 0
    expected = table[label[found][named], origin[at]]
    known = origin[found] >= 0
    return _Seen(
        origin=int(origin[at]),
        share=float(here.mean()),
        expected=float(expected.mean()) if len(expected) else float(here.mean()),
        alike=float(alike.mean()),
        pulled=(int((alike & ~here & known).sum()), int((~alike & here & named).sum())),
    )


def _neighbours(
    items: Sequence[Item],
    vectors: Vectors,
    asked: NDArray[np.int64],
    k: int,
    *,
    by_patient: bool,
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The `k` nearest of each asked item, its own source and patient left out."""
    _, source = _codes([item.source for item in items])
    _, patient = _codes([item.patient for item in items])
    for first in range(0, len(asked), 256):
        some = asked[first : first + 256]
        scores = vectors[some] @ vectors.T
        own = source[some][:, None] == source
        if by_patient:
            own |= (patient[some][:, None] == patient) & (patient[some][:, None] >= 0)
        scores[own] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        for at, row, left in zip(some, order, (~own).sum(axis=1), strict=True):
            yield int(at), row[: min(k, int(left))]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _silhouette(vectors: Vectors, codes: NDArray[np.int64]) -> float | None:
    from sklearn.metrics import silhouette_score

    known = np.flatnonzero(codes >= 0)
    known = np.sort(known[np.random.default_rng(0).permutation(len(known))[:SILHOUETTE]])
    groups = len(np.unique(codes[known]))
    if not 2 <= groups < len(known):
        return None
    return float(silhouette_score(vectors[known], codes[known], metric="cosine"))
