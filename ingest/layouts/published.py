"""Layouts of single publications with cells marked in fields: Chula, Aslan, Raabin; and QuPath."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ingest.layouts.scan import LayoutError, Scan, by_stem, points, read_text, walk
from ingest.sources.marked import Mark
from ingest.sources.source import Facts

CHULA_TYPES = (
    "normal",
    "macrocyte",
    "microcyte",
    "spherocyte",
    "target cell",
    "stomatocyte",
    "ovalocyte",
    "teardrop",
    "burr cell",
    "schistocyte",
    "uncategorised",
    "hypochromia",
    "elliptocyte",
)
"""The names of the type numbers (Naruenatthanaset et al. 2020; 12 was added in 2021)."""
CHULA_PX = 70
"""Side of the crop that the authors of Chula RBC-12 cut."""
ASLAN_COLUMNS = ("image_id", "image", "xmin", "ymin", "xmax", "ymax", "label")


def chula(scan: Scan) -> None:
    """Chula RBC-12: `Dataset/N.jpg` with `Label/N.txt`, a line `x y type` for each cell.

    Points have no size: 70 px unless another is said.
    """
    images, others = walk(scan.root)
    tables = {path.stem: path for path in others if path.parent.name == "Label"}
    if not tables:
        raise LayoutError(f"no folder Label under {scan.root}; Chula has Dataset/ and Label/")
    rule = points(scan.options.rule, CHULA_PX)
    for path in images:
        table = tables.pop(path.stem, None)
        if table is None:
            scan.fail(path, f"it has no annotation: Label/{path.stem}.txt is missing")
            continue
        scan.marked(path, list(_chula_marks(scan, table)), rule=rule)
    for table in tables.values():
        scan.fail(table, "its image is missing: none has its name")
    scan.left_alone(path for path in others if path.parent.name != "Label")


def _chula_marks(scan: Scan, table: Path) -> Iterator[Mark]:
    for number, line in enumerate(read_text(table).splitlines(), 1):
        words = line.split()
        where = f"{table.name} line {number}"
        if not words:
            continue
        try:
            x, y, code = float(words[0]), float(words[1]), int(words[2])
            if len(words) != 3 or not 0 <= code < len(CHULA_TYPES):
                raise ValueError
        except (ValueError, IndexError):
            scan.fail(
                table, f"x, y and a type of 0 to 12 were expected, got {line!r}", f"line {number}"
            )
            continue
        yield Mark(x, y, facts=Facts(label=CHULA_TYPES[code]), where=where)


def aslan(scan: Scan) -> None:
    """Aslan's detection set: `images/*.png` and `annotations.csv`, boxes in fractions."""
    images, others = walk(scan.root)
    table = scan.root / "annotations.csv"
    rows = csv.DictReader(StringIO(read_text(table), newline=""))
    if tuple(rows.fieldnames or ()) != ASLAN_COLUMNS:
        raise LayoutError(f"{table} must have the columns {', '.join(ASLAN_COLUMNS)}")
    marks: dict[str, list[Mark]] = {}
    for row in rows:
        where = f"line {rows.line_num}"
        try:
            left, top, right, bottom = (float(row[name]) for name in ASLAN_COLUMNS[2:6])
        except (TypeError, ValueError):
            scan.fail(table, "four numbers were expected as the box", where)
            continue
        marks.setdefault(row["image"], []).append(
            Mark(
                *(left, top, right - left, bottom - top),
                unit="fraction",
                facts=Facts(label=row["label"] or None),
                where=f"{table.name} {where}",
            )
        )
    for path in images:
        found = marks.pop(path.name, None)
        if found is None:
            scan.fail(path, f"it has no annotation: {table.name} does not name it")
        else:
            scan.marked(path, found)
    for name in marks:
        scan.fail(table, f"its image {name} is missing", name)
    scan.left_alone(path for path in others if path != table)


