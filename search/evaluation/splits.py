"""Splits into train and test cells; no group lies on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Positions in a data set, rising."""
Words = NDArray[np.str_]
"""One label or group name per cell."""


@dataclass(frozen=True)
class Fold:
    """One split into train and test cells."""

    name: str
    train: Rows
    test: Rows


class BadSplit(ValueError):
    """A split that cannot be made, or that parts a group."""


def fixed(test: NDArray[np.bool_], groups: Words) -> list[Fold]:
    """One split that was decided before (BMC in DinoBloom, section 3).

    Args:
        test: n flags, true for the test cells.
        groups: n names; see `checked`.
    """
    return checked([Fold("fixed", np.flatnonzero(~test), np.flatnonzero(test))], groups)


def stratified(labels: Words, folds: int = 5, seed: int = 0) -> list[Fold]:
    """Stratified folds by cell: honest only where every cell is its own group.

    The papers' code does not shuffle; here the order of files must not matter, so it does.
    """
    from sklearn.model_selection import StratifiedKFold

    return _folds(StratifiedKFold(folds, shuffle=True, random_state=seed), labels, None)


def grouped(labels: Words, groups: Words, folds: int = 5, seed: int = 0) -> list[Fold]:
    """Folds that keep groups whole, and classes as even as that allows.

    Raises:
        BadSplit: fewer groups than folds, or no class with as many cells as folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < folds:
        raise BadSplit(f"{folds} folds need {folds} groups, got {len(np.unique(groups))}")
    made = _folds(StratifiedGroupKFold(folds, shuffle=True, random_state=seed), labels, groups)
    return checked(made, groups)


def leave_one_source_out(sources: Words, groups: Words) -> list[Fold]:
    """Each source is the test set once, and all others are train.

    Not what RedDino's Table 1 does under this name: that is `one_source_in`.

    Raises:
        BadSplit: fewer than two sources, or a group in two sources.
    """
    rows = _by_source(sources, "leaving one source out")
    made = [Fold(name, np.flatnonzero(sources != name), test) for name, test in rows.items()]
    return checked(made, groups)


def one_source_in(sources: Words, groups: Words) -> list[Fold]:
    """Each source is train, and each other one test, in turn (RedDino, section 3.2).

    Returns:
        A fold for each ordered pair of sources: 12 for the four of Elsafty, over which the paper
        has its mean and standard deviation. A cell is tested once for each other source.

    Raises:
        BadSplit: fewer than two sources, or a group in two sources.
    """
    rows = _by_source(sources, "training on one source")
    made = [
        Fold(f"{a} to {b}", train, test)
        for a, train in rows.items()
        for b, test in rows.items()
        if a != b
    ]
    return checked(made, groups)


def _by_source(sources: Words, what: str) -> dict[str, Rows]:
    names = np.unique(sources)
    if len(names) < 2:
        raise BadSplit(f"{what} needs two sources, got {list(names)}")
    return {str(name): np.flatnonzero(sources == name) for name in names}


def checked(folds: Sequence[Fold], groups: Words) -> list[Fold]:
    """The folds, if no group lies on both sides of one.

    Raises:
        BadSplit: names the fold and the first group that is parted, or an empty side.
    """
    for fold in folds:
        if not len(fold.train) or not len(fold.test):
            raise BadSplit(
                f"fold {fold.name}: {len(fold.train)} train and {len(fold.test)} test cells; "
                "both must be at least one"
            )
        both = np.intersect1d(groups[fold.train], groups[fold.test])
        if len(both):
            first = str(both[0])
            raise BadSplit(f"fold {fold.name} parts {len(both)} groups, the first is {first!r}")
    return list(folds)


def subset(labels: Words, groups: Words, limit: int, seed: int = 0) -> Rows:
    """About `limit` cells, classes in proportion, drawn from as many groups as there are.

    A class gives its share in rounds: one cell of each of its groups in random order, then a
    second, and so on. The order of a class does not depend on the other classes, so a set
    without one of them, and a smaller limit, reuse the same cells.

    Returns:
        Positions, rising; every class keeps at least one cell.
    """
    if limit < 1:
        raise BadSplit(f"limit must be at least 1, got {limit}")
    if limit >= len(labels):
        return np.arange(len(labels))
    _, member = np.unique(groups, return_inverse=True)
    taken = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rng = np.random.default_rng([seed, crc32(str(label).encode())])
        order = rng.permutation(np.unique(member[rows]))
        rank = np.empty(member.max() + 1, np.int64)
        rank[order] = np.arange(len(order))
        rows = rows[np.argsort(rank[member[rows]], kind="stable")]
        turns = rank[member[rows]]
        before = np.searchsorted(turns, turns)  # first cell of the same group
        rounds = np.arange(len(rows)) - before
        share = max(1, round(limit * len(rows) / len(labels)))
        taken.append(rows[np.lexsort((turns, rounds))[:share]])
    return np.sort(np.concatenate(taken))


def _folds(splitter: object, labels: Words, groups: Words | None) -> list[Fold]:
    empty = np.zeros((len(labels), 0))
    with warnings.catch_warnings():
        # A class rarer than the folds is reported by the caller: it is missing in some fold.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        try:
            parts = list(splitter.split(empty, labels, groups))  # type: ignore[attr-defined]
        except ValueError as error:
            raise BadSplit(f"{len(labels)} cells cannot be split so: {error}") from error
    return [Fold(str(at + 1), np.sort(a), np.sort(b)) for at, (a, b) in enumerate(parts)]
