"""Sites brought to one mean and one spread, labels not read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from search.transforms.contract import (
    CannotFit,
    Sample,
    Vectors,
    Words,
    inverse_root,
    shrunk,
    unit,
)

FEWEST = 50
"""Cells that a site needs before its mean and spread are trusted."""
SHRINKAGE = 0.6
"""Share of the identity in the covariance of a site. Chosen on Chula and PBC to BCCD: with less,
directions of little spread are blown up, and scores within a site fall."""
PRIOR = 5.0
"""Cells' worth of trust in the nearest fitted site where a new one is learned from few cells."""


@dataclass(frozen=True)
class Align:
    """Each site's cells less its mean, divided by its shrunken spread."""

    sites: tuple[str, ...]
    means: NDArray[np.float32]
    """sites x dim."""
    whitenings: NDArray[np.float32]
    """sites x dim x dim: inverse square roots of the shrunken covariances."""

    @property
    def dim(self) -> int:
        """As long as the vectors that it was fitted on."""
        return int(self.means.shape[1])

    @classmethod
    def fit(cls, sample: Sample, fewest: int = FEWEST) -> Align:
        """Mean and shrunken covariance of each site.

        Raises:
            CannotFit: no site is known, or one has fewer than `fewest` cells.
        """
        names, counts = np.unique(sample.sites[sample.sites != ""], return_counts=True)
        if not len(names):
            raise CannotFit(
                "aligning needs cells whose site is known, and none is; give --site when you "
                "ingest, or use the kind 'metric'"
            )
        if (counts < fewest).any():
            few = int(counts.argmin())
            raise CannotFit(
                f"site {str(names[few])!r} has {counts[few]} cells, and aligning needs {fewest} "
                "of each site; ingest more of it, or leave it without a site"
            )
        fitted = [_spread(sample.vectors[sample.sites == name]) for name in names]
        return cls(
            tuple(map(str, names)),
            np.stack([mean for mean, _ in fitted]),
            np.stack([whitening for _, whitening in fitted]),
        )

    def apply(self, vectors: Vectors, sites: Words) -> Vectors:
        """Each row less the mean of its site and divided by its spread."""
        return unit(self._aligned(vectors, self._known(vectors, sites)))

    def nearest(self, vectors: Vectors) -> Words:
        """The site under whose normal distribution each row is likeliest."""
        away = []
        for mean, whitening, volume in zip(
            self.means, self.whitenings, self._log_volumes, strict=True
        ):
            moved = (vectors - mean) @ whitening
            away.append(np.einsum("nd,nd->n", moved, moved) + volume)
        return np.asarray(np.array(self.sites, np.str_)[np.argmin(away, axis=0)])

    def with_site(self, name: str, vectors: Vectors) -> Self:
        """One more site; where its cells are few, drawn towards the site that they are nearest to.

        Args:
            name: Of the site; one of that name is replaced.
            vectors: n x dim unlabelled vectors of its cells.
        """
        trust = len(vectors) / (len(vectors) + PRIOR)
        near = self.sites.index(str(self.nearest(vectors.mean(axis=0, keepdims=True))[0]))
        mean = trust * vectors.mean(axis=0) + (1 - trust) * self.means[near]
        whitening = self.whitenings[near]
        if len(vectors) >= FEWEST:
            whitening = _spread(vectors)[1]
        kept = [at for at, site in enumerate(self.sites) if site != name]
        return replace(
            self,
            sites=(*(self.sites[at] for at in kept), name),
            means=np.concatenate([self.means[kept], mean[None].astype(np.float32)]),
            whitenings=np.concatenate([self.whitenings[kept], whitening[None]]),
        )

    def facts(self) -> dict[str, Any]:
        """The names of the sites."""
        return {"sites": list(self.sites)}

    def tables(self) -> dict[str, NDArray[np.float32]]:
        """Means and whitenings."""
        return {"means": self.means, "whitenings": self.whitenings}

    @classmethod
    def load(cls, facts: dict[str, Any], tables: dict[str, NDArray[np.float32]]) -> Self:
        """What `facts` and `tables` gave."""
        return cls(tuple(facts["sites"]), tables["means"], tables["whitenings"])

    @cached_property
    def _log_volumes(self) -> list[float]:
        """Logarithm of the determinant of each site's shrunken covariance."""
        return [-2 * float(np.linalg.slogdet(one.astype(np.float64))[1]) for one in self.whitenings]

    def _known(self, vectors: Vectors, sites: Words) -> Words:
        strange = ~np.isin(sites, self.sites)
        if not strange.any():
            return sites
        known = np.array(sites, np.dtype("O"))
        known[strange] = self.nearest(vectors[strange])
        return known.astype(np.str_)

    def _aligned(self, vectors: Vectors, sites: Words) -> NDArray[np.float32]:
        out = np.empty_like(vectors)
        for at, name in enumerate(self.sites):
            rows = sites == name
            if rows.any():
                out[rows] = (vectors[rows] - self.means[at]) @ self.whitenings[at]
        return out


def _spread(vectors: Vectors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and whitening of one site."""
    wide = vectors.astype(np.float64)
    mean = wide.mean(axis=0)
    covariance = (wide - mean).T @ (wide - mean) / len(wide)
    whitening = inverse_root(shrunk(covariance, SHRINKAGE))
    return mean.astype(np.float32), whitening.astype(np.float32)
