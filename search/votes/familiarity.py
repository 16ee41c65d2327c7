"""How foreign a query is to a collection: what the axes of its own items cannot express."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.neighbours.groups import Rows
from search.transforms.contract import Vectors

Floats = NDArray[np.float64]
SAMPLE = 4000
"""Items that are looked at: the first by id, and ids are digests, so that they are a sample."""
FEWEST = 100
"""Items below which nothing is said."""
KEPT = 0.9995
"""Share of the variance that the axes hold, by at most half as many axes as there are dimensions.
Trained encoders keep the last hundredth for what tells a stranger; chosen in `docs/served.md`."""
QUANTILE = 0.99
"""Share of the collection's own items that are familiar, by axes fitted without their patients."""
FOLDS = 3


@dataclass(frozen=True)
class Familiar:
    """The principal axes of a collection, and how far its own items lie from them."""

    mean: Floats
    """Length dim."""
    axes: Floats
    """m x dim, orthonormal rows."""
    far: float
    """Residual beyond which a query is unlike the collection."""

    def residual(self, vectors: Vectors) -> Floats:
        """The length of what the axes cannot express of each vector.

        The residual score of ViM (Wang et al. 2022, section 3).

        Args:
            vectors: n x dim.
        """
        centred = np.asarray(vectors, np.float64) - self.mean
        inside = np.square(centred @ self.axes.T).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(np.square(centred).sum(axis=1) - inside, 0.0)))


def fitted(
    vectors: Vectors, groups: Rows, held_out: Callable[[Rows, Rows], Vectors] | None = None
) -> Familiar | None:
    """The axes of some items; `None` where they are too few to say what is foreign.

    How far is far is measured on items of groups that the axes were not fitted on.

    Args:
        vectors: n x dim.
        groups: Of each item: `search.neighbours.groups.item_groups`.
        held_out: Gives the vectors for the rows that the axes are fitted on and those that they
            are measured on, where those of the index would flatter the latter, because their own
            labels chose them (`search.votes.held_out`).
    """
    folds = groups % FOLDS
    if len(vectors) < FEWEST or len(np.unique(folds)) < FOLDS:
        return None
    apart = []
    for fold in range(FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        rows = vectors if held_out is None else held_out(train, test)
        apart.append(Familiar(*_axes(rows[train]), 0.0).residual(rows[test]))
    return Familiar(*_axes(vectors), far=float(np.quantile(np.concatenate(apart), QUANTILE)))


def _axes(vectors: Vectors) -> tuple[Floats, Floats]:
    """The mean, and the fewest principal axes that hold `KEPT` of the variance."""
    rows = vectors.astype(np.float64)
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    share = np.cumsum(values[::-1]) / max(float(values.sum()), 1e-12)
    count = min(int(np.searchsorted(share, KEPT)) + 1, max(1, len(values) // 2))
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :count].T)
