"""Hits that differ from each other: maximal marginal relevance."""

from __future__ import annotations

import numpy as np

from search.index.contract import Vectors


def mmr(scores: list[float], vectors: Vectors, k: int, weight: float) -> list[int]:
    """Which candidates to show, one after the other.

    Each next one has the largest weight * score - (1 - weight) * (cosine to the nearest one
    chosen so far) (Carbonell and Goldstein 1998, section 2). Equal values go to the earlier
    candidate.

    Args:
        scores: Similarity of each candidate to the query, best first.
        vectors: n x dim, rows of length 1.
        k: How many are chosen.
        weight: 1 keeps the order of similarity, 0 looks at variety alone after the first.

    Returns:
        Up to `k` positions, in the order chosen.
    """
    relevance = weight * np.asarray(scores, np.float64)
    rows = vectors.astype(np.float64)
    nearest = np.full(len(scores), -1.0)
    free = np.ones(len(scores), bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        value = relevance - (1 - weight) * nearest if chosen else np.asarray(scores, np.float64)
        at = int(np.argmax(np.where(free, value, -np.inf)))
        chosen.append(at)
        free[at] = False
        nearest = np.maximum(nearest, rows @ rows[at])
    return chosen
