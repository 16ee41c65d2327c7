"""Who belongs together, and exact neighbours among those who do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from search.neighbours.duplicates import IDENTICAL
from search.neighbours.exact import search
from search.neighbours.groups import Rows

FEW = 512
"""Groups of at most so many rows are left out of a longer list of neighbours; larger ones are
left out of the library, one search for each."""
SPARE = 8
"""Neighbours beyond those wanted, for rows that are the same picture."""
ASKED_AT_ONCE = 4096
"""Queries between two looks at whether to stop."""


def neighbours(
    vectors: NDArray[np.float32],
    group: Rows,
    asked: Rows,
    teach: Rows,
    k: int,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[Rows, NDArray[np.float32]]:
    """The `k` nearest teachers of each asked row, exactly, its own group left out.

    Teachers with the very vector of the query are left out too: they are the same picture.

    Args:
        vectors: n x dim, length 1.
        group: n group numbers.
        asked: m rows.
        teach: t rows.
        k: How many.
        tell: Told how many rows of `asked` were answered; may raise to stop.

    Returns:
        Rows and cosines, m x k, nearest first, equal ones in order of row; -1 and -inf where
        there are no more.
    """
    found = np.full((len(asked), k), -1, np.int64)
    scores = np.full((len(asked), k), -np.inf, np.float32)
    sizes = np.bincount(group[teach], minlength=int(group.max(initial=0)) + 1)
    own = sizes[group[asked]]
    large = np.flatnonzero(own > FEW)
    small = np.flatnonzero(own <= FEW)
    small = small[np.argsort(own[small], kind="stable")]  # those of a size together
    done = 0
    for at in range(0, len(small), ASKED_AT_ONCE):
        part = small[at : at + ASKED_AT_ONCE]
        wide = k + int(own[part].max(initial=0)) + SPARE
        _fill(found, scores, vectors, group, asked, teach, part, wide, k)
        done += len(part)
        tell(done)
    for one in np.unique(group[asked[large]]):
        part = large[group[asked[large]] == one]
        others = teach[group[teach] != one]
        _fill(found, scores, vectors, group, asked, others, part, k + SPARE, k)
        done += len(part)
        tell(done)
    return found, scores


def _fill(
    found: Rows,
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    group: Rows,
    asked: Rows,
    teach: Rows,
    part: Rows,
    wide: int,
    k: int,
) -> None:
    """Answer the rows `part` of `asked`; again, with a longer list, where too few were left."""
    while len(part) and len(teach):
        wide = min(wide, len(teach))
        near, cosines = search(vectors[asked[part]], vectors[teach], wide)
        rows = teach[near]
        barred = (group[rows] == group[asked[part]][:, None]) | (cosines >= IDENTICAL)
        order = np.argsort(barred, axis=1, kind="stable")[:, :k]
        rows = np.take_along_axis(np.where(barred, -1, rows), order, axis=1)
        cosines = np.take_along_axis(np.where(barred, -np.inf, cosines), order, axis=1)
        found[part, : rows.shape[1]] = rows
        scores[part, : rows.shape[1]] = cosines
        short = (rows < 0).any(axis=1) | (rows.shape[1] < k)
        if wide == len(teach):
            return
        part, wide = part[short], 4 * wide
