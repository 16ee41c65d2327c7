"""How far two representations lie apart: of two sites by one encoder, or of two encoders.

    python -m train.evaluation.shift --data chula --encoders hemaseek-s dinov2-s

Sites: the representation shift of Stacke et al. (2020, arXiv 1909.11575, section 3), the mean over
the numbers of a vector of the Wasserstein distance between their distributions, within each label
that both sites have, so that other labels are no shift. Encoders: linear CKA (Kornblith et al.
2019, section 3) and the share of the k nearest neighbours that are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from search.evaluation.metrics import ends
from search.neighbours import exact
from train.data import datasets
from train.data.datasets import Labelled
from train.evaluation.command import Scoring, config_of, status_of, write_json
from train.evaluation.vectors import open_encoder, vectors_of

Vectors = NDArray[np.float32]
Words = NDArray[np.str_]
LEVELS = (np.arange(100) + 0.5) / 100
"""Quantiles by which distributions are compared: the Wasserstein distance of one number is the
mean distance of equal quantiles."""
FEWEST = 10
"""Cells of a label that both sites must have."""
NEIGHBOURS = 10


@dataclass(frozen=True)
class Measured:
    """One measure between two."""

    measure: str
    first: str
    second: str
    value: float
    low: float
    """Ends of the 95 % interval, whole groups drawn."""
    high: float
    chance: float | None = None
    """Representation shift: the same between two halves of one site, which is what chance gives."""
    labels: tuple[str, ...] = ()
    """Labels that were compared."""


def wasserstein(first: Vectors, second: Vectors) -> float:
    """Mean over the columns of the Wasserstein distance of two samples (n x dim, m x dim), in
    standard deviations of both together."""
    spread_of = np.concatenate([first, second]).std(axis=0)
    apart = np.abs(np.quantile(first, LEVELS, axis=0) - np.quantile(second, LEVELS, axis=0))
    return float((apart.mean(axis=0) / np.maximum(spread_of, 1e-12)).mean())


def representation_shift(
    vectors: Vectors, labels: Words, sites: Words, first: str, second: str
) -> tuple[float, tuple[str, ...]]:
    """The mean shift over the labels that both sites have, and these labels.

    Raises:
        ValueError: they have no label in common of which each has `FEWEST` cells.
    """
    shared, values = [], []
    for label in np.unique(labels):
        a, b = (vectors[(labels == label) & (sites == one)] for one in (first, second))
        if min(len(a), len(b)) >= FEWEST:
            shared.append(str(label))
            values.append(wasserstein(a, b))
    if not values:
        raise ValueError(
            f"{first} and {second} have no label in common of which each has {FEWEST} cells"
        )
    return float(np.mean(values)), tuple(shared)


def between_sites(
    vectors: Vectors, labelled: Labelled, first: str, second: str, *, resamples: int, seed: int
) -> Measured:
    """The representation shift between two sources of a set.

    Raises:
        ValueError: as `representation_shift`.
    """
    sites, rng = _sites(labelled), np.random.default_rng(seed)
    value, shared = representation_shift(vectors, labelled.labels, sites, first, second)
    draws = []
    for _ in range(resamples):
        rows = np.concatenate(
            [_drawn(labelled.groups, np.flatnonzero(sites == one), rng) for one in (first, second)]
        )
        try:
            taken = (vectors[rows], labelled.labels[rows], sites[rows])
            draws.append(representation_shift(*taken, first, second)[0])
        except ValueError:  # a draw without any of a rare label
            continue
    chances = [_halves(vectors, labelled, one, rng) for one in (first, second)]
    known = [one for one in chances if one is not None]
    low, high = _around(value, draws)
    chance = float(np.mean(known)) if known else None
    return Measured("representation shift", first, second, value, low, high, chance, shared)


def _around(value: float, draws: Sequence[float]) -> tuple[float, float]:
    """Ends of the 95 % interval: the draws' own spread, laid around the measured value.

    Drawn samples differ more from each other than the two that they are drawn from, so that the
    draws themselves lie above the value.
    """
    if not draws:
        return value, value
    low, high = ends(value + np.array(draws) - np.mean(draws))
    return float(low), float(high)


def _sites(labelled: Labelled) -> Words:
    if labelled.sources is None:
        raise ValueError(f"{labelled.name} names no sources, so it has no sites to compare")
    return labelled.sources


def _halves(
    vectors: Vectors, labelled: Labelled, site: str, rng: np.random.Generator
) -> float | None:
    """The shift between two halves of one site, parted by group; `None` where it is too small."""
    here = _sites(labelled) == site
    names = np.unique(labelled.groups[here])
    half = np.isin(labelled.groups, rng.permutation(names)[: len(names) // 2])
    halves = np.where(half, "one", "other")
    try:
        return representation_shift(
            vectors[here], labelled.labels[here], halves[here], "one", "other"
        )[0]
    except ValueError:
        return None


def _drawn(groups: Words, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of whole groups, drawn with replacement."""
    names, member = np.unique(groups[rows], return_inverse=True)
    order = np.argsort(member, kind="stable")
    parts = np.split(rows[order], np.flatnonzero(np.diff(member[order])) + 1)
    return np.concatenate([parts[at] for at in rng.integers(len(names), size=len(names))])


