"""Many small pictures made smaller at once, to the very levels that Pillow gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.contract import RGB

LARGEST = 80
"""Side in pixels of a square picture up to which a product is quicker than Pillow, and BLAS takes
no second thread for it. Of pictures twice as tall as wide Pillow shrinks the columns first, and
rounds otherwise; only squares, which most cells are, are left to the product."""
TOGETHER = 16
"""Pictures in one product: they stay in the cache of a processor."""
ONE = 1 << 22
"""Pillow's weights are whole numbers; this many are 1."""
SUPPORT = 3
"""Of the Lanczos filter, in pixels of what comes out."""

Planes = NDArray[np.float64]
"""n x 3 x height x width, whole levels from 0 to 255."""


def shrunk(pictures: Sequence[RGB], side: int) -> Planes:
    """Pictures squashed to `side` x `side` by Pillow's Lanczos filter: n x 3 x side x side.

    Half of Pillow's time for thumbnails. Its filter is a product by whole numbers along each
    row, rounded, then along each column, so in float64 the product is exact.
    """
    planes = np.empty((len(pictures), 3, side, side))
    of_size: dict[tuple[int, ...], list[int]] = {}
    for at, picture in enumerate(pictures):
        of_size.setdefault(picture.shape, []).append(at)
    for (height, width, _), places in of_size.items():
        for start in range(0, len(places), TOGETHER):
            some = places[start : start + TOGETHER]
            if height == width <= LARGEST:
                planes[some] = _by_product([pictures[at] for at in some], side)
            else:
                planes[some] = [_by_pillow(pictures[at], side) for at in some]
    return planes


def _by_product(pictures: Sequence[RGB], side: int) -> Planes:
    planes = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)).astype(np.float64)
    weights = _weights(planes.shape[-1], side)
    rows = planes @ np.ascontiguousarray(weights.T)  # a third quicker than by a turned view
    return _rounded(weights @ _rounded(rows))


def _by_pillow(picture: RGB, side: int) -> NDArray[np.uint8]:
    small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small).transpose(2, 0, 1)


def _rounded(levels: Planes) -> Planes:
    np.clip(levels, 0, 255, out=levels)
    levels += 0.5
    return np.floor(levels, out=levels)


@lru_cache(maxsize=64)
def _weights(length: int, side: int) -> NDArray[np.float64]:
    """Of each pixel that comes out, the weights of those that go in: side x length.

    Source: Pillow, src/libImaging/Resample.c, `precompute_coeffs` and `normalize_coeffs_8bpc`.
    """
    step = length / side
    wide = max(step, 1.0)
    weights = np.zeros((side, length))
    for at in range(side):
        middle = (at + 0.5) * step
        first = max(int(middle - SUPPORT * wide + 0.5), 0)
        last = min(int(middle + SUPPORT * wide + 0.5), length)
        row = [_lanczos((x - middle + 0.5) / wide) for x in range(first, last)]
        whole = [one / sum(row) * ONE for one in row]
        weights[at, first:last] = [int(one + math.copysign(0.5, one)) for one in whole]
    return weights / ONE


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / SUPPORT) if -SUPPORT <= x < SUPPORT else 0.0


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0
