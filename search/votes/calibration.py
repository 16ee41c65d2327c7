"""The calibration of a collection: fitted on itself, own patients excluded, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from encoder.card import EncoderCard
from search.disk.atomic import write_durably
from search.errors import BadQuestion
from search.index.contract import Store, Stored, Vectors, scroll_all
from search.neighbours.duplicates import SPARE, Hashes, other_pictures
from search.neighbours.groups import item_groups, patients_digest
from search.schemas.answers import Hit, ReviewedLabel
from search.schemas.calibration import (
    FEWEST,
    Calibration,
    CalibrationFit,
    CalibrationPlan,
    Curve,
)
from search.schemas.filters import Filter
from search.schemas.items import Item, with_patient
from search.schemas.questions import Weighting
from search.transforms.contract import CannotFit
from search.votes.knn import vote, with_reviews
from search.votes.reliability import (
    Floats,
    coverage_curve,
    ece,
    fit_isotonic,
    fit_temperature,
    log_loss,
    reliability,
)

FILE = "calibration.json"
"""Where it is kept, in the folder of the collection."""
FOLDS = 5
"""Parts of the sample; each is judged by what was fitted on the others."""


class CannotCalibrate(BadQuestion):
    """A collection that has too little to be calibrated on."""


@dataclass(frozen=True)
class _Sample:
    """One vote on a stored item."""

    group: int
    """Of its patient, case and source."""
    shares: tuple[float, ...]
    margin: float
    right: float
    kth: float


@dataclass(frozen=True)
class Content:
    """The content that a calibration is fitted on."""

    digest: str
    """Of the collection."""
    reviews: str | None = None
    """Digest of the reviewers' labels; `None` where there is none."""
    labels: Mapping[str, ReviewedLabel] = field(default_factory=dict)
    """The reviewers' labels, by item."""
    patients: Mapping[str, str] = field(default_factory=dict)
    """Patients that the records of cases name, by case."""
    hashes: Hashes = lambda ids: [None] * len(ids)
    """Perceptual hashes of items: the same picture stored twice is no neighbour of itself."""
    held_out: Callable[[Sequence[str], int], list[list[Hit]]] | None = None
    """What finds the neighbours of items where those of the index would flatter, because the
    items' own labels chose its axes; `None` where they do not."""


def calibrate(
    store: Store, card: EncoderCard, content: Content, plan: CalibrationPlan
) -> Calibration:
    """Fit a calibration on the items of a store.

    Each item of the sample is a query through the index that excludes the item itself, its
    source, its case, its patient and near-duplicates; where labels chose the axes of the index,
    under axes that were fitted anew without its group.

    Raises:
        CannotCalibrate: too few labelled items, or of one label only.
    """
    labelled, chosen = _sample(store, plan.sample, content)
    labels = {stored.item.label for stored in chosen}
    if len(chosen) < FEWEST or len(labels) < 2:
        raise CannotCalibrate(
            f"a calibration needs at least {FEWEST} labelled items of two labels, "
            f"got {len(chosen)} of {len(labels)}; ingest labelled items first"
        )
    ks = sorted(set(plan.ks))
    found = _nearest(store, chosen, ks[-1] + SPARE, content)
    others = other_pictures([one.item.id for one in chosen], found, content.hashes)
    lists = [with_reviews(hits, content.labels) for hits in others]
    without = sum(stored.item.patient is None for stored in chosen)
    return Calibration(
        fingerprint=card.fingerprint,
        items=store.count(),
        digest=content.digest,
        reviews=content.reviews,
        patients=patients_digest(content.patients),
        unit="patient" if not without else "source" if without == len(chosen) else "mixed",
        without_patient=without,
        refitted=content.held_out is not None,
        labelled=labelled,
        sampled=len(chosen),
        plan=plan,
        fits=tuple(_fit(k, chosen, lists, plan) for k in ks),
    )


def _nearest(
    store: Store, chosen: Sequence[Stored], k: int, content: Content
) -> Sequence[Sequence[Hit]]:
    if content.held_out is None:
        cases: dict[str, list[str]] = {}
        for case, patient in content.patients.items():
            cases.setdefault(patient, []).append(case)
        vectors: Vectors = np.stack([stored.vector for stored in chosen])
        own = [_own(stored.item, cases) for stored in chosen]
        return store.nearest_batch(vectors, k, None, own)
    try:
        return content.held_out([stored.item.id for stored in chosen], k)
    except CannotFit as error:
        raise CannotCalibrate(
            f"the labels that chose the axes of this version cannot be held out: {error}"
        ) from error


