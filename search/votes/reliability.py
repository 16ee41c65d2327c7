"""From vote shares to probabilities, and how far these can be trusted: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from search.schemas.calibration import CoveragePoint, Curve, ReliabilityBin, softened

Floats = NDArray[np.float64]
BINS = 10
"""Bins of a reliability curve."""
SURE_OF_NOTHING = 1e-6
"""Probabilities are kept this far from 0 and 1 in the log loss."""


def fit_temperature(votes: Sequence[Sequence[float]], right: Floats) -> Curve:
    """The temperature with the least log loss of the first label being right.

    Args:
        votes: Shares of each vote, largest first.
        right: 1 where the first label was right, else 0.
    """

    def loss(t: float) -> float:
        return log_loss(np.array([softened(vote, exp(t)) for vote in votes]), right)

    low, high = log(0.05), log(20.0)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        left, rightmost = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(rightmost):
            high = rightmost
        else:
            low = left
    return Curve(method="temperature", temperature=exp((low + high) / 2))


def fit_isotonic(top: Floats, right: Floats) -> Curve:
    """The rising steps nearest to what was right (pool adjacent violators, Barlow et al. 1972).

    Each step is drawn towards one half as if one more vote had been right and one wrong
    (Laplace), so that a short step never claims certainty.
    """
    order = np.argsort(top, kind="stable")
    blocks: list[list[float]] = []  # sum of right, count, sum of shares
    for share, one in zip(top[order], right[order], strict=True):
        blocks.append([float(one), 1.0, float(share)])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    shares = [total / n for _, n, total in blocks]
    smooth = np.maximum.accumulate([(ones + 1) / (n + 2) for ones, n, _ in blocks])
    return Curve(
        method="isotonic", shares=tuple(shares), probabilities=tuple(float(p) for p in smooth)
    )


def log_loss(probability: Floats, right: Floats) -> float:
    """Mean negative log likelihood of what was right."""
    p = np.clip(probability, SURE_OF_NOTHING, 1 - SURE_OF_NOTHING)
    return float(-np.mean(right * np.log(p) + (1 - right) * np.log(1 - p)))


def reliability(probability: Floats, right: Floats) -> tuple[ReliabilityBin, ...]:
    """The reliability curve over equal intervals of 0 to 1; empty intervals are left out."""
    bins = BINS
    at = np.minimum((probability * bins).astype(np.int64), bins - 1)
    return tuple(
        ReliabilityBin(
            low=bin / bins,
            high=(bin + 1) / bins,
            count=int((at == bin).sum()),
            probability=float(probability[at == bin].mean()),
            accuracy=float(right[at == bin].mean()),
        )
        for bin in range(bins)
        if (at == bin).any()
    )


def ece(curve: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error (Naeini et al. 2015): mean gap, weighted by count."""
    whole = sum(bin.count for bin in curve)
    return sum(bin.count * abs(bin.probability - bin.accuracy) for bin in curve) / whole


def coverage_curve(certainty: Floats, right: Floats, points: int = 20) -> tuple[CoveragePoint, ...]:
    """What is right where only the most certain votes are answered, from all of them to few.

    Votes of equal certainty are answered together or not at all.
    """
    values = np.sort(certainty)
    wanted = {float(values[int(at * len(values) / points)]) for at in range(points)}
    found = []
    for threshold in sorted(wanted):
        kept = certainty >= threshold
        found.append(
            CoveragePoint(
                threshold=threshold,
                coverage=float(kept.mean()),
                accuracy=float(right[kept].mean()),
            )
        )
    return tuple(found)
