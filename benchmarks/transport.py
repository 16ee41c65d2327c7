"""Optimal transport between sites, a rival of `align`: prototypes moved, cells with them.

    uv run --with POT python benchmarks/adaptation.py --rival

HASD's idea on vectors. Each site is summed up in prototypes (cells nearest to the centres of
k-means); optimal transport carries them onto the prototypes of all sites together, mass let go
where the sites hold different mixtures of cells, and every cell moves as the prototypes near it do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import ot
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from search.transforms.contract import CannotFit, Sample, Vectors, Words, unit

Moves = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Prototypes of a site, and by how much each is moved: p x dim each."""


@dataclass(frozen=True)
class Transport:
    """Sites carried onto the prototypes of all of them."""

    common: NDArray[np.float32]
    """p x dim, of all sites."""
    mass: NDArray[np.float64]
    """p, summing to 1."""
    moves: dict[str, Moves]

    prototypes: ClassVar[int] = 48
    entropy: ClassVar[float] = 0.02
    let_go: ClassVar[float] = 0.1
    """Cost of letting mass go (unbalanced transport); infinity for balanced transport."""
    width: ClassVar[float] = 0.05
    """Squared distance within which prototypes carry a cell along."""

    @property
    def dim(self) -> int:
        return int(self.common.shape[1])

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.moves)

    @classmethod
    def fit(cls, sample: Sample) -> Transport:
        names = np.unique(sample.sites[sample.sites != ""])
        if not len(names):
            raise CannotFit("transport needs cells whose site is known")
        # as many cells of each site, so that none decides alone
        fewest = min(int((sample.sites == name).sum()) for name in names)
        rng = np.random.default_rng(0)
        rows = [
            rng.choice(np.flatnonzero(sample.sites == name), fewest, replace=False)
            for name in names
        ]
        common, mass = _prototypes(sample.vectors[np.concatenate(rows)], cls.prototypes)
        bare = cls(common, mass, {})
        moves = {str(n): bare._moves(sample.vectors[sample.sites == n]) for n in names}
        return replace(bare, moves=moves)

    def apply(self, vectors: Vectors, sites: Words) -> Vectors:
        strange = ~np.isin(sites, self.sites)
        if strange.any():
            known = np.array(sites, np.dtype("O"))
            known[strange] = self.nearest(vectors[strange])
            sites = known.astype(np.str_)
        out = np.array(vectors)
        for name, (places, steps) in self.moves.items():
            rows = sites == name
            if rows.any():
                out[rows] += _near(vectors[rows], places, self.width) @ steps
        return unit(out)

    def nearest(self, vectors: Vectors) -> Words:
        away = [
            ((vectors[:, None] - places) ** 2).sum(-1).min(1) for places, _ in self.moves.values()
        ]
        return np.asarray(np.array(self.sites, np.str_)[np.argmin(away, axis=0)])

    def with_site(self, name: str, vectors: Vectors) -> Self:
        return replace(self, moves=self.moves | {name: self._moves(vectors)})

    def _moves(self, vectors: Vectors) -> Moves:
        own, mass = _prototypes(vectors, self.prototypes)
        cost = ot.dist(own.astype(np.float64), self.common.astype(np.float64))
        if np.isinf(self.let_go):
            plan = ot.emd(mass, self.mass, cost)
        else:
            plan = ot.unbalanced.sinkhorn_unbalanced(
                mass, self.mass, cost, self.entropy, self.let_go, numItermax=5000
            )
        carried = plan.sum(axis=1, keepdims=True)
        goal = np.where(carried > 1e-12, plan @ self.common / np.maximum(carried, 1e-12), own)
        return own, (goal - own).astype(np.float32)


def _prototypes(vectors: Vectors, most: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Cells nearest to the centres of k-means (medoids), and the share of cells of each."""
    count = min(most, max(1, len(vectors) // 5))
    found = KMeans(count, n_init=1, random_state=0).fit(vectors)
    nearest = ((vectors[None] - found.cluster_centers_[:, None]) ** 2).sum(-1).argmin(axis=1)
    mass = np.bincount(found.labels_, minlength=count) / len(vectors)
    return vectors[nearest], mass


def _near(vectors: Vectors, places: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """How much each prototype carries each cell along: n x p, rows summing to 1."""
    away = ((vectors[:, None] - places) ** 2).sum(-1)
    weights = np.exp(-(away - away.min(axis=1, keepdims=True)) / width)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
