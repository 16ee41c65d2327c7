"""The usual red-cell diameter of a field in pixels, before a single cell is found."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from encoder.contract import RGB
from ingest.smears.contours import Edges, highest, slopes_of, vote
from ingest.smears.density import Background, resized

VIEW_PX = 320
"""Long side of the view in which diameters are sought."""
RADII = 4 * 1.15 ** np.arange(24)
"""Radii that are tried, in pixels of the view."""
STANDING_OUT = 0.30
"""Share of a circle's edge by which a centre must beat its neighbourhood to count."""
SIZE_POWER = 1.25
"""How the worth of a disc grows with its radius: below 2 (its area) because chance meetings of
edges also grow, above 0 because platelets and specks outnumber cells. Tuned on even fields."""


def usual_diameter(image: RGB, background: Background) -> float | None:
    """Diameter in pixels of the discs that a field is made of; `None` where there are none.

    Each edge votes for centres towards its dark side at every radius; the radius whose centres
    stand out most, times a power of their size, wins. A photograph whose cells may be too small
    for one view is looked at again, twice as near each time, where it is most covered.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    scale = min(1.0, VIEW_PX / longest)
    best, diameter = 0.0, None
    while True:
        top, left, side = _window(image, scale)
        part = resized(image[top : top + side, left : left + side], scale)
        window = (
            left / width,
            top / height,
            min(left + side, width) / width,
            min(top + side, height) / height,
        )
        worth, radius = _loudest(part, background, window)
        worth *= scale ** (2 - SIZE_POWER)  # in pixels of the field, whatever the view
        if radius and worth > best:
            best, diameter = worth, 2 * radius / scale
        if scale >= 1 or longest <= 2 * VIEW_PX:
            return diameter
        scale = min(1.0, 2 * scale)


def _window(image: RGB, scale: float) -> tuple[int, int, int]:
    """Top, left and side of the most covered square that fills one view at a scale."""
    height, width = image.shape[:2]
    side = int(VIEW_PX / scale)
    if side >= max(height, width):
        return 0, 0, max(height, width)
    small = 64 / max(height, width)
    green = resized(image, small)[..., 1].astype(np.float32)
    span = max(1, int(side * small))
    busy = ndimage.uniform_filter(np.abs(green - np.median(green)), span)
    y, x = np.unravel_index(int(busy.argmax()), busy.shape)
    top = int(np.clip(y / small - side / 2, 0, max(0, height - side)))
    left = int(np.clip(x / small - side / 2, 0, max(0, width - side)))
    return top, left, side


def _loudest(
    view: RGB, background: Background, window: tuple[float, float, float, float]
) -> tuple[float, float | None]:
    """Worth per pixel of the best radius, and the radius in pixels of the view."""
    planes = background.planes(view, 1.0, window)
    if planes is None:
        return 0.0, None
    slopes = slopes_of(np.clip(planes.cover, 0, 1.3 * planes.level), 1.0)
    cap = max(float(np.percentile(slopes.length, 90)), 1e-4)
    edges = Edges.of(slopes, cap)
    best: tuple[float, float | None] = (0.0, None)
    for radius in RADII[max(view.shape[:2]) / 3 > RADII]:
        worth = _worth(edges, float(radius)) * radius**SIZE_POWER / planes.cover.size
        if worth > best[0]:
            best = (worth, float(radius))
    return best


def _worth(edges: Edges, radius: float) -> float:
    """Sum over centres of how far they stand out of the votes around them."""
    sigma = 0.15 * radius
    ballots = vote(edges, np.array([0.93, 1, 1.07]) * radius, int(0.3 * radius)) / 3
    around = ndimage.uniform_filter(ballots, int(1.6 * radius))
    clear = (ndimage.gaussian_filter(ballots, sigma) - around) * (2 * sigma**2)
    top = clear == highest(clear, int(0.6 * radius))
    return float(np.maximum(clear[top] - STANDING_OUT, 0).sum())
