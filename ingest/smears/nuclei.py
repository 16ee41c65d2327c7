"""White cells and platelets of a smear field, found by what takes up the nuclear dye."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ingest.smears.cells import CellKind
from ingest.smears.density import Plane, Planes

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, kw_only=True)
class NuclearRule:
    """What is a white cell and what a platelet; lengths in red-cell diameters."""

    floor: float = 0.10
    """Nuclear density below which nothing is a nucleus."""
    share: float = 0.5
    """And below this share of the field's own nuclei."""
    bridge: float = 0.14
    """Half the gap over which lobes of one nucleus are joined."""
    white: float = 0.42
    """Least area of a white cell's nucleus, in red-cell discs."""
    platelet: float = 0.02
    """Least area of a platelet, in red-cell discs."""
    rim: float = 0.22
    """Cytoplasm around a nucleus."""
    halo: float = 0.10
    """Rim around a platelet's granules."""


@dataclass(frozen=True)
class Stained:
    """One white cell or platelet, in pixels of the plane."""

    kind: CellKind
    box: Rectangle
    score: float


def stained_cells(planes: Planes, diameter: float, rule: NuclearRule) -> tuple[list[Stained], int]:
    """White cells and platelets of a field, and the number of specks that were left out.

    Nuclei first, at a threshold that the field's own nuclei set. Platelets are paler, so a second
    look takes what is fainter, but only on empty glass and away from the white cells: on red
    cells, faint colour is mostly the fringe of the lens.
    """
    high, low = _masks(planes.nuclear, rule)
    found, specks = _judged(planes.nuclear, high, diameter, rule, whites=True)
    near = ndimage.distance_transform_edt(~high) <= rule.bridge * diameter if high.any() else high
    pale = _on_glass(low & ~near, planes.covered, diameter)
    for cell in found:
        left, top, right, bottom = (round(side) for side in cell.box)
        pale[top:bottom, left:right] = False
    more, faint = _judged(planes.nuclear, pale, diameter, rule, whites=False)
    return found + more, specks + faint


def _judged(
    nuclear: Plane, mask: NDArray[np.bool_], diameter: float, rule: NuclearRule, *, whites: bool
) -> tuple[list[Stained], int]:
    """The parts of a mask as cells by their size, and the number of those that are too small."""
    groups, count = _groups(mask, rule.bridge * diameter)
    disc = np.pi / 4 * diameter**2
    found: list[Stained] = []
    specks = 0
    if not count:
        return found, specks
    labels = np.arange(1, count + 1)
    areas = ndimage.sum_labels(mask, groups, labels) / disc
    means = ndimage.mean(nuclear, groups, labels)
    height, width = nuclear.shape
    for area, mean, part in zip(areas, means, ndimage.find_objects(groups), strict=True):
        if part is None or area < rule.platelet:
            specks += 1
            continue
        top, bottom, left, right = part[0].start, part[0].stop, part[1].start, part[1].stop
        cut = top <= 1 or left <= 1 or bottom >= height - 1 or right >= width - 1
        white = area > rule.white * (0.6 if cut else 1)
        if white and not whites:
            specks += 1
            continue
        rim = (rule.rim if white else rule.halo) * diameter
        box = (
            max(0.0, left - rim),
            max(0.0, top - rim),
            min(float(width), right + rim),
            min(float(height), bottom + rim),
        )
        score = float(np.clip(mean / 0.5, 0, 1))
        found.append(Stained("white" if white else "platelet", box, score))
    return found, specks


def _on_glass(
    mask: NDArray[np.bool_], covered: NDArray[np.bool_], diameter: float
) -> NDArray[np.bool_]:
    """The parts of a mask that have mostly empty glass around them."""
    parts, count = ndimage.label(mask)
    if not count:
        return mask
    reach = 2 * max(2, round(0.1 * diameter)) + 1
    wide = ndimage.maximum_filter(parts, reach)  # a part and the ring around it
    ring = (wide > 0) & ~ndimage.binary_dilation(mask)
    around = np.bincount(wide[ring], minlength=count + 1)
    beside = np.bincount(wide[ring], covered[ring], minlength=count + 1)
    keep = beside < 0.5 * around
    keep[0] = False
    return np.asarray(keep[parts])


def _masks(nuclear: Plane, rule: NuclearRule) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where the dye is as dense as in the field's nuclei, and where it is seen at all."""
    from skimage.filters import threshold_otsu

    noise = 1.48 * float(np.median(np.abs(nuclear - np.median(nuclear))))
    faint = limit = max(rule.floor, 4 * noise)
    strong = nuclear[nuclear > faint]
    if strong.size > 0.004 * nuclear.size:
        limit = max(limit, rule.share * float(threshold_otsu(np.clip(strong, 0, 1.5))))
    high, low = (ndimage.binary_opening(nuclear > at) for at in (limit, faint))
    return ndimage.binary_fill_holes(high), ndimage.binary_fill_holes(low)


def _groups(mask: NDArray[np.bool_], reach: float) -> tuple[NDArray[np.int32], int]:
    """Label the mask; parts nearer to each other than twice `reach` share a label."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32), 0
    near = ndimage.distance_transform_edt(~mask) <= max(1.0, reach)
    groups, count = ndimage.label(near)
    return groups * mask, int(count)
