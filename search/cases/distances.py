"""Distances between bags of vectors: a case as the multiset of its cells. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.index.contract import Vectors

Floats = NDArray[np.float64]
PROJECTIONS = 64
"""Directions of the sliced transport."""
ROUNDS = 25
"""Rounds of k-means."""
SEED = 20_26
SOFTNESS = 0.05
"""Of the softmax over prototypes."""


def mean_vector(bag: Vectors, weights: Floats | None = None) -> Floats:
    """The mean of a bag, of length 1; zero where its vectors cancel out.

    Args:
        bag: n x dim.
        weights: Of each vector; equal ones if left out.
    """
    mean = np.average(bag.astype(np.float64), axis=0, weights=weights)
    length = np.linalg.norm(mean)
    return np.asarray(mean / length if length > 1e-12 else mean * 0)


def max_sims(
    cosines: Floats | Vectors, weights: Sequence[Floats], others: Floats | None = None
) -> Floats:
    """1 - the mean cosine of each vector to the nearest of the other bag, both ways: 0 to 2.

    The symmetric form of late interaction (Khattab and Zaharia 2020, section 3.3), of one bag
    with several.

    Args:
        cosines: Of the vectors of all of the several (rows, bag after bag) to those of the one.
        weights: Of the vectors of each of the several.
        others: Of those of the one; equal ones if left out.
    """
    starts = np.cumsum([0, *(len(one) for one in weights[:-1])])
    mine, theirs = np.concatenate(weights), np.ones(cosines.shape[1]) if others is None else others
    there = np.add.reduceat(cosines.max(axis=1) * mine, starts) / np.add.reduceat(mine, starts)
    back = (np.maximum.reduceat(cosines, starts, axis=0) * theirs).sum(axis=1) / theirs.sum()
    return np.asarray(1 - (there + back) / 2)


def kmeans(vectors: Vectors, n: int) -> Vectors:
    """Up to `n` prototypes of length 1: spherical k-means, the same for the same rows.

    Started with k-means++ (Arthur and Vassilvitskii 2007) under a fixed seed; a prototype
    that loses all its rows stays where it was.

    Args:
        vectors: m x dim, rows of length 1.
        n: How many; fewer where there are fewer different rows.
    """
    rows = vectors.astype(np.float64)
    rng = np.random.default_rng(SEED)
    centres = [rows[int(rng.integers(len(rows)))]]
    gap = 1 - rows @ centres[0]
    while len(centres) < min(n, len(rows)):
        chance = np.where(gap > 1e-6, gap, 0.0)  # equal rows are apart by rounding alone
        if not chance.any():
            break
        centres.append(rows[int(rng.choice(len(rows), p=chance / chance.sum()))])
        gap = np.minimum(gap, 1 - rows @ centres[-1])
    found = np.stack(centres)
    for _ in range(ROUNDS):
        nearest = (rows @ found.T).argmax(axis=1)
        moved = found.copy()
        for at in range(len(found)):
            if (mine := rows[nearest == at]).size:
                moved[at] = mean_vector(np.asarray(mine, np.float32))
        if np.allclose(moved, found, atol=1e-9):
            break
        found = moved
    return np.asarray(found, np.float32)


def histogram(bag: Vectors, prototypes: Vectors, weights: Floats | None = None) -> Floats:
    """The share of a bag's vectors that is nearest to each prototype."""
    nearest = (bag.astype(np.float64) @ prototypes.astype(np.float64).T).argmax(axis=1)
    counts = np.bincount(nearest, weights=weights, minlength=len(prototypes))
    return np.asarray(counts / counts.sum())