def _sample(store: Store, most: int, content: Content) -> tuple[int, list[Stored]]:
    """How many items are labelled, and the sample of them, in an order that ids decide."""
    kept: dict[str, Stored] = {}
    labelled = 0
    for stored in scroll_all(store):
        item = with_patient(stored.item, content.patients)
        if (one := content.labels.get(item.id)) is not None:
            item = item.model_copy(update={"label": one.label})
        if item is not stored.item:
            stored = replace(stored, item=item)
        if stored.item.label is not None:
            labelled += 1
            kept[sha256(stored.item.id.encode()).hexdigest()] = stored
            if len(kept) > 2 * most:
                kept = dict(sorted(kept.items())[:most])
    return labelled, [kept[key] for key in sorted(kept)[:most]]


def _own(item: Item, cases: Mapping[str, Sequence[str]]) -> Filter:
    """Everything that is no neighbour of an item; `cases` are those of patients by records."""
    own = {*cases.get(item.patient or "", ()), *([] if item.case is None else [item.case])}
    return Filter(
        ids=(item.id,),
        source=(item.source,),
        case=tuple(sorted(own)),
        patient=() if item.patient is None else (item.patient,),
    )


def _fit(
    k: int, chosen: Sequence[Stored], lists: Sequence[list[Hit]], plan: CalibrationPlan
) -> CalibrationFit:
    samples = _votes(k, chosen, lists, plan.weighting, plan.temperature)
    if not samples:
        raise CannotCalibrate("no item of the sample has a labelled neighbour of another patient")
    right = np.array([sample.right for sample in samples])
    top = np.array([sample.shares[0] for sample in samples])
    held_out = {method: _held_out(samples, method) for method in ("isotonic", "temperature")}
    losses = {method: log_loss(p, right) for method, p in held_out.items()}
    method = min(losses, key=lambda name: (losses[name], name))
    curve = reliability(held_out[method], right)
    before = reliability(top, right)
    kth = np.array([sample.kth for sample in samples])
    return CalibrationFit(
        k=k,
        votes=len(samples),
        accuracy=float(right.mean()),
        curve=_curve(samples, method),
        log_loss=losses,
        ece_before=ece(before),
        ece=ece(curve),
        reliability=curve,
        reliability_before=before,
        by_margin=coverage_curve(np.array([sample.margin for sample in samples]), right),
        by_probability=coverage_curve(held_out[method], right),
        by_distance=coverage_curve(1 - kth, right),
        far=float(np.quantile(kth, plan.quantile)),
    )


def _votes(
    k: int,
    chosen: Sequence[Stored],
    lists: Sequence[list[Hit]],
    weighting: Weighting,
    temperature: float,
) -> list[_Sample]:
    found = []
    groups = item_groups([stored.item for stored in chosen], {}).tolist()  # named in `_sample`
    for group, stored, hits in zip(groups, chosen, lists, strict=True):
        one = vote(hits[:k], weighting, temperature)
        if one.label is not None:
            found.append(
                _Sample(
                    group=group,
                    shares=tuple(one.shares.values()),
                    margin=one.margin,
                    right=float(one.label == stored.item.label),
                    kth=kth_distance(hits[:k]),
                )
            )
    return found


def kth_distance(hits: Sequence[Hit]) -> float:
    """1 - cosine of the last of some neighbours."""
    return 1.0 - min(hit.score for hit in hits)


def _curve(samples: Sequence[_Sample], method: str) -> Curve:
    right = np.array([sample.right for sample in samples])
    if method == "isotonic":
        return fit_isotonic(np.array([sample.shares[0] for sample in samples]), right)
    return fit_temperature([sample.shares for sample in samples], right)


def _held_out(samples: Sequence[_Sample], method: str) -> Floats:
    """The probability of each vote by a curve that was fitted without its patient."""
    folds = np.array([sample.group % FOLDS for sample in samples])
    found = np.empty(len(samples))
    for fold in range(FOLDS):
        train = [sample for sample, of in zip(samples, folds, strict=True) if of != fold]
        curve = _curve(train or samples, method)
        for at in np.flatnonzero(folds == fold).tolist():
            found[at] = curve.at(samples[at].shares)
    return found


def touched(folder: Path) -> tuple[int, int]:
    """Two times that change with every write to a collection or its calibration."""
    path = folder / FILE
    return (
        (folder / "shards").stat().st_mtime_ns,
        path.stat().st_mtime_ns if path.exists() else 0,
    )


def write(folder: Path, calibration: Calibration) -> None:
    """Keep a calibration with its collection."""
    write_durably(folder / FILE, calibration.model_dump_json(indent=1).encode())


def read(folder: Path) -> Calibration | None:
    """The calibration of a collection; `None` where there is none.

    Raises:
        CannotCalibrate: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CannotCalibrate(f"{path.name} is damaged; fit the calibration again") from error
