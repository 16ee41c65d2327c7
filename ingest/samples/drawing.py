"""Drawing by density: shapes as signed distances in micrometres, dyes as absorbance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.floating[Any]]
"""One number per pixel, float32 as a rule."""
Point = tuple[float, float]
"""x, y in micrometres."""
EDGE = 0.32
"""Width of a cell's edge in micrometres: the resolution of an oil immersion lens, roughly."""


@dataclass(frozen=True)
class Ink:
    """What a dyed smear absorbs: optical density of red, green and blue per substance.

    Light that passes is `exp(-density)` (Beer-Lambert), so cells that overlap grow darker as
    they do under a microscope.
    """

    glass: Plane
    red: Plane
    """Haemoglobin."""
    nucleus: Plane
    """Dense chromatin."""
    immature: Plane
    """Fine chromatin."""
    pale: Plane
    """Cytoplasm of granulocytes."""
    sky: Plane
    """Cytoplasm of lymphocytes."""
    grey: Plane
    """Cytoplasm of monocytes."""
    deep: Plane
    """Cytoplasm of young cells, rich in RNA."""
    fine: Plane
    """Granules of neutrophils."""
    orange: Plane
    """Granules of eosinophils."""
    violet: Plane
    """Granules of basophils."""
    platelet: Plane

    @classmethod
    def from_colours(cls, colours: Sequence[tuple[int, int, int]]) -> Ink:
        """Densities that give these colours (RGB, 1 to 255) over white, in field order."""
        rgb = np.asarray(colours, np.float32)
        return cls(*(-np.log(rgb / 255)).astype(np.float32))

    def lot(self, strength: float, balance: Plane) -> Ink:
        """The same stain from another lot: stronger or weaker, and shifted by channel."""
        return Ink(*(getattr(self, f.name) * (strength * balance) for f in fields(self)))


@dataclass(frozen=True)
class Grid:
    """A square of pixels around a cell's centre."""

    x: Plane
    """Micrometres to the right of the centre."""
    y: Plane
    """Micrometres below the centre."""
    um_per_px: float

    @classmethod
    def around(cls, side_px: int, um_per_px: float) -> Grid:
        """A square of `side_px` whose middle is the centre."""
        line = (np.arange(side_px, dtype=np.float32) - (side_px - 1) / 2) * np.float32(um_per_px)
        x, y = np.meshgrid(line, line)
        return cls(x, y, um_per_px)

    @property
    def side(self) -> int:
        """Pixels along a side."""
        return len(self.x)


@dataclass(frozen=True)
class Drawn:
    """One cell, drawn: what it absorbs, and where it is."""

    density: Plane
    """Optical density, height x width x 3."""
    body: Plane
    """How much of each pixel the cell covers, 0 to 1."""


def far(x: Plane, y: Plane) -> Plane:
    """Length of the vectors x, y; several times faster than `numpy.hypot`."""
    length: Plane = np.sqrt(x * x + y * y)
    return length


def disc(g: Grid, centre: Point, radius: float) -> Plane:
    """Distance to a disc; negative inside, as everywhere below."""
    return far(g.x - np.float32(centre[0]), g.y - np.float32(centre[1])) - np.float32(radius)


def ellipse(g: Grid, centre: Point, half: Point, angle: float) -> Plane:
    """Distance to an ellipse with half axes `half`, turned by `angle`; near its edge only."""
    u, v = turned(g, centre, angle)
    reach = far(u / np.float32(half[0]), v / np.float32(half[1]))
    return (reach - 1) * np.float32(min(half))


def stroke(g: Grid, points: Sequence[Point], radius: float) -> Plane:
    """Distance to a line through points, `radius` thick on either side, with round ends."""
    best: Plane | None = None
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        u, v = g.x - np.float32(ax), g.y - np.float32(ay)
        along = (u * np.float32(dx) + v * np.float32(dy)) / np.float32(dx * dx + dy * dy + 1e-9)
        along = np.clip(along, 0, 1)
        away = (u - along * np.float32(dx)) ** 2 + (v - along * np.float32(dy)) ** 2
        best = away if best is None else np.minimum(best, away)
    if best is None:
        raise ValueError("a stroke needs two points")
    return np.sqrt(best) - np.float32(radius)


def turned(g: Grid, centre: Point, angle: float) -> tuple[Plane, Plane]:
    """Coordinates along and across an axis at `angle` through `centre`."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = g.x - np.float32(centre[0]), g.y - np.float32(centre[1])
    return dx * c + dy * s, dy * c - dx * s


def joined(first: Plane, second: Plane, reach: float) -> Plane:
    """Union of two shapes, filleted over `reach` micrometres."""
    mix = np.clip(0.5 + 0.5 * (second - first) / np.float32(reach), 0, 1)
    return second + (first - second) * mix - np.float32(reach) * mix * (1 - mix)


def cover(distance: Plane, softness: float) -> Plane:
    """How much of each pixel a shape covers, 0 to 1, its edge `softness` micrometres wide."""
    t = np.clip(0.5 - distance / np.float32(softness), 0, 1)
    smooth: Plane = t * t * (3 - 2 * t)
    return smooth


def outline(rng: np.random.Generator, angle: Plane, waves: int, depth: float) -> Plane:
    """A closed wavy line around 1: random waves per turn up to `waves`, fading, `depth` in all."""
    line = np.ones_like(angle)
    for k in range(2, waves + 1):
        size = depth * rng.normal() / k**1.3
        line += np.float32(size) * np.cos(np.float32(k) * angle + np.float32(rng.uniform(0, 6.28)))
    return line


def noise(rng: np.random.Generator, g: Grid, feature_um: float) -> Plane:
    """Smooth noise around 0 with spread about 1 and spots of about `feature_um`."""
    return clouds(rng, (g.side, g.side), feature_um / g.um_per_px)


def clouds(rng: np.random.Generator, shape: tuple[int, int], feature_px: float) -> Plane:
    """Smooth noise of height x width with spots of about `feature_px`."""
    rows, columns = (max(2, int(np.ceil(n / max(feature_px, 1.0))) + 1) for n in shape)
    seeds = rng.standard_normal((rows, columns), np.float32) * np.float32(1.4)
    image = Image.fromarray(seeds).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def grains(
    rng: np.random.Generator, g: Grid, spacing: float, radius: float, spread: float = 0.25
) -> Plane:
    """How much of each pixel small discs cover: one per jittered place of a lattice.

    Args:
        rng: Where chance comes from.
        g: The pixels.
        spacing: Micrometres between places.
        radius: Mean radius in micrometres.
        spread: Relative spread of the radii.
    """
    reach = float(g.x[0, -1]) + 2 * spacing
    count = int(2 * reach / spacing) + 2
    start = -reach
    place = rng.uniform(-0.42, 0.42, (2, count, count)).astype(np.float32)
    size = (radius * (1 + spread * rng.standard_normal((count, count)))).astype(np.float32)
    across, down = (g.x - np.float32(start)) / spacing, (g.y - np.float32(start)) / spacing
    column, row = np.rint(across[0]).astype(int), np.rint(down[:, 0]).astype(int)
    nearest: Plane = np.full(g.x.shape, 1e3, np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cell = np.ix_(np.clip(row + dy, 0, count - 1), np.clip(column + dx, 0, count - 1))
            u = across - (column + dx)[None, :].astype(np.float32) - place[0][cell]
            v = down - (row + dy)[:, None].astype(np.float32) - place[1][cell]
            nearest = np.minimum(nearest, far(u, v) * np.float32(spacing) - size[cell])
    return cover(nearest, max(0.25, 1.5 * g.um_per_px))
