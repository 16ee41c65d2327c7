"""Red cells of a smear field, one outline each, also where they touch and overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ingest.smears.contours import Edges, Outlines, Slopes, highest, peaks, slopes_of, trace, vote
from ingest.smears.density import Planes
from ingest.smears.nuclei import Rectangle

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class RedRule:
    """What is a red cell; lengths in red-cell diameters."""

    peak: float = 0.22
    """Share of a full circle that must vote for a centre."""
    prior: float = 0.40
    """How much a radius of another size than usual must be better seen."""
    support: float = 0.45
    """Least mean edge strength along an outline."""
    covered: float = 0.55
    """Least share of the inside that covers the glass."""
    new: float = 0.45
    """Least share of the inside that no better outline has taken."""
    overlap: float = 0.55
    """Boxes that agree better than this (IoU) are the same cell."""
    smallest: float = 0.12
    """Least area, in red-cell discs."""
    largest: float = 1.5
    """Greatest area of a patch of cover that may be one cell, in red-cell discs."""
    solid: float = 0.96
    """And its least share of its convex hull."""
    dye: float = 0.35
    """Greatest share of nuclear dye, or of grey, in what covers the inside: platelets and dirt."""
    rim: float = 0.04
    """From the steepest point of the edge to its foot."""


@dataclass(frozen=True)
class Red:
    """One red cell, in pixels of the plane."""

    box: Rectangle
    score: float


RADII = (0.22, 0.95)
"""Least and greatest distance of an outline from its centre."""
SAME_CENTRE = 0.12
"""Proposed centres nearer to each other than about this are one."""
RINGS = ((0.30, 0.44), (0.40, 0.54), (0.50, 0.66))
"""Radii that vote together, so that small, usual and large cells each have their map."""


def red_cells(
    planes: Planes, stained: list[Rectangle], diameter: float, rule: RedRule
) -> tuple[list[Red], int]:
    """Red cells of a field, and the number of outlines that were too weak.

    Args:
        planes: The field.
        stained: Boxes of its white cells and platelets, which are no red cells.
        diameter: Usual diameter of a red cell in pixels.
        rule: What is a red cell.
    """
    slopes = slopes_of(np.clip(planes.cover, 0, 1.6 * planes.level), max(0.7, 0.03 * diameter))
    edge = ndimage.binary_dilation(planes.covered) & ~ndimage.binary_erosion(planes.covered)
    if not edge.any():
        return [], 0
    cap = max(float(np.percentile(slopes.length[edge], 60)), 1e-4)
    taken = _inside_ellipses(stained, planes.cover.shape)
    alone = _alone(planes, slopes, cap, taken, diameter, rule)
    centres = _centres(planes, slopes, cap, diameter, rule)
    centres = centres[~_within(taken, centres)]
    if not len(centres):
        return alone, 0
    radii = np.arange(RADII[0] * diameter, RADII[1] * diameter, 0.75 * max(diameter / 32, 0.5))
    prior = -rule.prior * np.abs(np.log(radii / (0.5 * diameter)))
    first = trace(slopes, cap, centres, radii, prior)
    outlines = trace(slopes, cap, first.points.mean(axis=1), radii, prior)
    touching, weak = _chosen(outlines, planes, alone, taken, diameter, rule)
    return alone + touching, weak


def _within(taken: Mask, centres: NDArray[np.float32]) -> Mask:
    """Whether each centre lies in a place that is taken; outside the picture none does."""
    y, x = np.rint(centres).astype(int).T
    inside = (y >= 0) & (x >= 0) & (y < taken.shape[0]) & (x < taken.shape[1])
    hit = np.zeros(len(centres), bool)
    hit[inside] = taken[y[inside], x[inside]]
    return hit


def _centres(
    planes: Planes, slopes: Slopes, cap: float, diameter: float, rule: RedRule
) -> NDArray[np.float32]:
    """Places that may be the middle of a red cell: voted, and the thickest parts of the cover."""
    margin, sigma = int(0.35 * diameter), 0.09 * diameter
    edges = Edges.of(slopes, cap)
    centres = []
    for low, high in RINGS:
        radii = np.arange(low * diameter, high * diameter, 1.0)
        share = vote(edges, radii, margin) * (2 * sigma**2 / len(radii))
        centres.append(peaks(share, sigma, int(0.12 * diameter), rule.peak, margin))
    filled = ndimage.binary_fill_holes(planes.covered)
    depth = ndimage.distance_transform_edt(np.pad(filled, 1, constant_values=True))
    depth = ndimage.gaussian_filter(depth, 1.0)[1:-1, 1:-1]
    thick = (depth == highest(depth, int(0.15 * diameter))) & (depth > 0.15 * diameter)
    centres.append(np.argwhere(thick & filled).astype(np.float32))
    return _apart(np.concatenate(centres), SAME_CENTRE * diameter)


def _apart(centres: NDArray[np.float32], reach: float) -> NDArray[np.float32]:
    """One centre per square of side `reach`: several maps propose the same ones."""
    _, first = np.unique(np.rint(centres / max(reach, 1.0)), axis=0, return_index=True)
    return centres[np.sort(first)]


def _alone(
    planes: Planes, slopes: Slopes, cap: float, taken: Mask, diameter: float, rule: RedRule
) -> list[Red]:
    """Cells that touch nothing, whatever their shape; marks what they take in `taken`.

    A patch of cover that is small enough for one cell and nearly convex is one cell: its box is
    exact also for ovals, teardrops and burr cells, which circles fit badly.
    """
    patches, _ = ndimage.label(ndimage.binary_fill_holes(planes.covered))
    height, width = taken.shape
    disc = np.pi / 4 * diameter**2
    kept = []
    for at, part in enumerate(ndimage.find_objects(patches), start=1):
        mask = patches[part] == at
        area = mask.sum()
        if not rule.smallest * disc <= area <= rule.largest * disc:
            continue
        if taken[part][mask].mean() > 0.3 or _solidity(mask) < rule.solid:
            continue
        if _dye(planes, part, mask) > rule.dye:
            continue
        rim = mask & ~ndimage.binary_erosion(mask)
        top, bottom, left, right = part[0].start, part[0].stop, part[1].start, part[1].stop
        score = float(np.clip(slopes.length[part][rim] / cap, 0, 1).mean())
        if score < rule.support:
            continue
        taken[part] |= mask
        kept.append(Red((left, top, min(right, width), min(bottom, height)), score))
    return kept


def _dye(planes: Planes, part: tuple[slice, slice], mask: Mask) -> float:
    """How much of the density of a place is not haemoglobin's: 0 for red cells."""
    covered = mask & planes.covered[part]
    density = float(planes.cover[part][covered].sum())
    return float(planes.nuclear[part][covered].sum()) / density if density > 0 else 0.0