def raabin(scan: Scan) -> None:
    """Raabin-WBC: cropped cells (`<split>/<Type>/*.jpg`), and fields with `jsons/NAME.json`.

    A field's file has `Cell Numbers` and, for each, `Cell_0`, ... with x1, x2, y1, y2 in pixels
    and Label1, Label2 of two experts. Where they disagree the cell has no label, and its notes
    keep both.
    """
    images, others = walk(scan.root)
    tables = {path.stem: path for path in others if path.suffix.lower() == ".json"}
    crops = [path for path in images if path.stem not in tables]
    disagreeing = 0
    for path in (path for path in images if path.stem in tables):
        table = tables[path.stem]
        body = _json(scan, table)
        if body is None:
            continue
        marks = list(_raabin_marks(scan, table, body))
        disagreeing += sum(1 for mark in marks if any(key == "labels" for key, _ in mark.notes))
        scan.marked(path, marks)
    met = {path.stem for path in images}
    for stem, table in tables.items():
        if stem not in met:
            scan.fail(table, "its image is missing: none has its name")
    for path in crops:
        inner = path.relative_to(scan.root).parts
        if len(inner) < 2 or inner[-2].lower() == "images":
            scan.fail(path, "it lies in no folder of a cell type, and no .json file has its name")
        else:
            scan.whole(path, Facts(label=inner[-2]))
    if disagreeing:
        scan.warn(f"{disagreeing} cells carry two labels that disagree and are left without one")
    scan.left_alone(path for path in others if path.suffix.lower() != ".json")


def _raabin_marks(scan: Scan, table: Path, body: Mapping[str, Any]) -> Iterator[Mark]:
    for name, cell in body.items():
        if not name.startswith("Cell_"):
            continue
        try:
            left, right, top, bottom = (float(cell[side]) for side in ("x1", "x2", "y1", "y2"))
        except (KeyError, TypeError, ValueError):
            scan.fail(table, "x1, x2, y1 and y2 were expected", name)
            continue
        said = [str(cell[key]).strip() for key in ("Label1", "Label2") if cell.get(key)]
        agreed = said[0] if len(set(said)) == 1 else None
        yield Mark(
            *(min(left, right), min(top, bottom), abs(right - left), abs(bottom - top)),
            facts=Facts(label=agreed),
            where=f"{table.name} {name}",
            notes=(("labels", " | ".join(said)),) if len(set(said)) > 1 else (),
        )


def qupath(scan: Scan) -> None:
    """QuPath: `NAME.geojson` beside the image NAME, objects in level-0 pixels.

    A polygon counts by its bounding box, a point needs a size. The label is the name of the
    object's classification; an object without one has no label.
    """
    images, others = walk(scan.root)
    tables = [path for path in others if path.suffix.lower() == ".geojson"]
    if not tables:
        raise LayoutError(f"no .geojson files under {scan.root}")
    stems = by_stem(images)
    whole = {path: [path] for path in images}  # NAME.png.geojson belongs to NAME.png
    used: set[Path] = set()
    for table in tables:
        stem = table.with_suffix("")
        found = stems.get(stem) or whole.get(stem) or []
        if len(found) != 1:
            scan.fail(table, "its image is missing: none beside it has its name")
            continue
        used.add(found[0])
        body = _json(scan, table)
        if body is not None:
            scan.marked(found[0], list(_qupath_marks(scan, table, body)))
    for path in images:
        if path not in used:
            scan.fail(path, "it has no annotation: no .geojson beside it has its name")
    scan.left_alone(path for path in others if path.suffix.lower() != ".geojson")


def _qupath_marks(scan: Scan, table: Path, body: Any) -> Iterator[Mark]:
    features = body.get("features") if isinstance(body, dict) else body
    if isinstance(body, dict) and body.get("type") == "Feature":
        features = [body]
    if not isinstance(features, list):
        scan.fail(table, "a FeatureCollection or a list of Features was expected")
        return
    for number, feature in enumerate(features, 1):
        where = f"feature {number}"
        try:
            shape = feature["geometry"]
            kind = (feature.get("properties") or {}).get("classification") or {}
            label = kind.get("name") if isinstance(kind, dict) else str(kind)
            pairs = list(_pairs(shape["coordinates"]))
            xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
            left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        except (KeyError, TypeError, ValueError, AttributeError):
            scan.fail(table, "it is no GeoJSON feature with coordinates", where)
            continue
        facts, place = Facts(label=label), f"{table.name} {where}"
        match shape.get("type"):
            case "Point":
                yield Mark(left, top, facts=facts, where=place)
            case "MultiPoint":
                for x, y in pairs:
                    yield Mark(x, y, facts=facts, where=place)
            case "Polygon" | "MultiPolygon":
                yield Mark(left, top, right - left, bottom - top, facts=facts, where=place)
            case other:
                scan.fail(table, f"a polygon or a point was expected, got {other}", where)


def _pairs(value: Any) -> Iterator[tuple[float, float]]:
    """The positions in coordinates of any depth."""
    if value and not isinstance(value[0], list):
        yield float(value[0]), float(value[1])
        return
    for inner in value:
        yield from _pairs(inner)


def _json(scan: Scan, table: Path) -> Any | None:
    try:
        return json.loads(read_text(table))
    except ValueError as error:
        scan.fail(table, f"it is not JSON: {error}")
        return None
