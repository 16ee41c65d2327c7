"""How usable a tile is: focus, blank, saturated and ink, as numbers with thresholds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encoder.encoder import RGB
from ingest.tissue import ink

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
EVERY = 8
"""Focus is measured on every eighth row, at full resolution along and across it."""


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


def measure(tile: RGB) -> tuple[float, float, float, float, float]:
    """Focus, Tenengrad, blank, saturated and pen of one tile.

    Focus is the variance of the 4-neighbour Laplacian (Pech-Pacheco et al. 2000), Tenengrad the
    mean squared central difference (after Tenenbaum 1970), both of the green channel, where
    both H&E and Romanowsky stains absorb most. The shares are of every fourth pixel each way.
    """
    rows = (tile.shape[0] - 2) // EVERY
    up, row, down = (
        tile[start : start + EVERY * rows : EVERY, :, 1].astype(np.int16) for start in range(3)
    )
    across, along = row[:, 2:] - row[:, :-2], (down - up)[:, 1:-1]
    laplacian = (up + down)[:, 1:-1] + row[:, 2:] + row[:, :-2] - 4 * row[:, 1:-1]
    few = np.ascontiguousarray(tile[::4, ::4].reshape(-1, 3).T)
    low, high = few.min(axis=0), few.max(axis=0)
    n = low.size
    return (
        _square(laplacian) - float(laplacian.mean()) ** 2,
        (_square(across) + _square(along)) / 4,
        np.count_nonzero(low >= WHITE) / n,
        np.count_nonzero((low == 0) | (low == 255)) / n,
        _ink_share(few, low, high),
    )


def _square(values: NDArray[np.int16]) -> float:
    """Mean square."""
    flat = values.astype(np.float32).ravel()
    return float(flat @ flat) / flat.size


def _ink_share(few: RGB, low: NDArray[np.uint8], high: NDArray[np.uint8]) -> float:
    """The ink rules, run only where a cheap test leaves them a chance."""
    red, green, _ = few
    chance = (green > red) | (high < 75) | ((low < 75) & (red > 150))
    if not chance.any():
        return 0.0
    return float(np.count_nonzero(ink(few[:, chance].T)) / low.size)


def judge(scores: Scores, limits: QualityLimits) -> list[Reason]:
    """The first rule that each row breaks, or `kept`."""
    _, focus, _, blank, saturated, pen = scores.T
    broken = [pen > limits.pen, blank > limits.blank, saturated > limits.saturated]
    broken.append(focus < limits.focus)
    names: list[Reason] = ["pen", "blank", "saturated", "out of focus"]
    at = np.select(broken, range(len(names)), default=-1)
    return ["kept" if rule < 0 else names[rule] for rule in at]
