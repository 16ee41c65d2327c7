"""Exact nearest neighbours of many queries at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "euclidean"]
"""`euclidean` ranks by distance; its scores are squared distances with a minus."""
Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Positions in the library and scores, both m x k, nearest first."""
BLOCK = 1 << 24
"""Scores held at once by the plain search."""


def search(
    queries: NDArray[np.floating],
    library: NDArray[np.floating],
    k: int,
    *,
    metric: Metric = "cosine",
) -> Found:
    """The `k` nearest of the library to each query, exactly; equal scores in order of position."""
    return plain(queries, library, k, metric)


def plain(
    queries: NDArray[np.floating], library: NDArray[np.floating], k: int, metric: Metric
) -> Found:
    """Every score in double precision, block by block."""
    import torch

    q, x = (torch.from_numpy(np.ascontiguousarray(v, np.float64)) for v in (queries, library))
    half = (x * x).sum(dim=1) / 2
    found = np.empty((len(q), k), np.int64)
    near = np.empty((len(q), k), np.float32)
    step = max(1, BLOCK // max(len(x), 1))
    for at in range(0, len(q), step):
        s = q[at : at + step] @ x.T
        if metric == "euclidean":
            s -= half
        v, i = s.topk(k, dim=1)
        found[at : at + step], near[at : at + step] = i.numpy(), v.numpy()
    return found, near
