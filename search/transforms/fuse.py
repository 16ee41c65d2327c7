"""Encoders that stand behind each other, fused: what they agree on first, what each adds behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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

FEWEST = 100
"""Cells below which what encoders agree on is chance."""
SHRINKAGE = 0.1
"""Share of the identity in the covariance of each encoder's vectors."""
AXES = 64
"""Most directions of agreement that are kept."""
POWER = 1.0
AGREED = 0.5
"""Share of the squared length for what encoders agree on."""


@dataclass(frozen=True)
class Fuse:
    """Consensus of several encoders, and the divergence of each as a residual.

    Consensus is generalised canonical correlation (MAXVAR: Kettenring 1971; Tenenhaus and
    Tenenhaus 2011), fitted without labels; a residual is what a regression on the consensus leaves
    of an encoder's vector. Consensus and divergence apart are the idea of FM^2, in closed form.
    """

    lengths: tuple[int, ...]
    """Of each encoder's part of a vector."""
    mean: NDArray[np.float32]
    """Sum of `lengths`."""
    agreed: NDArray[np.float32]
    """Sum of `lengths` x axes: centred vectors to consensus."""
    told: NDArray[np.float32]
    """Axes x sum of `lengths`: consensus to what it says of each encoder's centred vector."""

    sites: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """Axes of the consensus, and every number of the residuals."""
        return int(sum(self.agreed.shape))

    @classmethod
    def fit(cls, sample: Sample) -> Fuse:
        """Agreement of the encoders over all rows; neither labels nor sites are read.

        Raises:
            CannotFit: vectors of one encoder, or too few rows.
        """
        if len(sample.parts) < 2:
            raise CannotFit(
                "the kind 'fuse' needs vectors of two encoders, and these are of one; ingest or "
                "re-index with both joined by a plus, as in --encoder hemaseek-s+measured"
            )
        if len(sample) < FEWEST:
            raise CannotFit(f"the kind 'fuse' needs {FEWEST} items, got {len(sample)}; ingest more")
        vectors = _parted(sample.vectors, sample.parts).astype(np.float64)
        mean = vectors.mean(axis=0)
        covariance = (vectors - mean).T @ (vectors - mean) / len(vectors)
        agreed = _consensus(covariance, sample.parts)
        # Regression of every number on the consensus: cov(consensus)^-1 cov(consensus, vector)
        told = np.linalg.lstsq(agreed.T @ covariance @ agreed, agreed.T @ covariance, rcond=1e-9)[0]
        return cls(
            sample.parts,
            mean.astype(np.float32),
            agreed.astype(np.float32),
            told.astype(np.float32),
        )

    def apply(self, vectors: Vectors, sites: Words) -> Vectors:
        """Consensus with `AGREED` of the squared length, residuals with the rest.

        Residuals keep their lengths beside each other: an encoder to which all cells look alike
        adds little.
        """
        centred = _parted(vectors, self.lengths) - self.mean
        consensus = centred @ self.agreed
        residual = unit(centred - consensus @ self.told) * np.float32((1 - AGREED) ** 0.5)
        return unit(np.concatenate([unit(consensus) * np.float32(AGREED**0.5), residual], axis=1))

    def nearest(self, vectors: Vectors) -> Words:
        """Empty words: all sites are treated alike."""
        return np.full(len(vectors), "")

    def with_site(self, name: str, vectors: Vectors) -> Self:
        """Itself."""
        return self

    def facts(self) -> dict[str, Any]:
        """The lengths of the parts."""
        return {"lengths": list(self.lengths)}

    def tables(self) -> dict[str, NDArray[np.float32]]:
        """Mean, and both maps."""
        return {"mean": self.mean, "agreed": self.agreed, "told": self.told}

    @classmethod
    def load(cls, facts: dict[str, Any], tables: dict[str, NDArray[np.float32]]) -> Self:
        """What `facts` and `tables` gave."""
        mean, agreed, told = (tables[name] for name in ("mean", "agreed", "told"))
        return cls(tuple(facts["lengths"]), mean, agreed, told)


def _parted(vectors: Vectors, lengths: Sequence[int]) -> Vectors:
    """Rows whose parts have length 1 each."""
    ends = np.cumsum((0, *lengths))
    return np.concatenate([unit(vectors[:, a:b]) for a, b in pairwise(ends)], axis=1)


def _consensus(covariance: NDArray[np.float64], lengths: Sequence[int]) -> NDArray[np.float64]:
    """Directions in which whitened parts vary together most (sum of `lengths` x axes).

    Of V parts, a direction's eigenvalue is 1 where no two parts agree and V where all do; only
    those above 1 are kept, each scaled by how far above.
    """
    whitening = np.zeros_like(covariance)
    ends = np.cumsum((0, *lengths))
    for a, b in pairwise(ends):
        whitening[a:b, a:b] = inverse_root(shrunk(covariance[a:b, a:b], SHRINKAGE))
    values, axes = np.linalg.eigh(whitening @ covariance @ whitening)
    values, axes = values[::-1][:AXES], axes[:, ::-1][:, :AXES]
    agreement = np.maximum(values - 1, 0) / (len(lengths) - 1)
    return np.asarray(whitening @ (axes * agreement**POWER)[:, agreement > 0])