def linear_cka(first: Vectors, second: Vectors) -> float:
    """Linear centred kernel alignment of two encoders on the same n images: 0 to 1.

    Args:
        first: n x dim.
        second: n x another dim, rows in the same order.
    """
    a, b = (rows.astype(np.float64) - rows.mean(axis=0) for rows in (first, second))
    across = np.linalg.norm(a.T @ b) ** 2
    within = float(np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    return float(across) / max(within, 1e-300)


def same_neighbours(first: Vectors, second: Vectors, k: int = NEIGHBOURS) -> float:
    """Share of the k nearest neighbours that both encoders find, itself left out: 0 to 1."""
    k = min(k, len(first) - 1)
    found = []
    for rows in (first, second):
        near, _ = exact.search(rows, rows, k + 1)
        own = near == np.arange(len(rows))[:, None]
        own[~own.any(axis=1), -1] = True  # equal pictures stand before it: the last one goes
        found.append(near[~own].reshape(len(rows), k))
    both = [len(np.intersect1d(a, b)) for a, b in zip(*found, strict=True)]
    return float(np.mean(both)) / k


def between_encoders(
    named: Sequence[tuple[str, Vectors]], groups: Words, *, resamples: int, seed: int
) -> list[Measured]:
    """CKA and shared neighbours of each two encoders, on the same images."""
    measures: dict[str, Callable[[Vectors, Vectors], float]] = {
        "linear CKA": linear_cka,
        f"same {NEIGHBOURS} neighbours": same_neighbours,
    }
    found = []
    for (one, first), (other, second) in combinations(named, 2):
        for measure, of in measures.items():
            rng = np.random.default_rng(seed)
            draws = []
            for _ in range(resamples):
                rows = np.unique(_drawn(groups, np.arange(len(groups)), rng))
                draws.append(of(first[rows], second[rows]))
            value = of(first, second)
            found.append(Measured(measure, one, other, value, *_around(value, draws)))
    return found


class ShiftConfig(Scoring):
    """Measure how far sites, and encoders, lie apart on a set."""

    data: tuple[str, ...] = ("chula",)
    """Sets; those that name sources (pbc-bccd, chula, a manifest with `source`) have sites."""
    encoders: tuple[str, ...] = ("colour",)
    """Names, folders or timm sources that the registry loads."""
    limit: int = Field(default=2000, ge=20)
    """About so many cells of each set."""
    resamples: int = Field(default=100, ge=2)
    """Of the intervals."""
    seed: int = Field(default=0, ge=0)
    """Of subset and draws."""


def run(config: ShiftConfig, console: Console) -> list[dict[str, Any]]:
    """Everything that the config names; prints as it goes and returns the record."""
    record: list[dict[str, Any]] = []
    loaded = [open_encoder(id, config.seed, config.device) for id in config.encoders]
    for name in config.data:
        labelled = datasets.read(name, config.root).at_most(config.limit, config.seed)
        named = [(one.card.id, vectors_of(one, labelled, config.cache)) for one in loaded]
        console.out(f"\n### {labelled.name}: {len(labelled)} cells\n", highlight=False)
        settings = {"resamples": config.resamples, "seed": config.seed}
        sites = [] if labelled.sources is None else np.unique(labelled.sources).tolist()
        for id, vectors in named:
            for first, second in combinations(sites, 2):
                try:
                    found = between_sites(vectors, labelled, first, second, **settings)
                except ValueError as error:
                    console.out(f"{id}: {error}", highlight=False)
                    continue
                _say(console, found, f"{id}: ")
                record.append({"data": labelled.name, "encoder": id, **asdict(found)})
        for found in between_encoders(named, labelled.groups, **settings):
            _say(console, found)
            record.append({"data": labelled.name, **asdict(found)})
    if config.out:
        write_json(config.out, record)
    return record


def _say(console: Console, found: Measured, before: str = "") -> None:
    chance = "" if found.chance is None else f", halves of one site {found.chance:.3f}"
    console.out(
        f"{before}{found.measure} of {found.first} and {found.second}: {found.value:.3f} "
        f"[{found.low:.3f}, {found.high:.3f}]{chance}",
        highlight=False,
    )


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    config = config_of(ShiftConfig, words)
    return status_of(lambda: run(config, Console()))


if __name__ == "__main__":
    sys.exit(main())
