"""QuPath: GeoJSON beside each image, with cells, regions, and classes to be ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest.layouts.boxes import UNREAD, paired, parse_json, unlabelled
from ingest.layouts.scan import Files, LayoutError, Scan
from ingest.slides.source import SLIDES
from ingest.sources.marked import Mark
from ingest.sources.source import Facts

REGION = 4.0
"""An annotation that is so many times as large as another whose centre it holds is a region."""
CONTAINERS = frozenset({"root", "tmacore", "tile"})
"""Objects that are neither cells nor drawn by hand."""


@dataclass(frozen=True)
class _Object:
    """One object of a QuPath file."""

    mark: Mark
    kind: str
    """`annotation`, `detection` or `cell`."""
    name: str

    @property
    def area(self) -> float:
        """Of its box; 0 for a point."""
        return (self.mark.w or 0) * (self.mark.h or 0)

    def holds(self, other: _Object) -> bool:
        """Whether the centre of another lies in its box."""
        mark = other.mark
        x, y = mark.x + (mark.w or 0) / 2, mark.y + (mark.h or 0) / 2
        mine = self.mark
        return (
            mine.w is not None
            and mine.h is not None
            and mine.x <= x <= mine.x + mine.w
            and mine.y <= y <= mine.y + mine.h
        )


def is_qupath(files: Files) -> bool:
    """Whether a folder, or one directly in it, holds GeoJSON."""
    return bool(files.near(".geojson"))


def qupath(scan: Scan) -> None:
    """QuPath: `NAME.geojson` beside the image NAME, objects in level-0 pixels.

    A polygon counts by its bounding box, a point needs a size. The label is the name of the
    object's classification; an object without one has no label. Regions in which cells lie, and
    classes that QuPath itself ignores (`Ignore*`), are left out. Of a slide, the annotations are
    the regions that tiles are cut from.
    """
    images, others = scan.walk()
    tables = [path for path in others if path.suffix.lower() == ".geojson"]
    slides = [path for path in others if path.suffix.lower() in SLIDES]
    if not tables:
        raise LayoutError(f"no .geojson files under {scan.root}")
    used: set[Path] = set()
    for path, table in paired(scan, [*images, *slides], tables):
        used.add(path)
        body = parse_json(scan, table)
        if body is None:
            scan.leave([path], UNREAD)
        elif path.suffix.lower() in SLIDES:
            _slide(scan, path, table, body)
        else:
            scan.marked(path, _cells(scan, table, list(_objects(scan, table, body))))
    for path in slides:
        if path not in used:
            scan.add(path, scan.options.slides)
    unlabelled(scan, images, used, "no .geojson beside it has its name")
    scan.left_alone(path for path in others if path not in slides)


def _slide(scan: Scan, path: Path, table: Path, body: Any) -> None:
    """A slide, cut into tiles within the annotations of its file."""
    found = list(_objects(scan, table, body))
    areas = [one for one in found if one.kind == "annotation" and one.area > 0]
    cells = len(found) - len(areas)
    if cells:
        scan.warn(f"{table}: {cells} cells or points lie on a slide, of which only tiles are taken")
    reader = scan.options.slides
    if areas and reader.regions is None:
        reader = replace(reader, regions=scan.text(table))
        scan.warn(f"{path} is read within the {len(areas)} regions of {table.name}")
    scan.add(path, reader)


def _cells(scan: Scan, table: Path, found: list[_Object]) -> list[Mark]:
    """The marks of single cells, without regions, parts of cells and ignored classes."""
    left: Counter[str] = Counter()
    kept: list[_Object] = []
    for one in found:
        if one.name.endswith("*"):
            left["have a class that QuPath ignores"] += 1
        else:
            kept.append(one)
    kinds = {one.kind for one in kept}
    made = "cell" if "cell" in kinds else "detection" if "detection" in kinds else None
    cells: list[Mark] = []
    for one in kept:
        if made and one.kind == "annotation" and one.area > 0:
            left["are regions around detected cells"] += 1
        elif made == "cell" and one.kind == "detection":
            left["are parts of cells"] += 1
        elif not made and _is_region(one, kept):
            left["are regions in which others lie"] += 1
        else:
            cells.append(one.mark)
    for why, count in left.items():
        scan.warn(f"{table}: {count} objects {why} and stay out")
    return cells


def _is_region(one: _Object, others: list[_Object]) -> bool:
    return any(
        other is not one and one.area >= REGION * other.area and one.holds(other)
        for other in others
        if one.area > 0
    )


def _objects(scan: Scan, table: Path, body: Any) -> Iterator[_Object]:
    features = body.get("features") if isinstance(body, dict) else body
    if isinstance(body, dict) and body.get("type") == "Feature":
        features = [body]
    if not isinstance(features, list):
        scan.fail(table, "a FeatureCollection or a list of Features was expected")
        return
    for number, feature in enumerate(features, 1):
        where = f"feature {number}"
        try:
            shape, facts = feature["geometry"], feature.get("properties") or {}
            name = class_name(facts.get("classification"))
            kind = str(facts.get("objectType") or facts.get("object_type") or "annotation").lower()
            pairs = list(_pairs(shape["coordinates"]))
            xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
            left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        except (KeyError, TypeError, ValueError, AttributeError):
            scan.fail(table, "it is no GeoJSON feature with coordinates", where)
            continue
        if kind in CONTAINERS:
            continue
        place, label = f"{table.name} {where}", Facts(label=name or None)
        match shape.get("type"):
            case "Point" | "MultiPoint":
                for x, y in pairs:
                    yield _Object(Mark(x, y, facts=label, where=place), kind, name)
            case "Polygon" | "MultiPolygon":
                mark = Mark(left, top, right - left, bottom - top, facts=label, where=place)
                yield _Object(mark, kind, name)
            case other:
                scan.fail(table, f"a polygon or a point was expected, got {other}", where)


def class_name(kind: Any) -> str:
    """The name of a classification as QuPath shows it; empty if there is none.

    From 0.4 on, a derived class is a list: `["Lymphocyte", "Positive"]`.
    """
    if isinstance(kind, Mapping):
        names = kind.get("names")
        if isinstance(names, list) and names:
            return ": ".join(str(name) for name in names)
        kind = kind.get("name")
    return "" if kind is None else str(kind).strip()


def _pairs(value: Any) -> Iterator[tuple[float, float]]:
    """The positions in coordinates of any depth."""
    if value and not isinstance(value[0], list):
        yield float(value[0]), float(value[1])
        return
    for inner in value:
        yield from _pairs(inner)