def soft_histogram(bag: Vectors, prototypes: Vectors, weights: Floats | None = None) -> Floats:
    """`histogram` with each vector shared among the prototypes that are near it.

    Shares fall with the cosine as a softmax of temperature `SOFTNESS`, so that a cell between two
    kinds does not count for one of them alone.
    """
    cosines = bag.astype(np.float64) @ prototypes.astype(np.float64).T / SOFTNESS
    shares = np.exp(cosines - cosines.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.asarray(np.average(shares, axis=0, weights=weights))


def vlad(bag: Vectors, prototypes: Vectors, weights: Floats | None = None) -> Floats:
    """The bag by where its vectors lie around each prototype: prototypes x dim numbers in a row.

    The vector of locally aggregated descriptors (Jegou et al. 2010), the residuals of each
    prototype and then the whole brought to length 1 (Arandjelovic and Zisserman 2013), each
    prototype by the root of its share. Zero where every vector is a prototype.
    """
    rows, centres = bag.astype(np.float64), prototypes.astype(np.float64)
    nearest = (rows @ centres.T).argmax(axis=1)
    even = np.full(len(rows), 1 / len(rows)) if weights is None else weights
    found = np.zeros(centres.shape)
    for at in range(len(centres)):
        mine = nearest == at
        residual = (even[mine, None] * (rows[mine] - centres[at])).sum(axis=0)
        if (length := np.linalg.norm(residual)) > 1e-12:
            found[at] = residual / length * np.sqrt(even[mine].sum())
    length = np.linalg.norm(found)
    return np.asarray(found / length if length > 1e-12 else found).ravel()


def directions(dim: int, n: int = PROJECTIONS) -> Floats:
    """`n` fixed directions, dim x n, columns of length 1."""
    drawn = np.random.default_rng(SEED).normal(size=(dim, n))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=0))


def transport_distance(
    one: Vectors,
    other: Vectors,
    along: Floats,
    weights: Floats | None = None,
    others: Floats | None = None,
) -> float:
    """The sliced 2-Wasserstein distance (Bonneel et al. 2015, section 3): 0 to 2.

    Along each direction both bags are sorted, and the squares of the gaps between equal
    quantiles are summed exactly, also for bags of different sizes and weights. Scaled by the
    square root of the dimension, so that it is near the distance of the vectors themselves.

    Args:
        one: n x dim.
        other: m x dim.
        along: See `directions`.
        weights: Of the vectors of `one`; equal ones if left out.
        others: Of those of `other`.
    """
    left, right = one.astype(np.float64) @ along, other.astype(np.float64) @ along
    mine = np.full(len(one), 1 / len(one)) if weights is None else weights / weights.sum()
    theirs = np.full(len(other), 1 / len(other)) if others is None else others / others.sum()
    total = 0.0
    for a, b in zip(left.T, right.T, strict=True):
        first, second = np.argsort(a), np.argsort(b)
        ends_a, ends_b = np.cumsum(mine[first]), np.cumsum(theirs[second])
        ends = np.sort(np.concatenate([ends_a[:-1], ends_b[:-1], [1.0]]))
        width = np.diff(ends, prepend=0.0)
        middle = ends - width / 2
        at = np.minimum(np.searchsorted(ends_a, middle), len(a) - 1)
        to = np.minimum(np.searchsorted(ends_b, middle), len(b) - 1)
        total += float(width @ (a[first][at] - b[second][to]) ** 2)
    return float(np.sqrt(max(total, 0.0) / along.shape[1] * along.shape[0]))


def pairs(one: Vectors, other: Vectors, most: int) -> list[tuple[int, int, float]]:
    """Which vector of one bag goes with which of the other: the nearest pair first, each once.

    Returns:
        Position in `one`, position in `other`, cosine; falling cosine, at most `most`.
    """
    cosines = one.astype(np.float64) @ other.astype(np.float64).T
    found: list[tuple[int, int, float]] = []
    free = cosines.copy()
    while len(found) < min(most, *cosines.shape):
        at = int(free.argmax())
        row, column = divmod(at, cosines.shape[1])
        found.append((row, column, float(np.clip(cosines[row, column], -1, 1))))
        free[row] = free[:, column] = -np.inf
    return found
