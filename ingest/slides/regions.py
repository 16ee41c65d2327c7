"""Regions of interest from GeoJSON, in pixels of level 0, as QuPath writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.sandbox.messages import Refusal
from ingest.slides.grid import Boxes

MAX_BYTES = 64 * 1024 * 1024
MAX_POINTS = 2_000_000
Ring = NDArray[np.float64]
"""n x 2 corners, closed or not."""


class RegionError(Refusal):
    """Regions that cannot be used, and why."""


@dataclass(frozen=True)
class Regions:
    """Polygons with holes; a point is inside if it is inside of any polygon."""

    polygons: tuple[tuple[Ring, ...], ...]
    """Each an outer ring followed by its holes."""

    def contain(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of n x 2 points lie inside, by the even-odd rule within each polygon."""
        inside = np.zeros(len(points), bool)
        for rings in self.polygons:
            within = np.zeros(len(points), bool)
            for ring in rings:
                within ^= in_ring(ring, points)
            inside |= within
        return inside

    def hold(self, boxes: Boxes) -> NDArray[np.bool_]:
        """Which tiles belong: those whose centre lies inside."""
        return self.contain(boxes[:, :2] + boxes[:, 2:] / 2.0)

    @classmethod
    def from_geojson(cls, text: str) -> Regions:
        """Read Polygon and MultiPolygon geometries; properties and names are not looked at.

        Raises:
            RegionError: not GeoJSON, no polygon in it, or coordinates that are none.
        """
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RegionError("the regions are not JSON; export them as GeoJSON") from error
        try:
            polygons = tuple(_polygons(tree))
        except RecursionError as error:
            raise RegionError("the regions are nested too deeply to be GeoJSON") from error
        if not polygons:
            raise RegionError("the regions hold no Polygon or MultiPolygon; draw areas, not points")
        if sum(len(ring) for rings in polygons for ring in rings) > MAX_POINTS:
            raise RegionError(f"the regions have more than {MAX_POINTS:,} corners; simplify them")
        return cls(polygons)

    @classmethod
    def read(cls, path: Path) -> Regions:
        """Read a GeoJSON file; see `text_of` and `from_geojson`."""
        return cls.from_geojson(text_of(path))


def text_of(path: Path) -> str:
    """The text of a GeoJSON file.

    Raises:
        RegionError: it is not there, may not be read, is too large, or is no text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RegionError(f"the regions are over {MAX_BYTES // 2**20} MiB; simplify them")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RegionError("the regions are not UTF-8 text; export them as GeoJSON") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise RegionError(f"the regions {path} cannot be read: {why}") from error


def in_ring(ring: Ring, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Even-odd test of n x 2 points against one ring, edge by edge."""
    inside = np.zeros(len(points), bool)
    x, y = points[:, 0], points[:, 1]
    low, high = ring.min(axis=0), ring.max(axis=0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    px, py = x[near], y[near]
    odd = np.zeros(len(near), bool)
    for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        crosses = (ay > py) != (by > py)
        if crosses.any():
            odd[crosses] ^= px[crosses] < (bx - ax) * (py[crosses] - ay) / (by - ay) + ax
    inside[near] = odd
    return inside


def _polygons(node: Any) -> list[tuple[Ring, ...]]:
    if isinstance(node, list):  # QuPath also writes a bare list of features
        return [polygon for child in node for polygon in _polygons(child)]
    if not isinstance(node, dict):
        return []
    match node.get("type"):
        case "FeatureCollection":
            return _polygons(node.get("features"))
        case "Feature":
            return _polygons(node.get("geometry"))
        case "GeometryCollection":
            return _polygons(node.get("geometries"))
        case "Polygon":
            return [_rings(node.get("coordinates"))]
        case "MultiPolygon":
            many = node.get("coordinates")
            return [_rings(one) for one in many] if isinstance(many, list) else []
    return []


def _rings(coordinates: Any) -> tuple[Ring, ...]:
    if not isinstance(coordinates, list) or not coordinates:
        raise RegionError("a polygon of the regions has no coordinates")
    return tuple(_ring(ring) for ring in coordinates)


def _ring(corners: Any) -> Ring:
    if not isinstance(corners, list) or len(corners) < 3:
        raise RegionError("a polygon of the regions has fewer than three corners")
    points = []
    for corner in corners:
        pair = corner[:2] if isinstance(corner, list) else []
        if len(pair) != 2 or not all(_number(value) for value in pair):
            raise RegionError(
                "a corner of the regions is not a pair of numbers in pixels of level 0"
            )
        points.append((float(pair[0]), float(pair[1])))
    return np.array(points)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
