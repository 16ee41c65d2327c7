"""Exact nearest neighbours of many queries at once, equal ones in order of position.

Products of low precision rule most of the library out: what lies further below the k-th best than
twice their error cannot be among the `k` nearest. The rest is scored in float32, and what that
leaves in float64, which decides. So the answer does not depend on the processor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

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
    import torch

    if queries.ndim != 2 or library.ndim != 2 or queries.shape[1] != library.shape[1]:
        raise BadSearch(f"expected m x dim and n x dim, got {queries.shape} and {library.shape}")
    if not 1 <= k <= len(library):
        raise BadSearch(f"k must be 1 to {len(library)}, the size of the library, got {k}")
    q, x = _checked("queries", queries, metric), _checked("library", library, metric)
    if metric == "euclidean":  # |q - x|^2 = |q|^2 - 2 (q.x - |x|^2 / 2)
        q, x = q.double(), x.double()
        lengths = (q * q).sum(dim=1).numpy()[:, None]
        q = torch.cat([q, torch.ones(len(q), 1)], dim=1)
        x = torch.cat([x, (x * x).sum(dim=1, keepdim=True) / -2], dim=1)
    places, scores = np.empty((len(q), k), np.int64), np.empty((len(q), k))
    rest, kind = np.arange(len(q)), x.dtype
    if metric == "cosine" and float(len(q)) * x.numel() >= LARGE:
        if torch.cuda.is_available():
            near, rest = _by_faiss(q, x, k)
            _decide(q, x, near, places, scores)
        if bfloat16_is_faster():
            kind = torch.bfloat16
    for near in _by_products(q, x, rest, k, kind):
        _decide(q, x, near, places, scores)
    return places, (2 * scores - lengths if metric == "euclidean" else scores).astype(np.float32)


def _checked(name: str, rows: Vectors, metric: Metric) -> Tensor:
    import torch

    single = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
    norms = torch.linalg.vector_norm(single, dim=1)
    if not bool(norms.isfinite().all()):
        raise BadSearch(f"{name}: row {int((~norms.isfinite()).int().argmax())} is not finite")
    if metric == "euclidean" or not bool(((norms - 1).abs() > 1e-5).any()):
        return single
    if bool((norms < 1e-12).any()):
        raise BadSearch(f"{name}: row {int(norms.argmin())} is zero; it has no direction")
    unit: Tensor = single / norms[:, None]
    return unit


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


def _error(x: Tensor) -> float:
    """Bound of the error of products of rows of length 1: 8 sqrt(dim) u in float32.

    It is exceeded with probability below 1e-10 (Higham and Mary 2019, SIAM J. Sci. Comput.
    41(5), theorem 2.4, lambda 8). In float64 it is 4 dim u, which is certain.
    """
    dim = x.shape[1]
    return float(4 * dim * 2.0**-53 if x.itemsize == 8 else 8 * np.sqrt(dim) * 2.0**-24)


def _by_faiss(q: Tensor, x: Tensor, k: int) -> tuple[Pairs, Places]:
    """Candidates by faiss on a GPU, and the queries whose candidates are not surely all."""
    import faiss

    wide = min(k + SPARE, len(x))
    if not faiss.get_num_gpus() or wide > 2048:  # more is beyond faiss on a GPU
        return (np.empty(0, np.int64), np.empty(0, np.int64)), np.arange(len(q))
    gpu, product = faiss.StandardGpuResources(), faiss.METRIC_INNER_PRODUCT
    near, at = faiss.knn_gpu(gpu, q.numpy(), x.numpy(), wide, metric=product)
    sure = (near[:, -1] < near[:, k - 1] - 2 * _error(x)) | (wide == len(x))
    return (np.flatnonzero(sure).repeat(wide), at[sure].ravel()), np.flatnonzero(~sure)


def _by_products(q: Tensor, x: Tensor, rows: Places, k: int, kind: object) -> Iterator[Pairs]:
    """All that can be among the `k` nearest of the queries `rows`, block by block."""
    import torch

    # Subtracting the mean takes the same from all scores of a query, and leaves smaller errors.
    centred = x - x.mean(dim=0)
    low = torch.zeros(-(-len(x) // GROUP) * GROUP, x.shape[1], dtype=kind)  # type: ignore[call-overload]
    low[: len(x)] = centred
    longest, lost = _longest(centred), _longest(centred - low[: len(x)])
    across = len(low) // GROUP
    size = min(QUERIES, max(1, BLOCK // len(low)))
    room = torch.empty(size, len(low), dtype=low.dtype)
    for first in range(0, len(rows), size):
        block = rows[first : first + size]
        short = q[block].to(low.dtype)
        scores = torch.mm(short, low.T, out=room[: len(block)])
        scores[:, len(x) :] = -torch.inf
        best = scores.view(len(block), GROUP, across).amax(dim=1)
        floor = (best if k <= across else scores).topk(k).values[:, -1:].double()
        length, away = _longest(q[block]), _longest(q[block] - short)
        error = length * lost + away * longest + length * longest * _error(x)
        eps = torch.finfo(low.dtype).eps  # of the score itself, of `floor` and of `enough`
        enough = (floor - 2 * (1 + eps) * error - 3 * eps * floor.abs()).to(low.dtype)
        row, column = np.divmod(np.flatnonzero((scores >= enough).numpy()), len(low))
        yield block[row], column


def _longest(rows: Tensor) -> float:
    """The length of the longest row, rounded up."""
    return 1.0001 * float(rows.float().norm(dim=1).max())


def _decide(q: Tensor, x: Tensor, near: Pairs, places: Places, scores: NDArray[np.float64]) -> None:
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


def _scored(q: Tensor, x: Tensor, query: Places, row: Places, kind: type[np.floating]) -> Vectors:
    """The product of each pair; those of equal rows are equal, bit for bit."""
    out = np.empty(len(query), kind)
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        left = q.numpy().take(query[part], axis=0).astype(kind, copy=False)
        right = x.numpy().take(row[part], axis=0).astype(kind, copy=False)
        np.einsum("pd,pd->p", left, right, out=out[part])
    return out
