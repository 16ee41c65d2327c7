"""Whether neighbours are alike because of what they show, or because of where they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.atlas.maps import drawn_ids, items_of, vectors_of
from search.errors import BadQuestion
from search.index.contract import Vectors
from search.library.contents import Truth
from search.neighbours.groups import Rows, groups, item_groups, numbered
from search.neighbours.site_bias import Origins, SiteBias, drawn, site_bias
from search.schemas.items import Item, with_patient
from search.schemas.maps import BatchEffects, Origin, OriginShare

QUERIES = 1000
"""Items whose neighbours are looked at."""
SILHOUETTE = 2000
"""Items that the silhouettes are taken over."""


class NothingToCompare(BadQuestion):
    """Items of which no two can be compared."""


def batch_effects(
    version: Path,
    card: EncoderCard,
    patients: Mapping[str, str],
    field: Origin = "site",
    k: int = 10,
) -> BatchEffects:
    """Measure a version by its shards; the same for the same content.

    No neighbour is of the same source, case or patient, where these are known (but for `patient`
    itself, where only the source is left out). Items of unknown origin are no neighbours.
    `search.neighbours.site_bias` defines the figures.

    Args:
        version: Its folder.
        card: Of its encoder.
        patients: Patients that the records of cases name, by case.
        field: What is the origin.
        k: Neighbours.

    Raises:
        NothingToCompare: fewer than two items.
    """
    truth = Truth.read(version, card)
    ids = drawn_ids(truth)
    if len(ids) < 2:
        raise NothingToCompare("at least two items are needed; ingest more")
    items = [with_patient(item, patients) for item in items_of(truth, ids)]
    return measure(items, vectors_of(truth, ids), field, k)


def measure(items: Sequence[Item], vectors: Vectors, field: Origin, k: int) -> BatchEffects:
    """`batch_effects` of items with their vectors (n x dim, rows of length 1)."""
    names, origin = numbered([getattr(item, field) for item in items])
    _, label = numbered([item.label for item in items])
    usable = np.flatnonzero((origin >= 0) & (label >= 0))
    own = groups([i.source for i in items]) if field == "patient" else item_groups(items, {})
    compared = Origins(vectors, origin, label, own)
    found = site_bias(compared, drawn(usable, QUERIES), k)
    several = found if len(names) > 1 else None
    chance = np.bincount(label[label >= 0], minlength=1) / max(1, int((label >= 0).sum()))
    return BatchEffects(
        field=field,
        items=len(items),
        asked=len(found.queries) if found else 0,
        k=k,
        share=several.share if several else None,
        expected=several.expected_share if several else None,
        label_share=_mean(found.same_label) if found else None,
        label_expected=float((chance**2).sum()) if found else None,
        robustness=several.robustness if several else None,
        silhouette_origin=_silhouette(vectors, origin),
        silhouette_label=_silhouette(vectors, label),
        origins=_by_origin(names, origin, found),
        notes=tuple(_notes(names, origin, field, len(usable), found)),
    )


def _mean(shares: NDArray[np.float64]) -> float | None:
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if len(known) else None


def _by_origin(
    names: Sequence[str], origin: Rows, found: SiteBias | None
) -> tuple[OriginShare, ...]:
    """One row for each origin, the one with most items first."""
    shares = []
    for at, name in enumerate(names):
        of = np.flatnonzero(origin[found.queries] == at) if found else np.empty(0, np.int64)
        shares.append(
            OriginShare(
                value=name,
                items=int((origin == at).sum()),
                asked=len(of),
                share=float(found.own[of].mean()) if found and len(of) else 0.0,
                expected=float(found.expected[of].mean()) if found and len(of) else 0.0,
            )
        )
    return tuple(sorted(shares, key=lambda one: (-one.items, one.value)))


def _notes(
    names: Sequence[str], origin: Rows, field: Origin, usable: int, found: SiteBias | None
) -> list[str]:
    unknown = int((origin < 0).sum())
    if not names:
        return [f"No item has a {field}; its effect cannot be measured."]
    notes = []
    if len(names) == 1:
        notes.append(f"Every item that says its {field} is of {names[0]!r}: nothing to compare.")
    if unknown:
        notes.append(f"Items that do not say their {field}: {unknown:,} of {len(origin):,}.")
    if not usable:
        notes.append("No item has both a label and an origin.")
    elif found is None:
        notes.append("Every item is of the same source or patient as all others.")
    elif found.robustness is None and len(names) > 1:
        notes.append(
            f"Robustness cannot be known: no item can have neighbours both of its label from "
            f"another {field} and of another label from its own {field}."
        )
    return notes


def _silhouette(vectors: Vectors, codes: Rows) -> float | None:
    from sklearn.metrics import silhouette_score

    known = np.flatnonzero(codes >= 0)
    known = np.sort(known[np.random.default_rng(0).permutation(len(known))[:SILHOUETTE]])
    groups = len(np.unique(codes[known]))
    if not 2 <= groups < len(known):
        return None
    return float(silhouette_score(vectors[known], codes[known], metric="cosine"))
