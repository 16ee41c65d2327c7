"""Groups of rows that belong together, and exact neighbours outside the own group."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from search.neighbours.duplicates import COMPARED, IDENTICAL, Hashes, same_pairs
from search.neighbours.exact import search
from search.schemas.items import Item, with_patient

Rows = NDArray[np.int64]
"""Positions."""
FEW = 512
"""Groups of at most so many rows are left out of a longer list of neighbours; larger ones are
left out of the library, one search for each."""
SPARE = 8
"""Neighbours beyond those wanted, for rows that are the same picture."""
AT_ONCE = 4096
"""Queries between two calls of `progress`."""


def groups(*relations: Sequence[str | None], pairs: Sequence[tuple[int, int]] = ()) -> Rows:
    """A number for each row; rows that share a value of any relation have the same one.

    Two cells of one patient belong together, and so do two cells of one source of which only
    one names its patient.

    Args:
        relations: Of n rows each: patients, cases, sources; `None` relates to no row.
        pairs: Rows that belong together for another reason.

    Returns:
        n numbers, 0 for the group of the first row, rising with first appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(relations[0])
    edges = list(pairs)
    for values in relations:
        first: dict[str, int] = {}
        edges += [
            (first.setdefault(value, at), at)
            for at, value in enumerate(values)
            if value is not None
        ]
    ends = np.array(edges, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges), np.int8), tuple(ends)), shape=(n, n))
    number = connected_components(graph, directed=False)[1]
    _, first_row, of = np.unique(number, return_index=True, return_inverse=True)
    return np.asarray(first_row.argsort().argsort()[of], np.int64)


def numbered(values: Sequence[str | None]) -> tuple[list[str], Rows]:
    """The values in alphabetical order, and which of them each row has (n numbers, -1 for none)."""
    names = sorted({value for value in values if value is not None})
    number = {value: at for at, value in enumerate(names)}
    return names, np.array([-1 if v is None else number[v] for v in values], np.int64)


def item_groups(
    items: Sequence[Item], patients: Mapping[str, str], hashes: Hashes | None = None
) -> Rows:
    """A number for each item, equal for those of one patient, case, source or picture.

    Args:
        items: n of them.
        patients: Patients that the records of cases name, by case.
        hashes: Perceptual hashes of items by their ids; without them, and beyond `COMPARED`
            items, pictures are not compared.
    """
    named = [with_patient(item, patients) for item in items]
    pairs = same_pairs(hashes([i.id for i in items])) if hashes and len(items) <= COMPARED else []
    by = ([i.patient for i in named], [i.case for i in named], [i.source for i in named])
    return groups(*by, pairs=pairs)


def patients_digest(patients: Mapping[str, str]) -> str | None:
    """Sixteen hex digits over the patients that records name; `None` where they name none."""
    if not patients:
        return None
    return sha256(json.dumps(sorted(patients.items())).encode()).hexdigest()[:16]


def neighbours_outside(
    vectors: NDArray[np.float32],
    group: Rows,
    queries: Rows,
    references: Rows,
    k: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Rows, NDArray[np.float32]]:
    """The `k` nearest references of each query, exactly, its own group left out.

    References with the very vector of the query are left out too: they are the same picture.

    Args:
        vectors: n x dim, length 1.
        group: n group numbers.
        queries: m rows.
        references: r rows.
        k: How many.
        progress: Called with the number of queries answered; may raise to stop.

    Returns:
        Rows and cosines, m x k, nearest first, equal ones in order of row; -1 and -inf where
        there are no more.
    """
    found = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    done = 0

    def answer(part: Rows, among: Rows, wide: int) -> None:
        """Answer `part` of the queries; with a longer list where too few references are left."""
        nonlocal done
        done += len(part)
        while len(part) and len(among):
            wide = min(wide, len(among))
            near, cosines = search(vectors[queries[part]], vectors[among], wide)
            rows = among[near]
            out = (group[rows] == group[queries[part]][:, None]) | (cosines >= IDENTICAL)
            order = np.argsort(out, axis=1, kind="stable")[:, :k]
            rows = np.take_along_axis(np.where(out, -1, rows), order, axis=1)
            found[part, : rows.shape[1]] = rows
            cosines = np.take_along_axis(np.where(out, -np.inf, cosines), order, axis=1)
            scores[part, : rows.shape[1]] = cosines
            if wide == len(among):
                break
            part = part[(rows < 0).any(axis=1) | (rows.shape[1] < k)]
            wide *= 4
        progress(done)

    sizes = np.bincount(group[references], minlength=int(group.max(initial=0)) + 1)
    own = sizes[group[queries]]
    small = np.flatnonzero(own <= FEW)
    small = small[np.argsort(own[small], kind="stable")]  # those of a size together
    for at in range(0, len(small), AT_ONCE):
        part = small[at : at + AT_ONCE]
        answer(part, references, k + int(own[part].max(initial=0)) + SPARE)
    large = np.flatnonzero(own > FEW)
    for one in np.unique(group[queries[large]]):
        others = references[group[references] != one]
        answer(large[group[queries[large]] == one], others, k + SPARE)
    return found, scores
