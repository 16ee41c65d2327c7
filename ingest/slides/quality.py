"""How usable a tile is: focus, blank, saturated and ink, as numbers with thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ingest.slides.tissue import ink

SCORES = ("tissue", "focus", "tenengrad", "blank", "saturated", "pen")
"""The stored scores, in the order of the columns."""
Scores = NDArray[np.float32]
"""n x 6, columns as in `SCORES`."""
Reason = Literal[
    "kept",
    "outside the region",
    "little tissue",
    "pen",
    "blank",
    "saturated",
    "out of focus",
    "damaged",
]
REASONS: tuple[Reason, ...] = (
    "kept",
    "outside the region",
    "little tissue",
    "pen",
    "blank",
    "saturated",
    "out of focus",
    "damaged",
)
WHITE = 225
"""A pixel is blank if its smallest channel reaches this."""
EVERY = 16
"""Focus is measured on every sixteenth row, at full resolution along and across it."""

TOGETHER = 16
"""Tiles measured at once: their intermediate rows stay in the cache (half the time of 64)."""


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """From where on a tile is dropped; a limit that can never be met switches its rule off."""

    focus: float = 12.0
    """Least variance of the Laplacian of green, 8-bit levels squared."""
    blank: float = 0.95
    """Largest share of near-white pixels."""
    saturated: float = 0.5
    """Largest share of pixels with a channel at 0, or with all at 255."""
    pen: float = 0.2
    """Largest share of ink."""

    def to_json(self) -> dict[str, float]:
        """The limits by name."""
        return asdict(self)


def measure(tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Focus, Tenengrad, blank, saturated and pen of tiles (n x height x width x 3), as n x 5.

    Focus is the variance of the 4-neighbour Laplacian (Pech-Pacheco et al. 2000), Tenengrad the
    mean squared central difference (after Tenenbaum 1970), both of the green channel, where
    both H&E and Romanowsky stains absorb most. The shares are of every 32nd pixel.
    """
    runs = range(0, len(tiles), TOGETHER)
    return np.concatenate([_measure(tiles[at : at + TOGETHER]) for at in runs])


def _measure(tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    rows = (tiles.shape[1] - 2) // EVERY
    up, row, down = (
        tiles[:, start : start + EVERY * rows : EVERY, :, 1].astype(np.int16) for start in range(3)
    )
    across = _flat(row[..., 2:] - row[..., :-2])
    along = _flat((down - up)[..., 1:-1])
    laplacian = _flat((up + down - 4 * row)[..., 1:-1] + row[..., 2:] + row[..., :-2])
    red, green, blue = (_flat(tiles[:, 1::8, 1::4, channel], np.uint8) for channel in range(3))
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    chance = (green > red) | (high < 75) | ((low < 75) & (red > 150))
    pen = np.zeros(low.shape, bool)
    pen[chance] = ink(np.stack([red[chance], green[chance], blue[chance]], axis=-1))
    return np.stack(
        [
            _square(laplacian) - laplacian.mean(axis=1, dtype=np.float64) ** 2,
            (_square(across) + _square(along)) / 4,
            _share(low >= WHITE),
            _share((low == 0) | (low == 255)),
            _share(pen),
        ],
        axis=1,
    )


def _flat(values: NDArray[Any], dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """One row per tile."""
    return np.ascontiguousarray(values, dtype).reshape(len(values), -1)


def _square(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean square of each row."""
    return np.asarray(np.einsum("ij,ij->i", values, values) / values.shape[1], np.float64)


def _share(where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of each row that is true."""
    return np.asarray(np.count_nonzero(where, axis=1) / where.shape[1], np.float64)


def judge(scores: Sequence[float], limits: QualityLimits) -> Reason:
    """The first rule that a tile's scores (as in `SCORES`) break, or `kept`."""
    _, focus, _, blank, saturated, pen = scores
    if pen > limits.pen:
        return "pen"
    if blank > limits.blank:
        return "blank"
    if saturated > limits.saturated:
        return "saturated"
    return "out of focus" if focus < limits.focus else "kept"
