"""Integer group numbers for patients, cases and sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Positions."""


def groups(*relations: Sequence[str | None], pairs: Sequence[tuple[int, int]] = ()) -> Rows:
    """A number for each row; rows that share a value of any relation have the same one.

    Two cells of one patient belong together, and so do two cells of one source of which only
    one names its patient.

    Args:
        relations: Of n rows each: patients, cases, sources; `None` relates to nobody.
        pairs: Rows that belong together for another reason.

    Returns:
        n numbers, 0 for the group of the first row, rising with first appearance.
    """
    n = len(relations[0])
    parent = list(range(n))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    def join(left: int, right: int) -> None:
        one, other = root(left), root(right)
        parent[max(one, other)] = min(one, other)

    for left, right in pairs:
        join(left, right)
    for words in relations:
        first: dict[str, int] = {}
        for at, word in enumerate(words):
            if word is not None:
                join(first.setdefault(word, at), at)
    roots = np.array([root(at) for at in range(n)], np.int64)
    return np.asarray(np.unique(roots, return_inverse=True)[1], np.int64)
