"""Scores of vector pairs, their rounding error, and the best of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


Metric = Literal["cosine", "euclidean"]
"""What is near. `euclidean` takes the rows as they are, `cosine` brings them to length 1."""


GROUP = 32
"""Columns whose maximum is taken before anything is sorted."""


def single_error(dim: int) -> float:
    """Bound of the error of a float32 dot product of rows of length 1.

    8 sqrt(dim) u, exceeded with probability below 1e-10 (Higham and Mary 2019, SIAM J. Sci.
    Comput. 41(5), theorem 2.4, lambda 8).
    """
    return float(8 * np.sqrt(dim) * 2.0**-24)


def double_error(q: Tensor, x: Tensor, metric: Metric) -> float:
    """Bound of the error of a float64 score; for `euclidean`, of q.x - |x|^2 / 2."""
    if metric == "cosine":
        return float(2 * q.shape[1] * 2.0**-53)
    most_q, most_x = (float(v.double().norm(dim=1).max()) for v in (q, x))
    return float(2 * q.shape[1] * 2.0**-53 * (most_q * most_x + most_x**2))


def top(scores: Tensor, wide: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(wide)`, sorting only groups whose maximum is among the `wide` largest.

    The `wide` largest lie in those groups: each of the others is below `wide` maxima.
    """
    rows, n = scores.shape
    whole = n // GROUP
    if whole <= 4 * wide:
        best, place = scores.topk(wide, dim=1)
        return best, place
    maxima = scores[:, : whole * GROUP].reshape(rows, whole, GROUP).amax(dim=2)
    groups = maxima.topk(wide, dim=1).indices
    offsets = groups.new_tensor(range(GROUP))
    columns = (groups[:, :, None] * GROUP + offsets).flatten(1)
    rest = groups.new_tensor(range(whole * GROUP, n)).expand(rows, -1)
    import torch

    columns = torch.cat([columns, rest], dim=1)
    best, inside = scores.gather(1, columns).topk(wide, dim=1)
    return best, columns.gather(1, inside)