def _solidity(mask: Mask) -> float:
    """Area over the area of the convex hull; 1 for shapes without a dent."""
    from scipy.spatial import ConvexHull, QhullError

    rim = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    try:
        hull = ConvexHull(rim)
    except QhullError:  # a line or a point
        return 0.0
    # the hull runs through pixel middles; in a plane its `area` is the perimeter
    return float(mask.sum() / (hull.volume + hull.area / 2 + 1))


def _chosen(
    outlines: Outlines,
    planes: Planes,
    alone: list[Red],
    taken: Mask,
    diameter: float,
    rule: RedRule,
) -> tuple[list[Red], int]:
    """The best outlines first; each must cover glass that no better one has taken."""
    from skimage.draw import polygon2mask

    height, width = planes.cover.shape
    strength = np.clip(outlines.support, -0.2, 1)
    seen = np.isfinite(strength).mean(axis=1)
    mean = np.nansum(strength, axis=1) / np.maximum(np.isfinite(strength).sum(axis=1), 1)
    ok = (mean >= rule.support) & (seen >= 0.25)
    least = rule.smallest * np.pi / 4 * diameter**2
    rim = rule.rim * diameter
    kept: list[Red] = []
    boxes = np.array([red.box for red in alone], float).reshape(-1, 4)
    for at in np.argsort(-mean * np.sqrt(seen)):
        if not ok[at]:
            continue
        points = outlines.points[at] + 0.5  # from pixel middles to pixel edges
        low, high = points.min(axis=0) - rim, points.max(axis=0) + rim
        box = np.array([max(0, low[1]), max(0, low[0]), min(width, high[1]), min(height, high[0])])
        if (box[2:] - box[:2]).min() < 0.15 * diameter or _same(box, boxes, rule.overlap):
            continue
        left, top = np.floor(box[:2]).astype(int)
        right, bottom = np.ceil(box[2:]).astype(int)
        part = (slice(top, bottom), slice(left, right))
        mask = polygon2mask((bottom - top, right - left), points - 0.5 - [top, left])
        if (
            mask.sum() < least
            or planes.covered[part][mask].mean() < rule.covered
            or 1 - taken[part][mask].mean() < rule.new
            or _dye(planes, part, mask & ~taken[part]) > rule.dye
        ):
            continue
        taken[part] |= mask
        boxes = np.vstack([boxes, box])
        x0, y0, x1, y1 = map(float, box)
        kept.append(Red((x0, y0, x1, y1), float(np.clip(mean[at], 0, 1))))
    return kept, int((~ok).sum())


def _same(box: NDArray[np.floating], boxes: NDArray[np.floating], limit: float) -> bool:
    """Whether the box agrees with any of the boxes better than `limit` (IoU)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    both = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - common
    return bool((common > limit * both).any())


def _inside_ellipses(boxes: list[Rectangle], shape: tuple[int, ...]) -> Mask:
    """Where the ellipses inscribed in the boxes are."""
    from skimage.draw import ellipse

    inside = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        rows, columns = ellipse(
            (top + bottom - 1) / 2,
            (left + right - 1) / 2,
            (bottom - top) / 2,
            (right - left) / 2,
            shape=shape,
        )
        inside[rows, columns] = True
    return inside
