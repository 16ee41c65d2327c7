"""The calibration of a collection: fitted on itself with the own patient left out, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from encoder.card import EncoderCard
from search.index.contract import Store, Stored, Vectors, scroll_all
from search.library.shards import write_durably
from search.query.resolve import BadQuestion
from search.schemas.items import Filter, Hit, Item, Record
from search.votes.knn import Weighting, vote
from search.votes.reliability import (
    CoveragePoint,
    Curve,
    Floats,
    ReliabilityBin,
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
FEWEST = 50
"""Labelled items below which nothing is fitted."""
Unit = Literal["patient", "source", "mixed"]


class CannotCalibrate(BadQuestion):
    """A collection that has too little to be calibrated on."""


class CalibrationPlan(Record):
    """How a calibration is fitted."""

    ks: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1)] = (
        5,
        10,
        20,
    )
    """Numbers of neighbours that votes will be asked with."""
    weighting: Literal["uniform", "similarity", "softmax"] = "similarity"
    """Of those votes."""
    temperature: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.07
    """Of the softmax weighting."""
    sample: Annotated[int, Field(ge=FEWEST, le=50_000)] = 2000
    """Labelled items that are asked for, chosen by a digest of their ids."""
    quantile: Annotated[float, Field(gt=0.5, lt=1)] = 0.99
    """Share of the sample whose k-th neighbour is near enough; farther is out of distribution."""


class CalibrationFit(Record):
    """What was fitted for one number of neighbours."""

    k: int
    votes: int
    """Votes that it rests on."""
    accuracy: float
    """Share of them whose first label was right."""
    curve: Curve
    """From top share to probability: the better of both methods on held-out votes."""
    log_loss: dict[str, float]
    """Of each method on held-out votes."""
    ece_before: float
    """Expected calibration error of the bare top share."""
    ece: float
    """Of the probability, on held-out votes."""
    reliability: tuple[ReliabilityBin, ...]
    """On held-out votes."""
    reliability_before: tuple[ReliabilityBin, ...]
    """Of the bare top share."""
    by_margin: tuple[CoveragePoint, ...]
    """Abstention by the margin of the vote."""
    by_probability: tuple[CoveragePoint, ...]
    """Abstention by the probability, on held-out votes."""
    by_distance: tuple[CoveragePoint, ...]
    """Abstention by the distance of the k-th neighbour; the certainty is its cosine."""
    far: float
    """Distance (1 - cosine) of the k-th neighbour beyond which a query is out of distribution."""


class Calibration(Record):
    """The calibration of one collection."""

    format: Literal[1] = 1
    fingerprint: str
    """Of the encoder."""
    items: int
    """Items in the collection when it was fitted."""
    digest: str
    """Of the collection's content then; another one now makes the calibration stale."""
    unit: Unit
    """What was left out with each item besides itself: its patient; its source, where no item of
    the sample has a patient; `mixed` where some have."""
    without_patient: int
    """Items of the sample without a patient: only their own source and case were left out."""
    labelled: int
    """Labelled items of the collection."""
    sampled: int
    """Of those, how many were asked for."""
    plan: CalibrationPlan
    fits: tuple[CalibrationFit, ...]
    """One for each k, rising."""

    def fit(self, k: int) -> CalibrationFit | None:
        """What was fitted for a number of neighbours."""
        return next((fit for fit in self.fits if fit.k == k), None)


@dataclass(frozen=True)
class _Sample:
    """One vote on a stored item."""

    group: str
    shares: tuple[float, ...]
    margin: float
    right: float
    kth: float


def calibrate(store: Store, card: EncoderCard, digest: str, plan: CalibrationPlan) -> Calibration:
    """Fit a calibration on what a store holds.

    Each item of the sample is asked for as a query would be: through the index, with itself,
    its source, its case and its patient left out.

    Raises:
        CannotCalibrate: too few labelled items, or of one label only.
    """
    labelled, chosen = _sample(store, plan.sample)
    labels = {stored.item.label for stored in chosen}
    if len(chosen) < FEWEST or len(labels) < 2:
        raise CannotCalibrate(
            f"a calibration needs at least {FEWEST} labelled items of two labels, "
            f"got {len(chosen)} of {len(labels)}; ingest labelled items first"
        )
    ks = sorted(set(plan.ks))
    vectors: Vectors = np.stack([stored.vector for stored in chosen])
    lists = store.nearest_batch(vectors, ks[-1], None, [_own(stored.item) for stored in chosen])
    without = sum(stored.item.patient is None for stored in chosen)
    return Calibration(
        fingerprint=card.fingerprint,
        items=store.count(),
        digest=digest,
        unit="patient" if not without else "source" if without == len(chosen) else "mixed",
        without_patient=without,
        labelled=labelled,
        sampled=len(chosen),
        plan=plan,
        fits=tuple(_fit(k, chosen, lists, plan) for k in ks),
    )


def _sample(store: Store, most: int) -> tuple[int, list[Stored]]:
    """How many items are labelled, and the sample of them, in an order that ids decide."""
    kept: dict[str, Stored] = {}
    labelled = 0
    for stored in scroll_all(store):
        if stored.item.label is not None:
            labelled += 1
            kept[sha256(stored.item.id.encode()).hexdigest()] = stored
            if len(kept) > 2 * most:
                kept = dict(sorted(kept.items())[:most])
    return labelled, [kept[key] for key in sorted(kept)[:most]]


def _own(item: Item) -> Filter:
    return Filter(
        ids=(item.id,),
        source=(item.source,),
        case=() if item.case is None else (item.case,),
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
    held = {method: _held_out(samples, method) for method in ("isotonic", "temperature")}
    losses = {method: log_loss(p, right) for method, p in held.items()}
    method = min(losses, key=lambda name: (losses[name], name))
    curve = reliability(held[method], right)
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
        by_probability=coverage_curve(held[method], right),
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
    for stored, hits in zip(chosen, lists, strict=True):
        one = vote(hits[:k], weighting, temperature)
        if one.label is not None:
            found.append(
                _Sample(
                    group=stored.item.patient or stored.item.source,
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
    folds = np.array([int(sha256(s.group.encode()).hexdigest()[:8], 16) % FOLDS for s in samples])
    found = np.empty(len(samples))
    for fold in range(FOLDS):
        teach = [sample for sample, of in zip(samples, folds, strict=True) if of != fold]
        curve = _curve(teach or samples, method)
        for at in np.flatnonzero(folds == fold).tolist():
            found[at] = curve.at(samples[at].shares)
    return found


def content_digest(folder: Path) -> str:
    """Sixteen hex digits that change with every write to a collection: of its shards' names."""
    names = sorted(path.name for path in (folder / "shards").glob("[0-9]*.parquet"))
    return sha256("\n".join(names).encode()).hexdigest()[:16]


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
