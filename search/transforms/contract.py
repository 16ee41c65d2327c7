"""What a transform is fitted on, what it promises, and how rows of length 1 are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""n x dim, rows of length 1."""
Words = NDArray[np.str_]
"""One word for each row; empty where it is not known."""
Rows = NDArray[np.int64]
"""Positions or numbers, one for each row."""


class CannotFit(ValueError):
    """A sample that a transform cannot be fitted on; says what is missing."""


@dataclass(frozen=True)
class Sample:
    """What a transform is fitted on, row by row."""

    vectors: Vectors
    sites: Words
    """Site of each row (laboratory, scanner, stain or batch)."""
    labels: Words
    """Label of each row; only `metric` reads them."""
    groups: Rows
    """Equal for rows that belong to one patient, case, source or picture."""
    parts: tuple[int, ...] = ()
    """Lengths of the vectors that stand behind each other in a row, where several encoders made
    it."""

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Rows | NDArray[np.bool_]) -> Sample:
        """Some of the rows."""
        taken = (self.vectors[rows], self.sites[rows], self.labels[rows], self.groups[rows])
        return Sample(*taken, self.parts)

    def with_vectors(self, vectors: Vectors) -> Sample:
        """The same rows with other vectors."""
        return replace(self, vectors=vectors)


class Transform(Protocol):
    """A fitted transform. It never changes; `with_site` gives another one."""

    @classmethod
    def fit(cls, sample: Sample) -> Transform:
        """The transform that a sample gives.

        Raises:
            CannotFit: the sample lacks what it needs.
        """
        ...

    @property
    def dim(self) -> int:
        """Length of the vectors that it gives."""
        ...

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it distinguishes; none where it treats all rows alike."""
        ...

    def apply(self, vectors: Vectors, sites: Words) -> Vectors:
        """Transformed rows of length 1.

        Args:
            vectors: n x the length that it was fitted on.
            sites: Site of each row; a row of a site that was not fitted, or of none, is taken to
                be of the site that `nearest` names.
        """
        ...

    def nearest(self, vectors: Vectors) -> Words:
        """The fitted site that each row looks most like; empty words where there are no sites."""
        ...

    def with_site(self, name: str, vectors: Vectors) -> Self:
        """This transform knowing one more site, from the unlabelled vectors of its cells."""
        ...

    def facts(self) -> dict[str, Any]:
        """Its settings, as they are stored in JSON."""
        ...

    def tables(self) -> dict[str, NDArray[np.float32]]:
        """Its fitted numbers, as they are stored in safetensors."""
        ...

    @classmethod
    def load(cls, facts: dict[str, Any], tables: dict[str, NDArray[np.float32]]) -> Self:
        """The transform that `facts` and `tables` describe."""
        ...


def unit(rows: NDArray[np.floating]) -> Vectors:
    """Rows brought to length 1; a row of zeros stays one of zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def halves(groups: Rows) -> NDArray[np.bool_]:
    """Two halves of whole groups, the same ones every time."""
    names, member = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    return np.asarray((order < len(names) // 2)[member])


def shrunk(covariance: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """A covariance drawn towards a multiple of the identity (Ledoit and Wolf 2004).

    Args:
        covariance: d x d.
        share: Of the identity, 0 to 1; the trace stays.
    """
    dim = len(covariance)
    even = np.trace(covariance) / dim * np.eye(dim)
    return np.asarray((1 - share) * covariance + share * even)


def inverse_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric inverse square root of a covariance (d x d)."""
    values, axes = np.linalg.eigh(covariance)
    floor = max(float(values[-1]), 1e-12) * 1e-9
    return np.asarray((axes / np.sqrt(np.maximum(values, floor))) @ axes.T)
