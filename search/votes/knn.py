"""The kNN vote: which label the neighbours carry, as a pure function.

The vote that is served is the vote that scores a checkpoint in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.neighbours import exact
from search.schemas.answers import Hit, ReviewedLabel, Vote
from search.schemas.questions import Weighting


@dataclass(frozen=True)
class Votes:
    """The votes of n queries over c classes."""

    shares: NDArray[np.float64]
    """n x c; each row sums to 1, or is 0 where nobody voted."""
    order: NDArray[np.int64]
    """n x c class numbers, largest share first, ties given to the nearer neighbour."""
    first: NDArray[np.int64]
    """n class numbers, the first of `order`; -1 where nobody voted."""
    margin: NDArray[np.float64]
    """n; share of the first class less that of the second."""
    tied: NDArray[np.bool_]
    """n; where the first two classes have equal weight."""


def nearest_label(
    queries: NDArray[np.floating],
    references: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: int,
    k: int = 20,
) -> NDArray[np.int64]:
    """The class of each query (m) by the vote of its `k` nearest references, each counted once.

    Args:
        queries: m x dim.
        references: n x dim.
        labels: n class numbers.
        classes: Number of classes.
        k: How many vote; all where there are fewer.
    """
    near, scores = exact.search(queries, references, min(k, len(references)))
    return votes(labels[near], scores, classes, "uniform").first


def votes(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    classes: int,
    weighting: Weighting = "similarity",
    temperature: float = 0.07,
) -> Votes:
    """The votes of the neighbours of many queries.

    `uniform` counts every neighbour once (the rule of the papers); `similarity` weighs by cosine,
    negative ones by 0; `softmax` weighs by exp(cosine / temperature) (DINO, Caron et al. 2021,
    section 4.1). Where all weights are 0, every neighbour counts once. Of two classes with equal
    weight, the one whose nearest neighbour is nearer comes first, then the lower number.

    Args:
        labels: n x k class numbers of the neighbours, nearest first; -1 does not vote.
        scores: n x k cosines, falling along each row.
        classes: Number of classes, in alphabetical order; at least 1.
        weighting: See above.
        temperature: Of `softmax`.

    Raises:
        ValueError: labels and scores differ in shape, or the temperature is not above 0.
    """
    if scores.shape != labels.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} differ in shape")
    n, k = labels.shape
    voting = labels >= 0
    weights = _weights(np.where(voting, scores, -np.inf), voting, weighting, temperature)
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
    at, first = np.arange(n), order[:, 0]
    second = order[:, min(1, classes - 1)]
    some = whole[:, 0] > 0
    return Votes(
        shares=shares,
        order=order,
        first=np.where(some, first, -1),
        margin=shares[at, first] - (shares[at, second] if classes > 1 else 0.0),
        tied=some & (near[at, first] == near[at, second]) & (classes > 1),
    )


def vote(
    hits: Sequence[Hit], weighting: Weighting = "similarity", temperature: float = 0.07
) -> Vote:
    """The label that the neighbours of one query carry; see `votes`.

    A reviewer's label counts before the recorded one, where a hit has it. Neighbours without a
    label do not vote, and the order of the hits plays no part.

    Args:
        hits: The neighbours, in any order.
        weighting: See `votes`.
        temperature: Of `softmax`.
    """
    voters = sorted(
        (hit for hit in hits if hit.label is not None),
        key=lambda hit: (-hit.score, str(hit.label), hit.item.id),
    )
    names = sorted({str(hit.label) for hit in voters})
    unlabelled = len(hits) - len(voters)
    if not voters:
        return Vote(label=None, shares={}, voters=0, unlabelled=unlabelled, margin=0.0)
    labels = np.array([[names.index(str(hit.label)) for hit in voters]])
    scores = np.array([[hit.score for hit in voters]])
    found = votes(labels, scores, len(names), weighting, temperature)
    shares = {names[at]: float(found.shares[0, at]) for at in found.order[0]}
    return Vote(
        label=next(iter(shares)),
        shares=shares,
        voters=len(voters),
        unlabelled=unlabelled,
        margin=float(found.margin[0]),
    )


def with_reviews(hits: Sequence[Hit], labels: Mapping[str, ReviewedLabel]) -> list[Hit]:
    """Hits with the reviewers' labels that they have.

    Args:
        hits: Any.
        labels: By item id.
    """
    if not labels:
        return list(hits)
    return [
        hit.model_copy(update={"reviewed": one}) if (one := labels.get(hit.item.id)) else hit
        for hit in hits
    ]


def _weights(
    cosines: NDArray[np.floating],
    voting: NDArray[np.bool_],
    weighting: Weighting,
    temperature: float,
) -> NDArray[np.float64]:
    if weighting == "uniform":
        weights = voting.astype(np.float64)
    elif weighting == "similarity":
        weights = np.where(voting, np.maximum(cosines, 0), 0.0)
    elif not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    else:
        top = np.maximum(cosines.max(axis=1, keepdims=True, initial=-np.inf), -2)
        weights = np.exp((np.where(voting, cosines, -np.inf) - top) / temperature)
    none = weights.sum(axis=1) <= 0  # every neighbour points away: all count alike
    weights[none] = voting[none]
    return weights
