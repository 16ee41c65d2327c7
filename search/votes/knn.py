"""The kNN vote: what neighbours say about a label, as a pure function.

The vote that is served is the vote that scores a checkpoint in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from numpy.typing import NDArray

from search.schemas.answers import Hit, Vote
from search.schemas.questions import Weighting


def weigh(scores: Sequence[float], weighting: Weighting, temperature: float) -> list[float]:
    """The weight of each neighbour.

    `uniform` counts heads (the papers' rule); `similarity` weighs by cosine, negative ones
    not at all; `softmax` weighs by exp(cosine / temperature) (DINO, Caron et al. 2021, 4.1).
    """
    if weighting == "uniform":
        return [1.0] * len(scores)
    if weighting == "similarity":
        return [max(score, 0.0) for score in scores]
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    top = max(scores, default=0.0)
    return [exp((score - top) / temperature) for score in scores]


def vote(
    hits: Sequence[Hit], weighting: Weighting = "similarity", temperature: float = 0.07
) -> Vote:
    """The label that the neighbours carry.

    Neighbours without a label do not vote. Where two labels have equal weight, the one whose
    nearest neighbour is nearer comes first, then the one earlier in the alphabet: the same
    hits give the same vote whatever their order.

    Args:
        hits: The neighbours, any order.
        weighting: See `weigh`.
        temperature: Of `softmax`.
    """
    voters = sorted(
        (hit for hit in hits if hit.item.label is not None),
        key=lambda hit: (-hit.score, str(hit.item.label), hit.item.id),
    )
    labels = [str(hit.item.label) for hit in voters]
    weights = weigh([hit.score for hit in voters], weighting, temperature)
    if voters and sum(weights) <= 0:  # every neighbour points away: all count alike
        weights = [1.0] * len(voters)
    total: dict[str, float] = {}
    for label, weight in zip(labels, weights, strict=True):
        total[label] = total.get(label, 0.0) + weight
    nearest = {label: at for at, label in reversed(list(enumerate(labels)))}
    order = sorted(total, key=lambda label: (-round(total[label], 9), nearest[label], label))
    whole = sum(total.values())
    shares = {label: total[label] / whole for label in order}
    values = list(shares.values())
    return Vote(
        label=order[0] if order else None,
        shares=shares,
        voters=len(voters),
        unlabelled=len(hits) - len(voters),
        margin=values[0] - values[1] if len(values) > 1 else float(bool(values)),
    )


def vote_many(
    labels: NDArray[np.integer], scores: NDArray[np.floating], classes: int
) -> NDArray[np.int64]:
    """`vote` with uniform weights for many queries at once.

    Args:
        labels: n x k class numbers of the neighbours, nearest first; -1 does not vote.
        scores: n x k similarities, falling along each row; only their order matters.
        classes: Number of classes.

    Returns:
        n class numbers; -1 where nobody voted. Ties go to the label whose nearest neighbour
        is nearer: equal to `vote` wherever scores differ.
    """
    n, k = labels.shape
    if scores.shape != labels.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} differ in shape")
    rows = np.repeat(np.arange(n), k)
    flat = labels.ravel().astype(np.int64)
    voting = flat >= 0
    counts = np.zeros((n, classes), np.float64)
    np.add.at(counts, (rows[voting], flat[voting]), 1.0)
    rank = np.full((n, classes), k, np.int64)
    np.minimum.at(rank, (rows[voting], flat[voting]), np.tile(np.arange(k), n)[voting])
    best = np.lexsort((np.broadcast_to(np.arange(classes), rank.shape), rank, -counts), axis=1)[
        :, 0
    ]
    return np.where(counts.max(axis=1) > 0, best, -1)


@dataclass(frozen=True)
class Votes:
    """Many votes."""

    shares: NDArray[np.float64]
    """n x classes; each row sums to 1, or is 0 where nobody voted."""
    first: NDArray[np.int64]
    """n class numbers, ties given to the nearer neighbour; -1 where nobody voted."""
    margin: NDArray[np.float64]
    """Share of the first label less that of the second."""
    tied: NDArray[np.bool_]
    """Where the first two labels have equal weight."""


def votes(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    classes: int,
    weighting: Weighting = "similarity",
    temperature: float = 0.07,
) -> Votes:
    """`vote` for many queries at once.

    Args:
        labels: n x k class numbers of the neighbours, nearest first; -1 does not vote.
        scores: n x k cosines, falling along each row.
        classes: Number of classes, in alphabetical order.
        weighting: See `weigh`.
        temperature: Of `softmax`.
    """
    voting = labels >= 0
    cosines = np.where(voting, scores, -np.inf).astype(np.float64)
    if weighting == "uniform":
        weights = voting.astype(np.float64)
    elif weighting == "similarity":
        weights = np.where(voting, np.maximum(cosines, 0), 0.0)
    elif not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    else:
        top = np.maximum(cosines.max(axis=1, keepdims=True, initial=-np.inf), -2)
        weights = np.where(voting, np.exp((np.where(voting, cosines, 0) - top) / temperature), 0.0)
    away = weights.sum(axis=1) <= 0  # every neighbour points away: all count alike
    weights[away] = voting[away]
    n, k = labels.shape
    rows = np.repeat(np.arange(n), k)[voting.ravel()]
    flat = labels.ravel()[voting.ravel()].astype(np.int64)
    total = np.zeros((n, classes))
    np.add.at(total, (rows, flat), weights.ravel()[voting.ravel()])
    rank = np.full((n, classes), k, np.int64)
    np.minimum.at(rank, (rows, flat), np.tile(np.arange(k), n)[voting.ravel()])
    near = total.round(9)
    order = np.lexsort((np.broadcast_to(np.arange(classes), rank.shape), rank, -near), axis=1)
    whole = total.sum(axis=1, keepdims=True)
    shares = np.divide(total, whole, out=np.zeros_like(total), where=whole > 0)
    at = np.arange(n)
    second = order[:, 1] if classes > 1 else order[:, 0]
    led = shares[at, second] if classes > 1 else np.zeros(n)
    some = whole[:, 0] > 0
    return Votes(
        shares=shares,
        first=np.where(some, order[:, 0], -1),
        margin=shares[at, order[:, 0]] - led,
        tied=some & (near[at, order[:, 0]] == near[at, second]) & (classes > 1),
    )
