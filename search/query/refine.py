"""Refining a search: more like these, less like those, and by a region of the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encoder.contract import Patches
from search.index.contract import Store, Vectors
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import Box

LOOKED_AT = 20_000
"""Candidates of each example beyond which `best_score` stops looking."""


def average_vector(like: Vectors, unlike: Vectors) -> Vectors:
    """The mean of what is wanted, moved by its difference to the mean of what is not.

    Args:
        like: n x dim, at least one row.
        unlike: m x dim; may be empty.

    Returns:
        Length dim; a vector of another length than 1, or of none at all where the examples
        cancel out.
    """
    wanted = like.astype(np.float64).mean(axis=0)
    if len(unlike):
        wanted = 2 * wanted - unlike.astype(np.float64).mean(axis=0)
    return np.asarray(wanted, np.float32)


class BestScore:
    """Ranks candidates by the example that each is nearest to.

    Those nearer to a wanted example than to any unwanted one come first, by falling cosine to
    the former; then the others, by rising cosine to the latter: the order of Qdrant's
    `best_score`. A hit's score is its cosine to the nearest wanted example.

    Args:
        store: Where is searched.
        like: n x dim, at least one row, rows of length 1.
        unlike: m x dim, rows of length 1; may be empty.
        exact: Compare with every item instead of walking the graph.
    """

    def __init__(self, store: Store, like: Vectors, unlike: Vectors, *, exact: bool) -> None:
        self._store = store
        self._like = like.astype(np.float64)
        self._unlike = unlike.astype(np.float64)
        self._exact = exact

    def __call__(self, k: int, where: Filter | None, exclude: Filter | None) -> list[Hit]:
        """The best `k`.

        The nearest of each wanted example are looked at, more and more of them, until no item
        outside can be among the first `k` (or `LOOKED_AT` of each were seen).
        """
        limit = max(4 * k, 50)
        while True:
            lists = self._store.nearest_batch(
                np.asarray(self._like, np.float32), limit, where, exclude, exact=self._exact
            )
            exhausted = all(len(hits) < limit for hits in lists)
            outside = max((hits[-1].score for hits in lists if len(hits) == limit), default=-2.0)
            ranked, sure = self._ranked(lists, outside)
            if exhausted or sure >= k or limit >= LOOKED_AT:
                return ranked[:k] if exhausted else ranked[: min(k, max(sure, 0))]
            limit = min(limit * 4, LOOKED_AT)

    def _ranked(self, lists: list[list[Hit]], outside: float) -> tuple[list[Hit], int]:
        """All candidates in order, and how many of the first nothing outside can beat."""
        items = {hit.item.id: hit.item for hits in lists for hit in hits}
        stored = self._store.get(sorted(items))
        if not stored:
            return [], 0
        rows = np.stack([found.vector for found in stored]).astype(np.float64)
        near = (rows @ self._like.T).max(axis=1)
        far = (rows @ self._unlike.T).max(axis=1) if len(self._unlike) else np.full(len(rows), -2.0)
        wanted = near > far
        keys = np.where(wanted, near, -far)
        order = sorted(
            range(len(rows)), key=lambda at: (not wanted[at], -keys[at], stored[at].item.id)
        )
        hits = [
            Hit(item=stored[at].item, score=float(np.clip(near[at], -1.0, 1.0))) for at in order
        ]
        return hits, int((wanted & (near >= outside)).sum())


def region_vector(patches: Patches, region: Box, height: int, width: int) -> Vectors:
    """The mean patch token under a box, each patch weighted by how much of it lies inside.

    Args:
        patches: rows x columns x dim, of the whole image squashed to a square.
        region: In pixels of the image; it must lie inside.
        height: Of the image.
        width: Of the image.

    Returns:
        Length dim, not normalised.

    Raises:
        ValueError: a region that reaches over the border.
    """
    box = region
    if box.x < 0 or box.y < 0 or box.x + box.w > width or box.y + box.h > height:
        raise ValueError(
            f"the region {box.w} x {box.h} at ({box.x}, {box.y}) reaches over the border of "
            f"the image, which is {width} x {height} pixels"
        )
    down = _cover(box.y / height, (box.y + box.h) / height, patches.shape[0])
    across = _cover(box.x / width, (box.x + box.w) / width, patches.shape[1])
    weights = np.outer(down, across)
    total = np.tensordot(weights, patches.astype(np.float64), axes=([0, 1], [0, 1]))
    return np.asarray(total / weights.sum(), np.float32)


def measured_part(patches: Patches) -> NDArray[np.bool_]:
    """Which numbers of a vector no patch token has: those measured beside a network.

    Args:
        patches: rows x columns x dim.

    Returns:
        Length dim.
    """
    return np.asarray(~patches.any(axis=(0, 1)))


def joined(row: Vectors, measured: Vectors, beside: NDArray[np.bool_]) -> Vectors:
    """The patches' part of one vector and the measured part of another, as an encoder joins them.

    Args:
        row: Length dim, of patch tokens.
        measured: Length dim, of an image as a whole.
        beside: Which numbers are measured.
    """
    own = ~beside
    length = float(np.linalg.norm(row[own]))
    share = float(np.linalg.norm(measured[own]))
    both = measured.copy()
    both[own] = row[own] * (share / length if length > 0 else 0.0)
    return both


def _cover(start: float, end: float, cells: int) -> NDArray[np.float64]:
    """How much of each of `cells` equal parts of 0 to 1 lies between start and end."""
    edges = np.arange(cells + 1) / cells
    inside = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return np.asarray(np.clip(inside, 0, None) * cells, np.float64)
