"""Axes that labels choose, so that cells of one label lie together at every site."""

from __future__ import annotations

from dataclasses import dataclass
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

STRENGTHS = (0.03, 0.1, 0.3)
"""Shares of the identity in the within-class covariance that are tried."""
BETWEEN_SITES = 2.0
"""How many times the scatter of one label between sites counts beside that within a site: what
differs between laboratories for the same label is what a new laboratory will differ by."""
REST = 0.1
"""Share of the squared length that keeps what labels say nothing of: it separates cells of unknown
labels, and pictures that are the same from those that are merely alike."""
FEW = 3
"""Cells of one label at one site below which their mean is not trusted."""
DRAWN = 20_000
"""Rows that choose the strength, where there are more."""


@dataclass(frozen=True)
class Metric:
    """Discriminant axes first, and everything that is at right angles to them behind."""

    mean: NDArray[np.float32]
    """dim."""
    axes: NDArray[np.float32]
    """dim x (labels - 1): what separates labels, scaled so that spreads within a label are 1."""
    rest: NDArray[np.float32]
    """dim x (dim - labels + 1): a basis of what is at right angles to `axes`."""
    strength: float
    """The share of the identity that was chosen."""
    labels: tuple[str, ...]
    """That it was fitted on."""

    sites: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """As long as the vectors that it was fitted on."""
        return int(self.axes.shape[1] + self.rest.shape[1])

    @classmethod
    def fit(cls, sample: Sample, strength: float | None = None) -> Metric:
        """Discriminant axes under the strength that scores best where it was not fitted.

        Strengths are compared by leaving sites out; where there is one site, patients (groups);
        not where one is given.

        Raises:
            CannotFit: fewer than two labels.
        """
        known = sample.take(np.flatnonzero(sample.labels != ""))
        names = np.unique(known.labels)
        if len(names) < 2:
            raise CannotFit(
                f"the kind 'metric' needs two labels, got {len(names)}; ingest labelled items, or "
                "use the kind 'align'"
            )
        strength = _best_strength(known) if strength is None else strength
        mean, axes = _discriminant(known, strength)
        rest = np.linalg.svd(axes, full_matrices=True)[0][:, axes.shape[1] :]
        return cls(
            mean.astype(np.float32),
            axes.astype(np.float32),
            rest.astype(np.float32),
            strength,
            tuple(map(str, names)),
        )

    def apply(self, vectors: Vectors, sites: Words) -> Vectors:
        """Rows on the axes, with `REST` of their squared length for everything else."""
        centred = vectors - self.mean
        discriminant = unit(centred @ self.axes) * np.float32((1 - REST) ** 0.5)
        other = unit(centred @ self.rest) * np.float32(REST**0.5)
        return unit(np.concatenate([discriminant, other], axis=1))

    def nearest(self, vectors: Vectors) -> Words:
        """Empty words: all sites are treated alike."""
        return np.full(len(vectors), "")

    def with_site(self, name: str, vectors: Vectors) -> Self:
        """Itself."""
        return self

    def facts(self) -> dict[str, Any]:
        """The strength, and the labels that chose the axes."""
        return {"strength": self.strength, "labels": list(self.labels)}

    def tables(self) -> dict[str, NDArray[np.float32]]:
        """Mean, axes and rest."""
        return {"mean": self.mean, "axes": self.axes, "rest": self.rest}

    @classmethod
    def load(cls, facts: dict[str, Any], tables: dict[str, NDArray[np.float32]]) -> Self:
        """What `facts` and `tables` gave."""
        mean, axes, rest = (tables[name] for name in ("mean", "axes", "rest"))
        return cls(mean, axes, rest, facts["strength"], tuple(facts["labels"]))


def _discriminant(
    sample: Sample, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of the labels' means, and the discriminant axes (Fisher 1936, Rao 1948).

    Within-class scatter is pooled over the cells of each label at each site, each weighted by the
    square root of its size so that no large batch decides alone; to it comes the scatter of one
    label's means between sites (as in within-class covariance normalisation, Hatch et al. 2006).
    """
    vectors = sample.vectors.astype(np.float64)
    pairs, member = np.unique(
        np.stack([sample.labels, sample.sites], axis=1), axis=0, return_inverse=True
    )
    member = member.ravel()
    sizes = np.bincount(member, minlength=len(pairs)).astype(np.float64)
    means = np.zeros((len(pairs), vectors.shape[1]))
    np.add.at(means, member, vectors)
    means /= sizes[:, None]
    trusted = sizes >= min(FEW, sizes.max())
    spread = (vectors - means[member]) * (sizes[member] ** -0.25)[:, None]
    within = spread.T @ spread / np.sqrt(sizes).sum()
    centres, between, weight = [], np.zeros_like(within), 0.0
    for label in np.unique(sample.labels):
        of = np.flatnonzero((pairs[:, 0] == label) & trusted)
        if not len(of):
            of = np.flatnonzero(pairs[:, 0] == label)
        share = np.sqrt(sizes[of]) / np.sqrt(sizes[of]).sum()
        centre = share @ means[of]
        centres.append(centre)
        if len(of) > 1:
            off = (means[of] - centre) * np.sqrt(share)[:, None]
            between += np.sqrt(sizes[of].sum()) * off.T @ off
            weight += float(np.sqrt(sizes[of].sum()))
    scatter = within + BETWEEN_SITES * between / max(weight, 1.0)
    whitening = inverse_root(shrunk(scatter, strength))
    middle = np.mean(centres, axis=0)
    _, _, turned = np.linalg.svd((np.array(centres) - middle) @ whitening, full_matrices=False)
    axes = whitening @ turned[: min(len(centres) - 1, vectors.shape[1] - 1)].T
    return middle, axes


def _best_strength(sample: Sample) -> float:
    """The strength under which cells of parts left out are nearest to their own label's mean."""
    rng = np.random.default_rng(0)
    if len(sample) > DRAWN:
        sample = sample.take(np.sort(rng.choice(len(sample), DRAWN, replace=False)))
    parts = _parts(sample, rng)
    found = np.zeros(len(STRENGTHS))
    for part in np.unique(parts):
        train, test = sample.take(parts != part), sample.take(parts == part)
        if len(np.unique(train.labels)) > 1:
            found += [_recall(train, test, strength) for strength in STRENGTHS]
    return STRENGTHS[int(found.argmax())]


def _parts(sample: Sample, rng: np.random.Generator) -> Words | NDArray[np.int64]:
    """What is left out together: sites, or three parts of whole groups where there is one site."""
    if len(np.unique(sample.sites)) > 1:
        return sample.sites
    groups, member = np.unique(sample.groups, return_inverse=True)
    return np.asarray(rng.permutation(len(groups))[member] % 3, np.int64)


def _recall(train: Sample, test: Sample, strength: float) -> float:
    """Balanced accuracy of the nearest label's mean, by cosine on the discriminant axes."""
    middle, axes = _discriminant(train, strength)
    names, number = np.unique(train.labels, return_inverse=True)
    seen = unit((train.vectors - middle) @ axes)
    centres = unit(np.stack([seen[number == at].mean(axis=0) for at in range(len(names))]))
    called = names[np.argmax(unit((test.vectors - middle) @ axes) @ centres.T, axis=1)]
    right = called == test.labels
    kinds = [label for label in np.unique(test.labels) if label in names]
    return float(np.mean([right[test.labels == kind].mean() for kind in kinds])) if kinds else 0.0
