"""Calibration of votes: the plan, the fit and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from search.schemas.items import Record
from search.schemas.questions import Labels

FEWEST = 50
"""Labelled items below which nothing is fitted."""


Unit = Literal["patient", "source", "mixed"]


class CalibrationPlan(Record):
    """How a calibration is fitted."""

    ks: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1)] = (
        5,
        10,
        20,
    )
    """Numbers of neighbours that votes will use."""
    weighting: Literal["uniform", "similarity", "softmax"] = "similarity"
    """Of those votes."""
    temperature: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.07
    """Of the softmax weighting."""
    sample: Annotated[int, Field(ge=FEWEST, le=50_000)] = 2000
    """Labelled items that serve as queries, chosen by a digest of their ids."""
    labels: Labels = "reviewed"
    """Labels of the sample and of its neighbours: `Question.labels`."""
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
    reviews: str | None = None
    """Digest of the reviewers' labels then; `None` where none counted. Votes by other labels make
    the calibration stale."""
    patients: str | None = None
    """Digest of the patients that records of cases named then; others make it stale."""
    unit: Unit
    """What was left out with each item besides itself: its patient; its source, where no item of
    the sample has a patient; `mixed` where some have."""
    without_patient: int
    """Items of the sample without a patient: only their own source and case were left out."""
    refitted: bool = False
    """Whether the votes are under an adaptation that was fitted anew without the items asked about:
    their labels had chosen the axes of the version that serves."""
    labelled: int
    """Labelled items of the collection."""
    sampled: int
    """Of those, how many were queries."""
    plan: CalibrationPlan
    fits: tuple[CalibrationFit, ...]
    """One for each k, rising."""

    def fit(self, k: int) -> CalibrationFit | None:
        """What was fitted for a number of neighbours."""
        return next((fit for fit in self.fits if fit.k == k), None)


Method = Literal["isotonic", "temperature"]


class ReliabilityBin(Record):
    """Votes whose probability lies in one interval."""

    low: float
    high: float
    count: int
    probability: float
    """Mean probability of them."""
    accuracy: float
    """Share of them that were right."""


class CoveragePoint(Record):
    """What is right of the votes that remain, where the least certain are not answered."""

    threshold: float
    """Of the certainty: only votes that reach it are answered."""
    coverage: float
    """Share of the votes that are answered."""
    accuracy: float
    """Share of those that are right."""


class Curve(Record):
    """A probability for every top share: points between which is interpolated."""

    method: Method
    """How it was fitted."""
    temperature: float | None = None
    """Of `temperature`; above 1 the votes were too sure, below 1 not sure enough."""
    shares: tuple[float, ...] = ()
    """Of `isotonic`: rising top shares."""
    probabilities: tuple[float, ...] = ()
    """Of `isotonic`: the probability at each of them, rising."""

    def at(self, shares: Sequence[float]) -> float:
        """The probability that the first label of a vote is right.

        Args:
            shares: Of the vote, largest first; they sum to 1.
        """
        if self.method == "temperature":
            return softened(shares, self.temperature or 1.0)
        return float(np.interp(shares[0], self.shares, self.probabilities))


def softened(shares: Sequence[float], temperature: float) -> float:
    """The first of some shares after each was raised to 1 / temperature and all were normalised.

    Temperature scaling (Guo et al. 2017, section 4.2), the logits being the logs of the shares.
    """
    top = shares[0]
    return 1.0 / float(sum((share / top) ** (1.0 / temperature) for share in shares if share > 0))


class CalibrationFacts(Record):
    """The calibration of a collection, and whether it is still valid."""

    stale: bool
    """Whether the collection has changed since; it is then not applied to votes."""
    calibration: Calibration
