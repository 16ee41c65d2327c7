"""Exact nearest neighbours of many queries at once, equal ones in order of position.

Products of low precision rule most of the library out: what lies further below the k-th best than
twice their error cannot be among the `k` nearest. The rest is scored in float32, and what that
leaves in float64, which decides. So the answer does not depend on the processor, nor on whether
PyTorch is installed, which large searches take for its bfloat16 and its threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "euclidean"]
"""What is near. `euclidean` takes the rows as they are, `cosine` brings them to length 1."""
Vectors = NDArray[np.floating]
Places = NDArray[np.int64]
Pairs = tuple[Places, Places]
"""Query and library row of each candidate; queries rise."""
QUERIES = 1024
"""Most queries of a block."""
BLOCK = 1 << 27
"""Most scores of a block."""
GROUP = 32
"""Rows of the library of which only the highest score is sorted."""
CHUNK = 512
"""Pairs scored at once, so that their rows stay in the cache."""
LARGE = 1e10
"""Multiplications from which bfloat16 and the GPU are worth their preparation."""
SPARE = 8
"""Neighbours beyond `k` that faiss looks for."""


class BadSearch(ValueError):
    """Vectors that cannot be searched with."""


def search(
    queries: Vectors, library: Vectors, k: int, *, metric: Metric = "cosine"
) -> tuple[Places, NDArray[np.float32]]:
    """The `k` nearest of the library to each query; equal ones in order of position.

    Args:
        queries: m x dim.
        library: n x dim, n at least k.
        k: How many.
        metric: `cosine`, or `euclidean` on the rows as they are.

    Returns:
        Positions, and cosines or negative squared distances, both m x k, nearest first.

    Raises:
        BadSearch: shapes that do not fit, NaN, infinity, or a zero row under `cosine`.
    """
    if queries.ndim != 2 or library.ndim != 2 or queries.shape[1] != library.shape[1]:
        raise BadSearch(f"expected m x dim and n x dim, got {queries.shape} and {library.shape}")
    if not 1 <= k <= len(library):
        raise BadSearch(f"k must be 1 to {len(library)}, the size of the library, got {k}")
    q, x = _checked("queries", queries, metric), _checked("library", library, metric)
    if metric == "euclidean":  # |q - x|^2 = |q|^2 - 2 (q.x - |x|^2 / 2)
        q, x = q.astype(np.float64), x.astype(np.float64)
        lengths = (q * q).sum(axis=1, keepdims=True)
        q = np.concatenate([q, np.ones((len(q), 1))], axis=1)
        x = np.concatenate([x, (x * x).sum(axis=1, keepdims=True) / -2], axis=1)
    places, scores = np.empty((len(q), k), np.int64), np.empty((len(q), k))
    rest, products = np.arange(len(q)), _by_products
    if metric == "cosine" and float(len(q)) * x.size >= LARGE and find_spec("torch"):
        near, rest = _by_faiss(q, x, k)
        _decide(q, x, near, places, scores)
        products = _by_torch
    for near in products(q, x, rest, k):
        _decide(q, x, near, places, scores)
    return places, (2 * scores - lengths if metric == "euclidean" else scores).astype(np.float32)


def _checked(name: str, rows: Vectors, metric: Metric) -> Vectors:
    single = np.ascontiguousarray(rows, np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", single, single, dtype=np.float32))
    if not np.isfinite(norms).all():
        norms = np.linalg.norm(single.astype(np.float64), axis=1)  # squares that were too large
    if not np.isfinite(norms).all():
        raise BadSearch(f"{name}: row {int((~np.isfinite(norms)).argmax())} is not finite")
    if metric == "euclidean" or not (np.abs(norms - 1) > 1e-5).any():
        return single
    if (norms < 1e-12).any():
        raise BadSearch(f"{name}: row {int(norms.argmin())} is zero; it has no direction")
    return np.asarray(single / norms[:, None], np.float32)


@lru_cache(maxsize=1)
def bfloat16_is_faster() -> bool:
    """Whether this processor multiplies bfloat16 clearly faster than float32, measured once."""
    import torch

    took = []
    for rows in (torch.ones(512, 384), torch.ones(512, 384, dtype=torch.bfloat16)):
        rows @ rows.T
        began = time.perf_counter()
        rows @ rows.T
        took.append(time.perf_counter() - began)
    return took[1] < 0.7 * took[0]


def _error(x: Vectors) -> float:
    """Bound of the error of products of rows of length 1: 8 sqrt(dim) u in float32.

    It is exceeded with probability below 1e-10 (Higham and Mary 2019, SIAM J. Sci. Comput.
    41(5), theorem 2.4, lambda 8). In float64 it is 4 dim u, which is certain.
    """
    dim = x.shape[1]
    return float(4 * dim * 2.0**-53 if x.itemsize == 8 else 8 * np.sqrt(dim) * 2.0**-24)


def _by_faiss(q: Vectors, x: Vectors, k: int) -> tuple[Pairs, Places]:
    """Candidates by faiss on a GPU, and the queries whose candidates are not surely all."""
    import torch

    wide = min(k + SPARE, len(x))
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64)), np.arange(len(q))
    if not torch.cuda.is_available() or not find_spec("faiss"):
        return nothing
    import faiss

    if not faiss.get_num_gpus() or wide > 2048:  # more is beyond faiss on a GPU
        return nothing
    gpu, product = faiss.StandardGpuResources(), faiss.METRIC_INNER_PRODUCT
    near, at = faiss.knn_gpu(gpu, q, x, wide, metric=product)
    sure = (near[:, -1] < near[:, k - 1] - 2 * _error(x)) | (wide == len(x))
    return (np.flatnonzero(sure).repeat(wide), at[sure].ravel()), np.flatnonzero(~sure)


def _by_products(q: Vectors, x: Vectors, rows: Places, k: int) -> Iterator[Pairs]:
    """All that can be among the `k` nearest of the queries `rows`, block by block."""
    # Subtracting the mean takes the same from all scores of a query, and leaves smaller errors.
    wide = np.zeros((-(-len(x) // GROUP) * GROUP, x.shape[1]), x.dtype)
    np.subtract(x, x.mean(axis=0), out=wide[: len(x)])
    longest, eps = _longest(wide), float(np.finfo(x.dtype).eps)
    across = len(wide) // GROUP
    size = min(QUERIES, max(1, BLOCK // len(wide)))
    room = np.empty((min(size, len(rows)), len(wide)), x.dtype)
    for first in range(0, len(rows), size):
        block = q[rows[first : first + size]]
        scores = np.matmul(block, wide.T, out=room[: len(block)])
        scores[:, len(x) :] = -np.inf
        best = scores.reshape(len(block), GROUP, across).max(axis=1)
        one_of = best if k <= across else scores
        floor = np.partition(one_of, -k, axis=1)[:, -k, None].astype(np.float64)
        error = _longest(block) * longest * _error(x)
        enough = (floor - 2 * (1 + eps) * error - 3 * eps * np.abs(floor)).astype(x.dtype)
        row, column = _above(enough, best, scores)
        yield rows[first : first + size][row], column


def _by_torch(q: Vectors, x: Vectors, rows: Places, k: int) -> Iterator[Pairs]:
    """As `_by_products`, on every core, in bfloat16 where the processor is faster at it."""
    import torch

    kind = torch.bfloat16 if bfloat16_is_faster() else torch.float32
    centred = torch.from_numpy(x) - torch.from_numpy(x.mean(axis=0))
    low = torch.zeros(-(-len(x) // GROUP) * GROUP, x.shape[1], dtype=kind)
    low[: len(x)] = centred
    longest, lost = _longest(centred.numpy()), _longest((centred - low[: len(x)]).numpy())
    across = len(low) // GROUP
    size = min(QUERIES, max(1, BLOCK // len(low)))
    room = torch.empty(size, len(low), dtype=low.dtype)
    for first in range(0, len(rows), size):
        block = rows[first : first + size]
        whole = torch.from_numpy(q[block])
        short = whole.to(low.dtype)
        scores = torch.mm(short, low.T, out=room[: len(block)])
        scores[:, len(x) :] = -torch.inf
        best = scores.view(len(block), GROUP, across).amax(dim=1)
        floor = (best if k <= across else scores).topk(k).values[:, -1:].double()
        length, away = _longest(q[block]), _longest((whole - short).numpy())
        error = length * lost + away * longest + length * longest * _error(x)
        eps = torch.finfo(low.dtype).eps  # of the score itself, of `floor` and of `enough`
        enough = (floor - 2 * (1 + eps) * error - 3 * eps * floor.abs()).to(low.dtype)
        row, column = _above(enough, best, scores)
        yield block[row], column


def _above(enough: Any, best: Any, scores: Any) -> Pairs:
    """Row and column of each score that is `enough`, by the groups whose `best` is: a few of all.

    Arrays of NumPy or of PyTorch: m x 1, m x groups and m x columns.
    """
    rows, across = best.shape
    of, group = np.nonzero(np.asarray(best >= enough))
    row, member = np.nonzero(
        np.asarray(scores.reshape(rows, GROUP, across)[of, :, group] >= enough[of])
    )
    return of[row], member * across + group[row]


def _longest(rows: Vectors) -> float:
    """The length of the longest row, rounded up."""
    return 1.0001 * float(np.sqrt(np.einsum("nd,nd->n", rows, rows).max(initial=0)))


def _decide(
    q: Vectors, x: Vectors, near: Pairs, places: Places, scores: NDArray[np.float64]
) -> None:
    """Write the first of the candidates of each query into `places` and `scores` (m x k)."""
    query, row = near
    k = places.shape[1]
    if x.itemsize == 4:
        single = _scored(q, x, query, row, np.float32)
        _, first, of, count = np.unique(query, True, True, True)
        table = np.full((len(count), count.max(initial=k)), np.inf, np.float32)
        table[of, np.arange(len(query)) - first[of]] = -single
        floor = -np.partition(table, k - 1, axis=1)[:, k - 1]
        kept = single >= floor[of] - 2 * _error(x)
        query, row = query[kept], row[kept]
    exact = _scored(q, x, query, row, np.float64)
    order = np.lexsort((row, -exact, query))
    rows, first = np.unique(query, return_index=True)
    chosen = order[first[:, None] + np.arange(k)]
    places[rows], scores[rows] = row[chosen], exact[chosen]


def _scored(q: Vectors, x: Vectors, query: Places, row: Places, kind: type[np.floating]) -> Vectors:
    """The product of each pair; those of equal rows are equal, bit for bit."""
    out = np.empty(len(query), kind)
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        left = q.take(query[part], axis=0).astype(kind, copy=False)
        right = x.take(row[part], axis=0).astype(kind, copy=False)
        np.einsum("pd,pd->p", left, right, out=out[part])
    return out
