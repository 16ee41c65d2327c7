"""Exact nearest neighbours of many queries at once, ties settled by position.

Every route gives the same answer: the ranking of the float32 rows by their scores in double
precision. What differs is how many scores are computed at all. A route proposes a few more
than `k` candidates from scores with a known error; `_settle` proves that the right ones are
among them, orders those that are too close to call in double precision, and recomputes a
query in full where the proof fails (equal rows, mostly).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from search.neighbours.scores import Metric, double_error, single_error, top

if TYPE_CHECKING:
    from torch import Tensor

Route = Literal["auto", "double", "single", "screen"]
"""double: every score in float64; single: every score in float32, on the GPU if there is one;
screen: see `search.neighbours.screen`. auto takes the one that is fastest for the size."""
Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Positions in the library and scores, m x k each, nearest first."""
SPARE = 8
"""Candidates beyond `k`, so that close calls at the end can be settled among candidates."""
BLOCK = 1 << 23
"""Scores held at once."""
LARGE = 4e11
"""Multiplications from which the faster routes are worth their preparation."""


class BadSearch(ValueError):
    """Vectors that cannot be searched with."""


def search(
    queries: NDArray[np.floating],
    library: NDArray[np.floating],
    k: int,
    *,
    metric: Metric = "cosine",
    route: Route = "auto",
) -> Found:
    """The `k` nearest of the library to each query; equal ones in order of position.

    Args:
        queries: m x dim.
        library: n x dim, n at least k.
        k: How many.
        metric: `cosine`, or `euclidean` on the rows as they are.
        route: How; the answer is the same.

    Returns:
        Positions, and cosines or negative squared distances, both m x k.

    Raises:
        BadSearch: shapes that do not fit, NaN, infinity, or a zero row under `cosine`.
    """
    import torch

    q, x = _checked(queries, library, k, metric)
    gpu = torch.cuda.is_available()
    if route == "auto":
        large = float(q.shape[0]) * x.shape[0] * x.shape[1] >= LARGE
        route = "double" if metric == "euclidean" or not large else "single" if gpu else "screen"
    elif metric == "euclidean" and route != "double":
        raise BadSearch(f"euclidean is searched by route 'double', not {route!r}")
    wide = min(k + SPARE, x.shape[0])
    if route == "screen":
        from search.neighbours.screen import screened

        found = screened(q, x, wide)
        if found is not None:
            return _settle(q, x, *found, k, metric, single_error(x.shape[1]))
        route = "single"
    kind, where = (torch.float64, "cpu") if route == "double" else (torch.float32, "cuda")
    near, at = _every(q, x, wide, metric, kind, where if gpu else "cpu")
    error = double_error(q, x, metric) if route == "double" else single_error(x.shape[1])
    return _settle(q, x, near, at, k, metric, error)


def _checked(
    queries: NDArray[np.floating], library: NDArray[np.floating], k: int, metric: Metric
) -> tuple[Tensor, Tensor]:
    import torch

    if queries.ndim != 2 or library.ndim != 2 or queries.shape[1] != library.shape[1]:
        raise BadSearch(f"expected m x dim and n x dim, got {queries.shape} and {library.shape}")
    if not 1 <= k <= len(library):
        raise BadSearch(f"k must be 1 to {len(library)}, the size of the library, got {k}")
    out = []
    for name, rows in (("queries", queries), ("library", library)):
        single = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
        norms = torch.linalg.vector_norm(single, dim=1)
        if not bool(torch.isfinite(norms).all()):
            raise BadSearch(
                f"{name}: row {int((~torch.isfinite(norms)).int().argmax())} is not finite"
            )
        if metric == "cosine":
            if bool((norms < 1e-12).any()):
                raise BadSearch(f"{name}: row {int(norms.argmin())} is zero; it has no direction")
            if bool(((norms - 1).abs() > 1e-5).any()):
                single = single / norms[:, None]
        out.append(single)
    return out[0], out[1]


def _every(
    q: Tensor, x: Tensor, wide: int, metric: Metric, kind: object, where: str
) -> tuple[Tensor, Tensor]:
    """The `wide` best by every score, a block of queries at a time."""
    import torch

    library = x.to(where, kind)  # type: ignore[call-overload]
    n = len(library)
    half = (library * library).sum(dim=1) / 2 if metric == "euclidean" else None
    near, at = [], []
    step = max(1, (BLOCK << 6 if where == "cuda" else BLOCK) // n)
    for start in range(0, len(q), step):
        scores = q[start : start + step].to(where, kind) @ library.T  # type: ignore[call-overload]
        if half is not None:
            scores -= half
        best, place = top(scores, wide)
        near.append(best.cpu())
        at.append(place.cpu())
    if not near:
        return torch.empty(0, wide, dtype=library.dtype), torch.empty(0, wide, dtype=torch.int64)
    return torch.cat(near), torch.cat(at)


def _settle(
    q: Tensor, x: Tensor, near: Tensor, at: Tensor, k: int, metric: Metric, error: float
) -> Found:
    """The first `k` of the candidates in proven order.

    Args:
        q: m x dim.
        x: n x dim.
        near: m x wide scores, falling, each within `error` of the truth; whatever is not a
            candidate is not above the last of them.
        at: Their positions.
        k: How many are wanted.
        metric: Of the scores.
        error: See `near`.
    """
    scores, places = near.double().numpy(), at.numpy().copy()
    open_end = np.zeros(len(scores), bool)
    if scores.shape[1] < len(x):
        open_end = scores[:, -1] >= scores[:, k - 1] - 2 * error
    # Only scores next to one within the error are in doubt; the others keep their place.
    tight = scores[:, :-1] - scores[:, 1:] <= 2 * error
    doubt = np.zeros(scores.shape, bool)
    doubt[:, :-1] |= tight
    doubt[:, 1:] |= tight
    doubt[open_end] = False
    row, column = np.nonzero(doubt)
    scores[row, column] = _double(q, x, row, places[row, column], metric)
    rows = np.unique(row)
    order = np.lexsort((places[rows], -scores[rows]), axis=1)
    scores[rows] = np.take_along_axis(scores[rows], order, axis=1)
    places[rows] = np.take_along_axis(places[rows], order, axis=1)
    everything = np.arange(len(x))
    for one in np.flatnonzero(open_end):
        exact = _double(q, x, np.full(len(x), one), everything, metric)
        order = np.lexsort((everything, -exact))[: scores.shape[1]]
        scores[one], places[one] = exact[order], order
    scores, places = scores[:, :k], places[:, :k]
    if metric == "euclidean":
        scores = 2 * scores - (q.double() ** 2).sum(dim=1).numpy()[:, None]
    return places, scores.astype(np.float32)


def _double(
    q: Tensor, x: Tensor, rows: NDArray[np.int64], places: NDArray[np.int64], metric: Metric
) -> NDArray[np.float64]:
    """Scores of single pairs in double precision: equal rows get equal scores, bit for bit."""
    out = np.empty(len(rows))
    asked, library = q.numpy(), x.numpy()
    step = max(1, (1 << 20) // x.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        taken = library[places[part]].astype(np.float64)
        out[part] = (taken * asked[rows[part]]).sum(axis=1)
        if metric == "euclidean":
            out[part] -= (taken * taken).sum(axis=1) / 2
    return out
