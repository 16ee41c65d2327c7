"""The mosaic of a case: few cells that stand for all of them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.index.contract import Vectors

MOSAIC = 128
"""Cells of a mosaic."""


@dataclass(frozen=True)
class Mosaic:
    """Cells that stand for a bag."""

    rows: NDArray[np.int64]
    """Their positions in the bag, rising."""
    weights: NDArray[np.float64]
    """For each the share of the bag that it stands for; sums to 1."""


def mosaic(vectors: Vectors, classes: Sequence[str | None], most: int = MOSAIC) -> Mosaic:
    """Cells such that every cell of the bag has a similar one of its own class among them.

    Each class has places in proportion to its cells, at least one where there are enough
    places. Within a class they go to the cell nearest to the mean and then, again and again, to
    the cell that is farthest from all chosen ones: the greedy k-centre (Gonzalez 1985), within
    twice the best radius. A chosen cell weighs as many cells as are nearest to it, so that rare
    shapes are in the mosaic and do not outweigh common ones.

    Args:
        vectors: n x dim, rows of length 1.
        classes: n labels; cells without one are a class of their own.
        most: Cells of the mosaic; a bag of no more is its own mosaic.
    """
    n = len(vectors)
    if n <= most:
        return Mosaic(np.arange(n), np.full(n, 1 / n))
    words = np.array(["" if one is None else f"={one}" for one in classes])
    _, member, sizes = np.unique(words, return_inverse=True, return_counts=True)
    rows, weights = [], []
    for at, places in zip(np.argsort(-sizes), _places(np.sort(sizes)[::-1], most), strict=True):
        if places:
            mine = np.flatnonzero(member == at)
            chosen, counts = _centres(vectors[mine], places)
            rows.append(mine[chosen])
            weights.append(counts)
    found, share = np.concatenate(rows), np.concatenate(weights)
    order = np.argsort(found)
    return Mosaic(found[order], share[order] / share.sum())


def _places(sizes: NDArray[np.int64], most: int) -> list[int]:
    """Places of each class, largest class first."""
    kept = sizes[:most]
    places = np.maximum(1, np.floor(most * kept / kept.sum()).astype(int))
    while places.sum() > most:
        places[int(places.argmax())] -= 1
    places = np.minimum(places, kept)
    for at in range(len(places)):
        places[at] += min(most - int(places.sum()), int(kept[at] - places[at]))
    return [*places.tolist(), *[0] * (len(sizes) - len(kept))]


def _centres(rows: Vectors, most: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positions of the centres, and how many rows are nearest to each."""
    chosen = [int((rows @ rows.mean(axis=0)).argmax())]
    best = rows @ rows[chosen[0]]
    nearest = np.zeros(len(rows), np.int64)
    while len(chosen) < most:
        far = int(best.argmin())
        cosines = rows @ rows[far]
        nearer = cosines > best
        nearer[far] = True
        nearest[nearer] = len(chosen)
        best = np.where(nearer, cosines, best)
        best[far] = np.inf  # never again, also where rounding makes it far from itself
        chosen.append(far)
    counts = np.bincount(nearest, minlength=len(chosen)).astype(np.float64)
    return np.array(chosen), counts
