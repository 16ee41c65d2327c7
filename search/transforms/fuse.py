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
    Rows,
    Sample,
    Vectors,
    Words,
    halves,
    inverse_root,
    shrunk,
    unit,
)

Matrix = NDArray[np.float64]

FEWEST = 100
"""Cells below which what encoders agree on is chance."""
SHRINKAGE = 0.1
"""Share of the identity in the covariance of each encoder's vectors."""
AXES = 64
"""Most directions of agreement that are kept."""
TOLD = 8
"""Directions whose agreement says how much the other encoders are listened to."""
DIVERGED = 0.3
"""Share of what the other encoders add that is not consensus."""


@dataclass(frozen=True)
class Fuse:
    """The encoder named first, what the others agree with it on, and what they say beyond that.

    Consensus is generalised canonical correlation (MAXVAR: Kettenring 1971), divergence what a
    regression on the consensus leaves of the other encoders' vectors: FM^2 in closed form. Nothing
    but agreement can tell a good partner from a useless one without labels, and agreement that was
    fitted is mostly chance; so it is measured on groups that it was not fitted on, and decides how
    much of the squared length the others get.
    """

    lengths: tuple[int, ...]
    """Of each encoder's part of a vector."""
    share: float
    """Of the squared length for consensus and divergence together."""
    mean: NDArray[np.float32]
    """Sum of `lengths`."""
    agreed: NDArray[np.float32]
    """Sum of `lengths` x axes: centred vectors to consensus."""
    told: NDArray[np.float32]
    """Axes x sum of the other lengths: what consensus says of the other encoders' vectors."""

    sites: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """Axes of the consensus, and every number of the encoders."""
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
        vectors = _parted(sample.vectors, sample.parts)
        mean, covariance = _spread(vectors)
        whitening = _whitening(covariance, sample.parts)
        agreement = _agreement(vectors, sample.parts, sample.groups)
        kept = agreement > 0
        agreed = (_consensus(covariance, whitening) * agreement)[:, kept]
        first = sample.parts[0]
        # Regression of the others on the consensus: cov(consensus)^-1 cov(consensus, others)
        inner, outer = agreed.T @ covariance @ agreed, agreed.T @ covariance[:, first:]
        return cls(
            sample.parts,
            float((agreement[:TOLD] ** 2).mean()),
            mean.astype(np.float32),
            agreed.astype(np.float32),
            np.linalg.lstsq(inner, outer, rcond=1e-9)[0].astype(np.float32),
        )

    def apply(self, vectors: Vectors, sites: Words) -> Vectors:
        """The first encoder, the consensus, and the divergence of the others behind each other."""
        first = self.lengths[0]
        centred = _parted(vectors, self.lengths) - self.mean
        consensus = centred @ self.agreed
        blocks = (
            (centred[:, :first], 1 - self.share),
            (consensus, self.share * (1 - DIVERGED)),
            (centred[:, first:] - consensus @ self.told, self.share * DIVERGED),
        )
        return unit(
            np.concatenate([unit(rows) * np.float32(part**0.5) for rows, part in blocks], axis=1)
        )

    def nearest(self, vectors: Vectors) -> Words:
        """Empty words: all sites are treated alike."""
        return np.full(len(vectors), "")

    def with_site(self, name: str, vectors: Vectors) -> Self:
        """Itself."""
        return self

    def facts(self) -> dict[str, Any]:
        """The lengths of the parts, and the share of the others."""
        return {"lengths": list(self.lengths), "share": self.share}

    def tables(self) -> dict[str, NDArray[np.float32]]:
        """Mean and maps."""
        return {"mean": self.mean, "agreed": self.agreed, "told": self.told}

    @classmethod
    def load(cls, facts: dict[str, Any], tables: dict[str, NDArray[np.float32]]) -> Self:
        """What `facts` and `tables` gave."""
        mean, agreed, told = (tables[name] for name in ("mean", "agreed", "told"))
        return cls(tuple(facts["lengths"]), facts["share"], mean, agreed, told)


def _parted(vectors: Vectors, lengths: Sequence[int]) -> Vectors:
    """Rows whose parts have length 1 each."""
    return np.concatenate([unit(vectors[:, part]) for part in _slices(lengths)], axis=1)


def _slices(lengths: Sequence[int]) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(np.cumsum((0, *lengths)).tolist())]


def _spread(vectors: Vectors) -> tuple[Matrix, Matrix]:
    """Mean and covariance."""
    wide = vectors.astype(np.float64)
    mean = wide.mean(axis=0)
    return mean, (wide - mean).T @ (wide - mean) / len(wide)


def _whitening(covariance: Matrix, lengths: Sequence[int]) -> Matrix:
    """Whitens each part by itself: sum of `lengths` squared, zeros between parts."""
    whitening = np.zeros_like(covariance)
    for part in _slices(lengths):
        whitening[part, part] = inverse_root(shrunk(covariance[part, part], SHRINKAGE))
    return whitening


def _consensus(covariance: Matrix, whitening: Matrix) -> Matrix:
    """Directions in which whitened parts vary together most: sum of `lengths` x `AXES`."""
    axes = np.linalg.eigh(whitening @ covariance @ whitening)[1]
    return np.asarray(whitening @ axes[:, ::-1][:, :AXES])


def _agreement(vectors: Vectors, lengths: Sequence[int], groups: Rows) -> NDArray[np.float64]:
    """How far the parts agree on the first axis, the second, and so on, in groups not fitted on.

    Returns:
        Up to `AXES` numbers from 0 to 1: the correlation between parts, the mean of two halves.
    """
    half, found = halves(groups), []
    for fitted, asked in ((vectors[half], vectors[~half]), (vectors[~half], vectors[half])):
        covariance = _spread(fitted)[1]
        axes = _consensus(covariance, _whitening(covariance, lengths))
        centred = asked - asked.mean(axis=0)
        seen = np.stack([centred[:, part] @ axes[part] for part in _slices(lengths)])
        alone, together = seen.var(axis=1).sum(axis=0), seen.sum(axis=0).var(axis=0)
        found.append((together / np.maximum(alone, 1e-12) - 1) / (len(lengths) - 1))
    return np.asarray(np.clip(np.mean(found, axis=0), 0, 1))
