"""How foreign a query is to a collection: what the axes of its own items cannot express."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from search.index.contract import Store, Stored, Vectors

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


def fit(store: Store) -> Familiar | None:
    """The axes of what is stored; `None` where that is too little to say what is foreign."""
    return fitted(store.scroll(None, SAMPLE).items)


def fitted(items: Sequence[Stored]) -> Familiar | None:
    """The axes of some items.

    How far is far is measured on items of patients (sources, where no patient is known) that the
    axes were not fitted on.
    """
    groups = np.array([_fold(one.item.patient or one.item.source) for one in items])
    if len(items) < FEWEST or len(np.unique(groups)) < FOLDS:
        return None
    rows = np.stack([one.vector for one in items]).astype(np.float64)
    apart = [
        Familiar(*_axes(rows[groups != fold]), 0.0).residual(rows[groups == fold])
        for fold in range(FOLDS)
    ]
    return Familiar(*_axes(rows), far=float(np.quantile(np.concatenate(apart), QUANTILE)))


def _fold(group: str) -> int:
    return int(sha256(group.encode()).hexdigest()[:8], 16) % FOLDS


def _axes(rows: Floats) -> tuple[Floats, Floats]:
    """The mean, and the fewest principal axes that hold `KEPT` of the variance."""
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    share = np.cumsum(values[::-1]) / max(float(values.sum()), 1e-12)
    count = min(int(np.searchsorted(share, KEPT)) + 1, max(1, len(values) // 2))
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :count].T)
